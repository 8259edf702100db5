"""`queuectl list` and `queuectl show`: many jobs in few words, and one in all."""

from __future__ import annotations

import os
from itertools import islice
from typing import Any, Iterator, List, Optional, Tuple

import click

from queuectl import clock
from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.cli.outputs import tail
from queuectl.cli.selection import label_option, queue_option
from queuectl.cli.told import print_array
from queuectl.clock import format_duration
from queuectl.config import parse_whole
from queuectl.errors import InvalidValueError
from queuectl.filter import JobFilter, parse_age, parse_states
from queuectl.job import DEFAULTS, OPTIONAL_FIELDS, SHOWN_FIELDS, Job, JobState
from queuectl.manager import QueueManager
from queuectl.outputs import Output, open_output
from queuectl.reasons import Reason, ReasonKind
from queuectl.render import Screen, elapsed, job_row, local_time, short_id, to_json
from queuectl.text import as_utf8

_SHOWN_AT_TERMINAL = 50
_SORTS = ("created", "finished", "duration")
_MOST = 10**9
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


def _parse_sort(text: str) -> str:
    if text not in _SORTS:
        raise InvalidValueError(f"{text!r} is not one of {', '.join(_SORTS)}")
    return text


@click.command("list", cls=Command, short_help="List jobs, the newest first.")
@click.option(
    "--state",
    "states",
    metavar="S,S",
    callback=checked(parse_states),
    help="Only jobs in these states: pending, processing, completed, failed, dead, cancelled.",
)
@queue_option()
@label_option()
@click.option(
    "--since",
    metavar="S",
    callback=checked(parse_age),
    help="Only jobs enqueued in the last 90, 10s, 5m, 2h, 1d.",
)
@click.option("--grep", "text", metavar="TEXT", help="Only jobs with this text in the command.")
@click.option(
    "--sort",
    metavar="KEY",
    callback=checked(_parse_sort),
    help="created (the newest first, the default), finished (the last first) or duration "
    "(of the last run, the longest first).",
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
    session: Session,
    states: Optional[Tuple[str, ...]],
    queue: Optional[str],
    label: Optional[str],
    since: Optional[float],
    text: Optional[str],
    sort: Optional[str],
    limit: Optional[int],
    everything: bool,
) -> None:
    r"""List jobs, the newest first.

    At a terminal a table shows the newest 50. Into a pipe go all jobs, one a
    line, its cells separated by tabs: id, state, attempts, max_retries,
    created_at, command; a backslash, a tab and a newline in a command are
    written \\, \t and \n. With --json an array of whole jobs. The state dlq is
    another name of dead. Of several options, jobs must meet all.

    Example:
      queuectl list
      queuectl list --state pending,failed --limit 10
      queuectl list --label nightly --since 1d --sort duration
      queuectl list --state dlq --json
    """
    if limit is not None and everything:
        raise click.UsageError("choose one of --limit and --all")
    wanted = JobFilter(
        states=states or JobState.ALL,
        queue=queue,
        label=label,
        text=None if text is None else as_utf8(text),
    )
    with session.open() as manager:
        if since is not None:
            wanted = wanted._replace(created_since=manager.store.now() - since)
        if session.json:
            print_array(_found(manager, wanted, sort, limit))
        elif session.talks:
            most = limit if limit is not None or everything else _SHOWN_AT_TERMINAL
            _print_table(manager, wanted, sort, most)
        else:
            for job in _found(manager, wanted, sort, limit):
                output.line(job_row(job))


def _found(
    manager: QueueManager, wanted: JobFilter, sort: Optional[str], limit: Optional[int]
) -> Iterator[Job]:
    if sort in (None, "created"):
        return manager.jobs(wanted, limit)
    now = manager.store.now()
    key = _finished if sort == "finished" else lambda job: _duration(job, now)
    return islice(sorted(manager.jobs(wanted), key=key, reverse=True), limit)


def _finished(job: Job) -> str:
    return job.finished_at or ""


def _duration(job: Job, now: float) -> float:
    """How long the last run took, or takes; those that did not run come last."""
    if job.started_at is None:
        return -1.0
    began = clock.from_iso(job.started_at)
    if job.state == JobState.PROCESSING:
        return now - began
    return clock.from_iso(job.finished_at or job.updated_at) - began


def _print_table(
    manager: QueueManager, wanted: JobFilter, sort: Optional[str], limit: Optional[int]
) -> None:
    screen = output.screen()
    if wanted.is_plain:
        jobs = list(_found(manager, wanted, sort, limit))
        counts = manager.counts()
        total = max(sum(getattr(counts, state) for state in wanted.states), len(jobs))
    else:
        found = list(_found(manager, wanted, sort, None))
        jobs, total = found[:limit], len(found)
    is_default = wanted.states == JobState.ALL
    names = "" if is_default else ", ".join(state.capitalize() for state in wanted.states) + " "
    output.line(screen.paint(screen.say("📋", f"{names}Jobs ({total})"), bold=True))
    if jobs:
        rows = [
            (short_id(job.id), job.command, job.state, job.attempts, job.max_retries)
            for job in jobs
        ]
        headers = ("ID", "Command", "State", "Attempts", "Max Retries")
        output.line(screen.table(headers, rows, elastic=(0, 1)))
    if len(jobs) < total:
        first = "newest" if sort in (None, "created") else "first"
        output.line(f"{first} {len(jobs)} of {total} (--all shows all)")


@click.command(cls=Command, short_help="Show everything that is known about a job.")
@click.argument("job_id", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show the values of its variables, too.")
@pass_session
def show(session: Session, job_id: str, reveal: bool) -> None:
    """Show everything that is known about a job, and the end of what it printed.

    Of a job that waits, every reason is named for which it is not claimed now.
    The values of the variables it was given with --env are hidden.

    ID may be the first characters of an id, at least four. Times are local ones.
    With --json the job as it is kept, with times in UTC, as "waiting_for" the
    reasons, as "output" the path of the file that holds what it printed, or
    null, and as "output_host" the machine that has it, or null if it is here.

    Example:
      queuectl show nightly
      queuectl show nightly --json
    """
    with session.open() as manager:
        job = manager.find(job_id)
        reasons = manager.waiting_for(job)
        found = open_output(manager.store, job)
        try:
            if session.json:
                path = None if found is None else as_utf8(found.path)
                why = [reason._asdict() for reason in reasons]
                host = None if found is None or found.shared is None else found.shared.host
                shown = {"waiting_for": why, "output": path, "output_host": host}
                record = {**job.to_dict(reveal), **shown}
                output.line(to_json(record))
            else:
                now = manager.store.now()
                _describe(job, reasons, found, output.screen(), reveal, now)
        finally:
            if found is not None:
                os.close(found.fd)


def _describe(
    job: Job,
    reasons: List[Reason],
    found: Optional[Output],
    screen: Screen,
    reveal: bool,
    now: float,
) -> None:
    output.line(screen.paint(screen.say("📋", f"Job {short_id(job.id)}"), bold=True))
    facts = [(_label(name), _fact(job, name, screen, reveal, now)) for name in SHOWN_FIELDS]
    why = "\n".join(screen.text(_in_words(reason, now)) for reason in reasons)
    state = SHOWN_FIELDS.index("state")
    facts.insert(state + 1, ("Waits", why))
    if found is not None:
        where = "" if found.shared is None else f" on {found.shared.host}"
        what = f"{as_utf8(found.path)}{where} (run {found.run})"
        facts.append(("Output", screen.text(what)))
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


def _in_words(reason: Reason, now: float) -> str:
    """Say for what a job waits."""
    kind, what, state = reason
    if kind in (ReasonKind.SCHEDULED, ReasonKind.RETRY):
        left = clock.from_iso(what) - now
        which = "its next attempt" if kind == ReasonKind.RETRY else "its time"
        return f"for {which}, in {elapsed(left)}"
    if kind == ReasonKind.AFTER:
        stuck = {
            JobState.DEAD: "is in the DLQ: queuectl dlq retry",
            JobState.CANCELLED: "was cancelled: queuectl retry",
        }
        return f"until job {what} completes, which {stuck.get(str(state), f'is {state}')}"
    if kind == ReasonKind.AFTER_ANY:
        return f"until job {what} ends, which is {state}"
    return {
        ReasonKind.PAUSED: f"queue {what} is paused: queuectl queue resume",
        ReasonKind.FULL: f"queue {what} runs as many jobs as it may at once",
        ReasonKind.UNSERVED: f"no worker serves queue {what}",
        ReasonKind.NO_WORKER: "no worker is running: queuectl start",
    }[kind]


def _fact(job: Job, name: str, screen: Screen, reveal: bool, now: float) -> str:
    """Put a field into words; nothing where it does not apply."""
    value: Any = getattr(job, name)
    if name in OPTIONAL_FIELDS and value == DEFAULTS[name]:
        return ""
    if value is None or value is False:
        return ""
    if name == "env":
        return "\n".join(_variable(each, screen, reveal) for each in value)
    if isinstance(value, tuple):
        return screen.text(", ".join(map(str, value)))
    if name == "state":
        return screen.state(job.state)
    if name == "command":
        return screen.output(job.command)
    if name in ("timeout", "backoff_max"):
        return format_duration(value)
    if value is True:
        return "yes"
    if not name.endswith("_at"):
        return screen.text(str(value))
    return _moment(job, name, value, now)


def _variable(assignment: str, screen: Screen, reveal: bool) -> str:
    name, _, value = assignment.partition("=")
    return screen.text(f"{name}={value}" if reveal else f"{name} (--reveal shows it)")


def _moment(job: Job, name: str, value: str, now: float) -> str:
    since = now - clock.from_iso(value)
    if name == "run_at" and since < 0:
        return f"{local_time(value)} (in {elapsed(-since)})"
    if name == "started_at" and job.state == JobState.PROCESSING:
        return f"{local_time(value)} (running for {elapsed(since)})"
    return local_time(value)
