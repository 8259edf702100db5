"""`queuectl dlq`: the jobs that failed for good, and what to do with them."""

from __future__ import annotations

from typing import List, Optional, Tuple

import click

from queuectl.changes import Retried
from queuectl.cli import output
from queuectl.cli.command import Group, Session, help_if_bare, pass_session
from queuectl.cli.completers import complete_dead
from queuectl.cli.selection import choose, label_option
from queuectl.cli.told import count_of, print_array, tell_followers, tell_jobs, tell_refused
from queuectl.filter import DEAD_JOBS
from queuectl.job import Job
from queuectl.render import dead_row


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
        dead = manager.jobs(DEAD_JOBS)
        if session.json:
            print_array(dead)
        elif session.talks:
            _print_table(list(dead))
        else:
            for job in dead:
                output.line(dead_row(job))


def _print_table(dead: List[Job]) -> None:
    screen = output.screen()
    heading = screen.say("💀", f"Dead Letter Queue ({count_of(dead)})")
    output.line(screen.paint(heading, bold=True))
    if dead:
        rows = [(job.id, job.command, job.attempts, job.last_error) for job in dead]
        output.line(screen.table(("ID", "Command", "Attempts", "Last Error"), rows, (1, 3)))


@dlq.command("retry", short_help="Put dead jobs back into the queue.")
@click.argument("job_ids", nargs=-1, metavar="ID...", shell_complete=complete_dead)
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@label_option("All dead jobs with this label.")
@pass_session
def retry(
    session: Session, job_ids: Tuple[str, ...], everything: bool, label: Optional[str]
) -> None:
    """Put dead jobs back into the queue, with all their attempts.

    ID may be the first characters of an id, at least four. Either all of the
    jobs are put back or, if there is none of an id, it is not dead, or another
    job has its unique key, none. With --all or --label such a job is passed
    over, and the exit code is 1.

    Example:
      queuectl dlq retry nightly
      queuectl dlq retry --all
    """
    wanted = choose(job_ids, everything=everything, label=label)
    with session.open() as manager:
        if wanted is None:
            done = Retried(manager.retry_dead(job_ids), {})
        else:
            done = manager.retry_all(wanted._replace(states=DEAD_JOBS.states))
    tell_jobs(session, done.jobs)
    if session.talks:
        jobs = "Job" if len(done.jobs) == 1 else count_of(done.jobs)
        output.line(output.screen().say("🔄", f"{jobs} moved from DLQ to pending queue"))
    tell_refused(done)


@dlq.command("purge", short_help="Delete dead jobs and what they printed.")
@click.argument("job_ids", nargs=-1, metavar="ID...", shell_complete=complete_dead)
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@pass_session
def purge(session: Session, job_ids: Tuple[str, ...], everything: bool) -> None:
    """Delete dead jobs and what they printed, for good.

    ID may be the first characters of an id, at least four. Either all of the
    jobs are deleted or, if there is none of an id or it is not dead, none. Their
    command lines are left in the job file until start rewrites it. Jobs that
    were to follow a deleted one are cancelled.

    Example:
      queuectl dlq purge nightly
      queuectl dlq purge --all
    """
    choose(job_ids, everything=everything)
    with session.open() as manager:
        done = manager.purge_dead(None if everything else job_ids)
    tell_jobs(session, done.jobs)
    if session.talks:
        jobs = "Job" if len(done.jobs) == 1 else count_of(done.jobs)
        output.line(output.screen().say("🗑️", f"{jobs} deleted from DLQ"))
    tell_followers(done)
