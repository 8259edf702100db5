"""`queuectl wait`: until jobs have ended, and what that means for the exit code."""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, Optional, Tuple

import click

from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.cli.follow import Ends, NoWorkers
from queuectl.cli.selection import choose, label_option, queue_option
from queuectl.cli.told import print_array
from queuectl.clock import parse_duration
from queuectl.errors import WaitTimeoutError
from queuectl.job import WAITING, Job, JobState
from queuectl.manager import QueueManager
from queuectl.waiting import exit_code, until_over

_LIVE = (*WAITING, JobState.PROCESSING)


@click.command(cls=Command, short_help="Wait until jobs have ended.")
@click.argument("job_ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="All jobs that have not ended.")
@queue_option("Those of this queue that have not ended.")
@label_option("Those with this label that have not ended.")
@click.option(
    "--timeout",
    metavar="S",
    callback=checked(parse_duration),
    help="How long: 90, 10s, 5m, 2h or 1d. Default: as long as it takes.",
)
@pass_session
@click.pass_context
def wait(
    context: click.Context,
    session: Session,
    job_ids: Tuple[str, ...],
    everything: bool,
    queue: Optional[str],
    label: Optional[str],
    timeout: Optional[float],
) -> None:
    """Wait until jobs have ended: completed, dead or cancelled.

    ID may be the first characters of an id, at least four. Of --all, --queue and
    --label those count that have not ended when it begins; it is no error if
    there is none. Ctrl-C ends the waiting, not the jobs. At a terminal it says
    how each job ended; with --json it prints the jobs as they are at the end.

    For one ID it ends as the job did: with 0 if it completed, else with its exit
    code, 128 and the signal's number, or 124 if its time was over; with 1 if it
    was cancelled, its worker died, or it never started. For several, and for
    --all, --queue and --label: with 0 if all completed, else with 1. With 124
    also when --timeout is over, and with 1 if a job was purged meanwhile.

    Example:
      queuectl wait nightly || echo "it ended with $?"
      queuectl wait --all --timeout 1h
    """
    chosen = choose(job_ids, everything=everything, queue=queue, label=label)
    with session.open() as manager:
        if chosen is None:
            jobs: Iterable[Job] = map(manager.find, job_ids)
        else:
            jobs = manager.jobs(chosen._replace(states=_LIVE))
        seqs = {job.id: job.seq for job in jobs}
        code = 0
        try:
            ends = Ends(session)
            for job_id, job in until_over(manager.store, seqs, timeout, NoWorkers(manager)):
                ends.tell(job_id, job)
                code = max(code, exit_code(job))
        except WaitTimeoutError:
            _print_array(session, manager, seqs)
            raise
        _print_array(session, manager, seqs)
    context.exit(code if len(seqs) == 1 and chosen is None else min(code, 1))


def _print_array(session: Session, manager: QueueManager, seqs: Dict[str, int]) -> None:
    """With `--json`, print those of some jobs that are still there, in order."""
    if not session.json:
        return
    with manager.store.watch(seqs) as watch:
        now = dict(watch.look())

    def there() -> Iterator[Job]:
        for job_id, seq in seqs.items():
            job = now[job_id]
            if job is not None and job.seq == seq:
                yield job

    print_array(there())
