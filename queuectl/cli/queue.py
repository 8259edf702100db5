"""`queuectl queue`: the named queues, how many jobs of each may run at once, and pausing them."""

from __future__ import annotations

import time
from typing import Any, Dict, List, NamedTuple, Optional

import click

from queuectl.cli import output
from queuectl.cli.command import Group, Session, checked, help_if_bare, pass_session
from queuectl.manager import QueueManager
from queuectl.queues import QueueRule, parse_concurrency
from queuectl.render import row, to_json
from queuectl.store.base import Counts
from queuectl.values import DEFAULT_QUEUE, validate_queue

_LOOK = 0.05


class _Shown(NamedTuple):
    """A queue as it is shown."""

    name: str
    rule: QueueRule
    counts: Counts

    @property
    def state(self) -> str:
        """Whether jobs are claimed from it."""
        return "paused" if self.rule.paused else "active"

    @property
    def limit(self) -> str:
        """How many of its jobs may run at once."""
        return "none" if self.rule.concurrency is None else str(self.rule.concurrency)


def _check_name(text: str) -> str:
    return validate_queue(text)


_name = click.argument("name", metavar="NAME", callback=checked(_check_name))


@click.group(cls=Group, short_help="List the queues; limit, pause and resume one.")
@click.pass_context
def queue(context: click.Context) -> None:
    """The named queues. One is there as soon as a job is in it.

    Example:
      queuectl enqueue "send-mail 42" --queue email
      queuectl queue set email --concurrency 2
      queuectl queue pause email --wait
    """
    help_if_bare(context)


@queue.command("list", short_help="List the queues.")
@pass_session
def list_queues(session: Session) -> None:
    """List the queues: those that hold jobs, and those for which something is set.

    Into a pipe goes one queue a line, its cells separated by tabs: name, active
    or paused, concurrency, and the numbers of jobs that are pending, processing,
    failed, completed, dead, cancelled.

    Example:
      queuectl queue list
    """
    with session.open() as manager:
        queues = _queues(manager)
    if session.json:
        output.line(to_json([_record(shown) for shown in queues]))
    elif session.talks:
        _print_table(queues)
    else:
        for shown in queues:
            counts = _counts(shown)
            output.line(row((shown.name, shown.state, shown.limit, *counts.values())))


@queue.command("set", short_help="Limit how many jobs of a queue run at once.")
@_name
@click.option(
    "--concurrency",
    metavar="N",
    required=True,
    callback=checked(lambda text: _Limit(parse_concurrency(text))),
    help="How many, 1 or more; or none, for no limit.",
)
@pass_session
def set_queue(session: Session, name: str, concurrency: _Limit) -> None:
    """Limit how many jobs of a queue run at once, over all workers of the store.

    If more run already, they go on.

    Example:
      queuectl queue set email --concurrency 2
      queuectl queue set email --concurrency none
    """
    with session.open(create=True) as manager:
        rule = manager.set_queue(name, concurrency=concurrency.number)
    _tell(session, name, rule, f"Queue {name}: concurrency {concurrency}")


@queue.command(short_help="Claim nothing from a queue any more.")
@_name
@click.option("--wait", is_flag=True, help="Return once none of its jobs runs.")
@pass_session
def pause(session: Session, name: str, wait: bool) -> None:
    """Claim nothing from a queue any more, until it is resumed.

    Jobs can still be put into it. What runs goes on; with --wait the command
    returns once that has ended.

    Example:
      queuectl queue pause email --wait
    """
    from queuectl.rescue import Rescues

    with session.open(create=True) as manager:
        rule = manager.set_queue(name, paused=True)
        rescues = Rescues(manager, lambda event: None)
        while wait and manager.store.running().get(name, 0):
            # Else it would wait for the dead, too.
            rescues.stand_in()
            time.sleep(_LOOK)
    _tell(session, name, rule, f"Queue {name} paused")


@queue.command(short_help="Claim from a queue again.")
@_name
@pass_session
def resume(session: Session, name: str) -> None:
    """Claim from a queue again that was paused.

    Example:
      queuectl queue resume email
    """
    with session.open(create=True) as manager:
        rule = manager.set_queue(name, paused=False)
    _tell(session, name, rule, f"Queue {name} resumed")


class _Limit(NamedTuple):
    """A concurrency that was given, which may be none."""

    number: Optional[int]

    def __str__(self) -> str:
        return "none" if self.number is None else str(self.number)


def _queues(manager: QueueManager) -> List[_Shown]:
    tally, rules = manager.store.tally(), manager.queue_rules()
    others = sorted({*tally, *rules} - {DEFAULT_QUEUE})
    return [
        _Shown(name, rules.get(name, QueueRule()), tally.get(name, Counts()))
        for name in (DEFAULT_QUEUE, *others)
    ]


def _counts(shown: _Shown) -> Dict[str, int]:
    states = ("pending", "processing", "failed", "completed", "dead", "cancelled")
    return {state: getattr(shown.counts, state) for state in states}


def _record(shown: _Shown) -> Dict[str, Any]:
    return {
        "name": shown.name,
        "paused": shown.rule.paused,
        "concurrency": shown.rule.concurrency,
        **_counts(shown),
    }


def _print_table(queues: List[_Shown]) -> None:
    screen = output.screen()
    output.line(screen.paint(screen.say("📋", f"Queues ({len(queues)})"), bold=True))
    headers = ("Queue", "Is", "Concurrency", "Pending", "Processing", "Failed", "DLQ")
    rows = [
        (
            shown.name,
            shown.state,
            shown.limit,
            shown.counts.pending,
            shown.counts.processing,
            shown.counts.failed,
            shown.counts.dead,
        )
        for shown in queues
    ]
    output.line(screen.table(headers, rows, elastic=(0,)))


def _tell(session: Session, name: str, rule: QueueRule, text: str) -> None:
    if session.json:
        output.line(to_json({"name": name, **rule._asdict()}))
    else:
        output.line(output.screen().say("⏸️" if rule.paused else "▶️", text))
