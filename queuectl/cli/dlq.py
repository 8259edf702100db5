"""`queuectl dlq`: the jobs that failed for good, and what to do with them."""

from __future__ import annotations

from typing import Callable, List, Optional, Sequence, Tuple

import click

from queuectl.cli import output
from queuectl.cli.command import Group, Session, help_if_bare, pass_session
from queuectl.cli.completers import complete_dead
from queuectl.cli.jobs import print_array
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.render import dead_row, job_row

Change = Callable[[QueueManager, Optional[Sequence[str]]], List[Job]]


@click.group(cls=Group, short_help="Look into the dead letter queue, and retry from it.")
@click.pass_context
def dlq(context: click.Context) -> None:
    """The dead letter queue (DLQ): jobs that failed as often as they may.

    Example:
      queuectl dlq list
      queuectl dlq retry --all
    """
    help_if_bare(context)


@dlq.command("list", short_help="List the dead jobs, the newest first.")
@pass_session
def list_dead(session: Session) -> None:
    """List the dead jobs, the newest first.

    Into a pipe goes one job a line, its cells separated by tabs: id, attempts,
    finished_at, last_error, command. With --json an array of whole jobs.

    Example:
      queuectl dlq list
      queuectl dlq list | wc -l
    """
    with session.open() as manager:
        dead = manager.jobs([JobState.DEAD])
        if session.json:
            print_array(dead)
        elif session.talks:
            _print_table(list(dead))
        else:
            for job in dead:
                output.line(dead_row(job))


def _print_table(dead: List[Job]) -> None:
    screen = output.screen()
    heading = screen.say("💀", f"Dead Letter Queue ({_jobs(dead)})")
    output.line(screen.paint(heading, bold=True))
    if dead:
        rows = [(job.id, job.command, job.attempts, job.last_error) for job in dead]
        output.line(screen.table(("ID", "Command", "Attempts", "Last Error"), rows, (1, 3)))


@dlq.command("retry", short_help="Put dead jobs back into the queue.")
@click.argument("job_ids", nargs=-1, metavar="ID...", shell_complete=complete_dead)
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@pass_session
def retry(session: Session, job_ids: Tuple[str, ...], everything: bool) -> None:
    """Put dead jobs back into the queue, with all their attempts.

    ID may be the first characters of an id, at least four. Either all of the
    jobs are put back or, if there is none of an id or it is not dead, none.

    Example:
      queuectl dlq retry nightly
      queuectl dlq retry --all
    """
    moved = _change(session, job_ids, everything, QueueManager.retry_dead)
    if session.talks:
        jobs = "Job" if len(moved) == 1 else _jobs(moved)
        output.line(output.screen().say("🔄", f"{jobs} moved from DLQ to pending queue"))


@dlq.command("purge", short_help="Delete dead jobs and what they printed.")
@click.argument("job_ids", nargs=-1, metavar="ID...", shell_complete=complete_dead)
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@pass_session
def purge(session: Session, job_ids: Tuple[str, ...], everything: bool) -> None:
    """Delete dead jobs and what they printed, for good.

    ID may be the first characters of an id, at least four. Either all of the
    jobs are deleted or, if there is none of an id or it is not dead, none. Their
    command lines are left in the job file until start rewrites it.

    Example:
      queuectl dlq purge nightly
      queuectl dlq purge --all
    """
    purged = _change(session, job_ids, everything, QueueManager.purge_dead)
    if session.talks:
        jobs = "Job" if len(purged) == 1 else _jobs(purged)
        output.line(output.screen().say("🗑️", f"{jobs} deleted from DLQ"))


def _change(
    session: Session, job_ids: Tuple[str, ...], everything: bool, change: Change
) -> List[Job]:
    """Change the jobs that were named; a program is told which those were."""
    if everything == bool(job_ids):
        raise click.UsageError(
            "give ids, or --all" if not job_ids else "give ids or --all, not both"
        )
    with session.open() as manager:
        changed = change(manager, None if everything else job_ids)
    if session.json:
        print_array(changed)
    elif not session.talks:
        for job in changed:
            output.line(job_row(job))
    return changed


def _jobs(jobs: Sequence[Job]) -> str:
    return "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
