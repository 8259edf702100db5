"""`queuectl list` and `queuectl show`: many jobs in few words, and one in all."""

from __future__ import annotations

import os
from typing import Any, Iterable, List, Optional, Sequence, Tuple

import click

from queuectl import clock
from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.cli.outputs import Output, open_output, tail
from queuectl.clock import format_duration
from queuectl.config import parse_whole
from queuectl.errors import InvalidValueError
from queuectl.job import SHOWN_FIELDS, Job, JobState
from queuectl.manager import QueueManager
from queuectl.render import Screen, elapsed, job_row, local_time, short_id, to_json
from queuectl.text import as_utf8

_SHOWN_AT_TERMINAL = 50
_MOST = 10**9
_ALIASES = {"dlq": JobState.DEAD}
_LABELS = {
    "id": "ID",
    "created_at": "Created",
    "updated_at": "Updated",
    "cwd": "Folder",
    "run_at": "Not before",
    "started_at": "Started",
    "finished_at": "Finished",
    "rev": "Changes",
}


def parse_states(text: str) -> Tuple[str, ...]:
    """Read names of states, separated by commas; `dlq` is another name of `dead`.

    Raises:
        InvalidValueError: one is unknown; the message offers the nearest.
    """
    states: List[str] = []
    for word in text.split(","):
        name = word.strip().lower()
        state = _ALIASES.get(name, name)
        if state not in JobState.ALL:
            import difflib

            near = difflib.get_close_matches(name, [*JobState.ALL, *_ALIASES], n=1)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(JobState.ALL)}"
            raise InvalidValueError(f"unknown state {word.strip()!r}: {hint}")
        if state not in states:
            states.append(state)
    return tuple(states)


@click.command("list", cls=Command, short_help="List jobs, the newest first.")
@click.option(
    "--state",
    "states",
    metavar="S,S",
    callback=checked(parse_states),
    help="Only jobs in these states: pending, processing, completed, failed, dead, cancelled.",
)
@click.option(
    "--limit",
    metavar="N",
    callback=checked(lambda text: parse_whole(text, 1, _MOST)),
    help="At most so many. Default: 50 at a terminal, else all.",
)
@click.option("--all", "everything", is_flag=True, help="All of them, also at a terminal.")
@pass_session
def list_jobs(
    session: Session, states: Optional[Tuple[str, ...]], limit: Optional[int], everything: bool
) -> None:
    r"""List jobs, the newest first.

    At a terminal a table shows the newest 50. Into a pipe go all jobs, one a
    line, its cells separated by tabs: id, state, attempts, max_retries,
    created_at, command; a backslash, a tab and a newline in a command are
    written \\, \t and \n. With --json an array of whole jobs. The state dlq is
    another name of dead.

    Example:
      queuectl list
      queuectl list --state pending,failed --limit 10
      queuectl list --state dlq --json
    """
    if limit is not None and everything:
        raise click.UsageError("choose one of --limit and --all")
    wanted = states or JobState.ALL
    with session.open() as manager:
        if session.json:
            print_array(manager.jobs(wanted, limit))
        elif session.talks:
            most = limit if limit is not None or everything else _SHOWN_AT_TERMINAL
            _print_table(manager, wanted, states is None, most)
        else:
            for job in manager.jobs(wanted, limit):
                output.line(job_row(job))


def print_array(jobs: Iterable[Job]) -> None:
    """Print an array of whole jobs, one a line, without ever holding all of them."""
    separator = "["
    for job in jobs:
        output.write(f"{separator}{to_json(job.to_dict())}")
        separator = ",\n "
    output.line("[]" if separator == "[" else "]")


def _print_table(
    manager: QueueManager, states: Sequence[str], is_default: bool, limit: Optional[int]
) -> None:
    screen = output.screen()
    jobs = list(manager.jobs(states, limit))
    counts = manager.counts()
    total = max(sum(getattr(counts, state) for state in states), len(jobs))
    names = "" if is_default else ", ".join(state.capitalize() for state in states) + " "
    output.line(screen.paint(screen.say("📋", f"{names}Jobs ({total})"), bold=True))
    if jobs:
        rows = [
            (short_id(job.id), job.command, job.state, job.attempts, job.max_retries)
            for job in jobs
        ]
        headers = ("ID", "Command", "State", "Attempts", "Max Retries")
        output.line(screen.table(headers, rows, elastic=(0, 1)))
    if len(jobs) < total:
        output.line(f"newest {len(jobs)} of {total} (--all shows all)")


@click.command(cls=Command, short_help="Show everything that is known about a job.")
@click.argument("job_id", metavar="ID")
@pass_session
def show(session: Session, job_id: str) -> None:
    """Show everything that is known about a job, and the end of what it printed.

    ID may be the first characters of an id, at least four. Times are local ones.
    With --json the job as it is kept, with times in UTC, and as "output" the path
    of the file that holds what it printed, or null.

    Example:
      queuectl show nightly
      queuectl show nightly --json
    """
    with session.open() as manager:
        job = manager.find(job_id)
        found = open_output(manager, job)
        try:
            if session.json:
                path = None if found is None else as_utf8(found.path)
                output.line(to_json({**job.to_dict(), "output": path}))
            else:
                _describe(job, found, output.screen())
        finally:
            if found is not None:
                os.close(found.fd)


def _describe(job: Job, found: Optional[Output], screen: Screen) -> None:
    output.line(screen.paint(screen.say("📋", f"Job {short_id(job.id)}"), bold=True))
    facts = [(_label(name), _fact(job, name, screen)) for name in SHOWN_FIELDS]
    if found is not None:
        facts.append(("Output", screen.text(f"{as_utf8(found.path)} (run {found.run})")))
    told = [(label, fact) for label, fact in facts if fact]
    width = max(len(label) for label, _ in told) + 2
    for label, fact in told:
        output.line(f"{label + ':':<{width}}{fact}".replace("\n", "\n" + " " * width))
    if found is not None:
        bar = "|" if screen.plain else "│"
        for line in tail(found, screen, screen.width - 4):
            output.line(f"  {bar} {line}")


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " ").capitalize())


def _fact(job: Job, name: str, screen: Screen) -> str:
    """Put a field into words; nothing where it does not apply."""
    value: Any = getattr(job, name)
    if value is None or value is False:
        return ""
    if name == "state":
        return screen.state(job.state)
    if name == "command":
        return screen.output(job.command)
    if name == "timeout":
        return format_duration(job.timeout or 0)
    if value is True:
        return "yes"
    if not name.endswith("_at"):
        return screen.text(str(value))
    since = clock.now() - clock.from_iso(value)
    if name == "run_at" and since < 0:
        return f"{local_time(value)} (in {elapsed(-since)})"
    if name == "started_at" and job.state == JobState.PROCESSING:
        return f"{local_time(value)} (running for {elapsed(since)})"
    return local_time(value)
