"""`queuectl start` and `queuectl stop`."""

from __future__ import annotations

import os
import sys
import time
from typing import List, Optional, Tuple

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Group, Session, checked, help_if_bare, pass_session
from queuectl.clock import format_duration
from queuectl.config import MAX_WORKERS, parse_whole
from queuectl.errors import NoStoreError, RequestError
from queuectl.manager import QueueManager
from queuectl.newjob import NO_LIMIT
from queuectl.render import to_json
from queuectl.store.base import Member
from queuectl.text import as_utf8
from queuectl.values import validate_queue

_MARGIN = 5.0
_LOOK = 0.05


def _parse_timeout(text: str) -> float:
    from queuectl.fields import parse_timeout

    return parse_timeout(text)


def _check_queues(
    context: click.Context, parameter: click.Parameter, names: Tuple[str, ...]
) -> Tuple[str, ...]:
    check = checked(validate_queue)
    return tuple(dict.fromkeys(str(check(context, parameter, name)) for name in names))


@click.command(cls=Command, short_help="Start workers, in the foreground.")
@click.option(
    "--count",
    metavar="N",
    callback=checked(lambda text: parse_whole(text, 1, MAX_WORKERS)),
    help="How many workers. Default: setting worker_count.",
)
@click.option(
    "--timeout",
    metavar="S",
    callback=checked(_parse_timeout),
    help="Claim no new jobs after so long: 90, 10s, 5m, 2h, 1d. Not a limit on jobs.",
)
@click.option(
    "--queue",
    "queues",
    metavar="NAME",
    multiple=True,
    callback=_check_queues,
    help="Only jobs of this queue; may be repeated. Default: of every queue.",
)
@click.option("--drain", is_flag=True, help="End once there is nothing left to do.")
@click.option("--quiet", is_flag=True, help="Tell only of what is wrong.")
@pass_session
@click.pass_context
def start(
    context: click.Context,
    session: Session,
    count: Optional[int],
    timeout: Optional[float],
    queues: Tuple[str, ...],
    drain: bool,
    quiet: bool,
) -> None:
    """Start workers, in the foreground, until Ctrl-C, TERM or queuectl stop.

    At the first of these, or when --timeout is over, nothing new is claimed and
    running jobs may go on for the setting shutdown_grace; then, or at the second
    signal, they are ended and go back to the queue. So --timeout is not a limit
    on jobs: that is the --timeout of enqueue. --drain ends when no job runs, can
    be claimed, or waits for its retry; it waits neither for queues that are
    paused nor for scheduled jobs, nor for those that follow one of these. With
    --quiet at a terminal it shows a progress bar.

    With --queue only jobs of these queues are run; several are one order, of
    priority and then age.

    Jobs run in the folder where they were enqueued, but with the environment of
    start: the PATH, virtual environment and exports of the shell that enqueued
    them are not kept. The setting shell runs them, by default /bin/sh, which is
    often dash and not bash; there, "pg_dump | gzip" succeeds when pg_dump fails.

    The settings on_complete, on_failed and on_dead name commands that tell you of
    jobs that completed, failed or went to the dead letter queue.

    Ends with 0 when told to stop or drained, with 130 after Ctrl-C, with 128 and
    the signal's number after a second signal, with 1 if --drain ended early. How
    jobs ended does not matter.

    Example:
      queuectl start --count 2 --timeout 1s
      queuectl start --drain --quiet
    """
    if os.name != "posix":
        raise RequestError("start needs Linux or macOS; on Windows, run it in WSL")
    from queuectl.cli.events import Bar, Reporter
    from queuectl.supervisor import Supervisor

    with session.open(create=True) as manager:
        settings = manager.settings
        count = settings["worker_count"] if count is None else count
        timeout = None if timeout == NO_LIMIT else timeout
        bar = Bar() if drain and quiet and sys.stderr.isatty() else None
        report = Reporter(
            settings,
            # It may be changed while start runs, and is in force at the next stop.
            lambda: float(manager.last_settings["shutdown_grace"]),
            quiet=quiet,
            as_json=session.json,
            bar=bar is not None,
        )
        report.greet(count, timeout, as_utf8(manager.store.shown))
        supervisor = Supervisor(
            manager,
            count=count,
            timeout=timeout,
            drain=drain,
            queues=queues or None,
            report=report,
            progress=bar,
        )
        code = supervisor.run()
        if bar is not None:
            bar.clear()
    context.exit(code)


@click.command(cls=Command, short_help="Stop all workers of this store.")
@click.option("--force", is_flag=True, help="End running jobs; they go back to the queue.")
@pass_session
def stop(session: Session, force: bool) -> None:
    """Stop every start that runs on this store now, and wait for it to end.

    Running jobs may go on for the setting shutdown_grace, then they are ended and
    go back to the queue. Ends with 1 if something still runs when that time and
    some more is over. It is no error if nothing runs. A job that stops its own
    workers does not wait for them, as they wait for it.

    Example:
      queuectl stop
    """
    try:
        with session.open() as manager:
            asked, left = _stop(session, manager, force)
            is_job = _is_job_of(manager)
    except NoStoreError:
        asked, left, is_job = [], [], False
    stopped = [member for member in asked if member not in left]
    if session.json:
        keys = ("id", "pid", "host", "started_at")
        output.line(to_json([{key: getattr(member, key) for key in keys} for member in stopped]))
    elif not asked:
        output.line("no workers running")
    elif not left and not is_job:
        output.line(output.screen().say("🛑", "Workers stopped"))
    if left:
        names = ", ".join(f"process {member.pid} on {member.host}" for member in left)
        raise RequestError(f"still running: {names}")


def _stop(
    session: Session, manager: QueueManager, force: bool
) -> Tuple[List[Member], List[Member]]:
    """Ask all that run to stop; returns who was asked, and who has not ended in time."""
    from queuectl.notifier import time_for_hooks

    asked = {member.id: member for member in manager.members("supervisor")}
    settings = manager.settings
    grace = 0.0 if force else settings["shutdown_grace"]
    if asked and not session.json:
        processes = ", ".join(str(member.pid) for member in asked.values())
        how_long = f"; running jobs have up to {format_duration(grace)}" if grace else ""
        output.line(output.screen().say("🛑", f"Stopping process {processes}{how_long}"))
        output.flush()
    if not force:
        grace += time_for_hooks(settings)
    deadline = time.monotonic() + grace + settings["kill_grace"] + _MARGIN
    left, deaf = dict(asked), dict(asked)
    is_job = _is_job_of(manager)
    while left and time.monotonic() < deadline:
        for member_id in list(deaf):
            if manager.store.ask_to_stop(member_id, force):
                del deaf[member_id]
        living = {member.id: member for member in manager.members("supervisor")}
        if is_job and all(member.stopping for member in living.values() if member.id in left):
            # They wait for this very job to end.
            return list(asked.values()), []
        time.sleep(_LOOK)
        left = {member_id: member for member_id, member in left.items() if member_id in living}
        deaf = {member_id: member for member_id, member in deaf.items() if member_id in left}
    return list(asked.values()), list(left.values())


def _is_job_of(manager: QueueManager) -> bool:
    """Whether this process belongs to a job of this store."""
    store = os.environ.get("QUEUECTL_STORE", "")
    return "QUEUECTL_JOB_ID" in os.environ and manager.store.url in (store, os.path.realpath(store))


@click.group(cls=Group, hidden=True, short_help="The same as start and stop.")
@click.pass_context
def worker(context: click.Context) -> None:
    """Start and stop workers, as queuectl start and queuectl stop do.

    Example:
      queuectl worker stop
    """
    help_if_bare(context)


worker.add_command(start)
worker.add_command(stop)
