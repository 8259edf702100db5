"""`queuectl cancel`, `retry`, `edit` and `purge`: what is done to jobs that are there."""

from __future__ import annotations

import time
from typing import Any, List, Optional, Tuple

import click

from queuectl.changes import Cancelled, Retried
from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.cli.selection import choose, label_option, queue_option
from queuectl.cli.told import count_of, tell_followers, tell_jobs, tell_refused
from queuectl.errors import RequestError
from queuectl.fields import parse_max_retries, parse_priority, parse_run_at
from queuectl.filter import JobFilter, parse_age, parse_states
from queuectl.job import OVER, Job, JobState
from queuectl.manager import QueueManager
from queuectl.rescue import Rescues
from queuectl.text import as_utf8
from queuectl.values import validate_command, validate_queue
from queuectl.waiting import PAUSE

_PURGED_BY_DEFAULT = (JobState.COMPLETED, JobState.CANCELLED)


@click.command(cls=Command, short_help="End jobs, whether they wait or run.")
@click.argument("job_ids", nargs=-1, metavar="ID...")
@queue_option("All jobs of this queue that are not over.")
@label_option("All jobs with this label that are not over.")
@pass_session
def cancel(
    session: Session, job_ids: Tuple[str, ...], queue: Optional[str], label: Optional[str]
) -> None:
    """End jobs, whether they wait or run.

    A job that runs gets TERM within a second, and KILL after the setting
    kill_grace, from the start that runs it; the command returns once all its
    processes are gone. If it completed before, the exit code is 1. Jobs that
    were to follow a cancelled one (enqueue --after) are cancelled too.

    ID may be the first characters of an id, at least four. Either all of the
    jobs are cancelled or, if there is none of an id or it is over, none.

    Example:
      queuectl cancel tonight
      queuectl cancel --label import
    """
    wanted = choose(job_ids, queue=queue, label=label)
    with session.open() as manager:
        done = manager.cancel(job_ids) if wanted is None else manager.cancel_all(wanted)
        tell_followers(done)
        # Those of jobs that run are cancelled only when these have ended.
        coming = manager.followers([job for job in done.jobs if not job.is_over])
        jobs = _await_end(manager, done.jobs)
        now = [manager.store.get(job.id) for job in coming]
        gone = {job.id for job in now if job is not None and job.state == JobState.CANCELLED}
        tell_followers(Cancelled([], [job for job in coming if job.id in gone]))
    too_late = [job.id for job in jobs if job.state == JobState.COMPLETED]
    tell_jobs(session, jobs)
    cancelled = [job for job in jobs if job.state == JobState.CANCELLED]
    if session.talks and (cancelled or not too_late):
        what = "Job" if len(cancelled) == 1 else count_of(cancelled)
        output.line(output.screen().say("🚫", f"{what} cancelled"))
    if too_late:
        names = ", ".join(map(repr, too_late))
        raise RequestError(f"job {names} completed before it could be cancelled")


def _await_end(manager: QueueManager, jobs: List[Job]) -> List[Job]:
    """Wait until none of these runs any more; return them as they are then."""
    now = {job.id: job for job in jobs}
    left = {job.id for job in jobs if not job.is_over}
    if not left:
        return jobs
    rescues = Rescues(manager, lambda event: None)
    with manager.store.watch(left) as watch:
        while True:
            for job_id, job in watch.look():
                if job is None or job.seq != now[job_id].seq:
                    left.discard(job_id)
                    continue
                if job.state != JobState.PROCESSING or job.runs != now[job_id].runs:
                    left.discard(job_id)
                now[job_id] = job
            if not left:
                return list(now.values())
            rescues.stand_in()
            time.sleep(PAUSE)


@click.command(cls=Command, short_help="Run failed, dead or cancelled jobs again now.")
@click.argument("job_ids", nargs=-1, metavar="ID...")
@label_option("All failed, dead and cancelled jobs with this label.")
@pass_session
def retry(session: Session, job_ids: Tuple[str, ...], label: Optional[str]) -> None:
    """Run jobs again now: failed ones, dead ones and cancelled ones.

    One that failed does not wait for its time, and has the attempts that are
    left; the others have all of them again.

    ID may be the first characters of an id, at least four. Either all of the
    jobs are put back or, if there is none of an id, it is in another state, or
    another job has its unique key, none. With --label such a job is passed over,
    and the exit code is 1.

    Example:
      queuectl retry nightly
      queuectl retry --label import
    """
    wanted = choose(job_ids, label=label)
    with session.open() as manager:
        if wanted is None:
            done = Retried(manager.retry(job_ids), {})
        else:
            states = (JobState.FAILED, JobState.DEAD, JobState.CANCELLED)
            done = manager.retry_all(wanted._replace(states=states))
    tell_jobs(session, done.jobs)
    if session.talks:
        what = "Job" if len(done.jobs) == 1 else count_of(done.jobs)
        output.line(output.screen().say("🔄", f"{what} moved to pending queue"))
    tell_refused(done)


@click.command(cls=Command, short_help="Change a job that waits or is dead.")
@click.argument("job_id", metavar="ID")
@click.option("--command", metavar="C", help="The line for the shell.")
@click.option(
    "--priority",
    metavar="P",
    callback=checked(parse_priority),
    help="high, medium, low or a number.",
)
@click.option(
    "--run-at", metavar="WHEN", callback=checked(parse_run_at), help="Not before, as with enqueue."
)
@click.option(
    "--queue", metavar="NAME", callback=checked(validate_queue), help="The queue to move it to."
)
@click.option(
    "--max-retries", metavar="N", callback=checked(parse_max_retries), help="Attempts in all."
)
@pass_session
def edit(session: Session, /, job_id: str, command: Optional[str], **options: Any) -> None:
    """Change a job that waits, or is dead.

    A dead one stays in the DLQ; queuectl dlq retry then runs it as it is now. A
    failed one that is given a --run-at does not wait for its retry any more.

    ID may be the first characters of an id, at least four.

    Example:
      queuectl edit nightly --command "make -j4 backup" --priority high
      queuectl edit tonight --run-at 03:00
    """
    values = {name: value for name, value in options.items() if value is not None}
    if command is not None:
        values["command"] = validate_command(as_utf8(command))
    if not values:
        raise click.UsageError("give what to change, such as --command or --priority")
    with session.open() as manager:
        job = manager.edit(job_id, **values)
    tell_jobs(session, [job])
    if session.talks:
        output.line(output.screen().say("📝", f"Job {job.id} changed"))


@click.command(cls=Command, short_help="Delete jobs that are over, and what they printed.")
@click.option(
    "--state",
    "states",
    metavar="S,S",
    callback=checked(parse_states),
    help="In these states: completed, cancelled, dead. Default: completed,cancelled.",
)
@click.option(
    "--older-than",
    metavar="S",
    callback=checked(parse_age),
    help="Over for so long: 90, 10s, 5m, 2h, 7d.",
)
@label_option()
@click.option("--all", "everything", is_flag=True, help="All that completed or were cancelled.")
@pass_session
def purge(
    session: Session,
    states: Optional[Tuple[str, ...]],
    older_than: Optional[float],
    label: Optional[str],
    everything: bool,
) -> None:
    """Delete jobs that are over, and what they printed, for good.

    Of several options, jobs must meet all. What they printed goes first, so
    that there is room again on a disk that is full. Their command lines are left
    in the job file until start rewrites it.

    Example:
      queuectl purge --older-than 7d
      queuectl purge --state cancelled --label import
      queuectl purge --all
    """
    if everything == bool(states or older_than is not None or label):
        raise click.UsageError(
            "choose --all or a filter"
            if everything
            else "give --state, --older-than, --label or --all"
        )
    running = [state for state in states or () if state not in OVER]
    if running:
        raise click.UsageError(
            f"jobs that are {running[0]} are not over: queuectl cancel ends them"
        )
    wanted = JobFilter(states or _PURGED_BY_DEFAULT, label=label)
    with session.open() as manager:
        if older_than is not None:
            wanted = wanted._replace(ended_before=manager.store.now() - older_than)
        done = manager.purge(wanted)
    tell_jobs(session, done.jobs)
    if session.talks:
        what = "Job" if len(done.jobs) == 1 else count_of(done.jobs)
        output.line(output.screen().say("🗑️", f"{what} deleted"))
    tell_followers(done)
