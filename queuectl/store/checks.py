"""What a commit is held to, and what follows from it, as functions of the jobs that it concerns.

They are to be asked within the commit, where nobody can get in between what is read and what is
written.
"""

from __future__ import annotations

from typing import Callable, Optional, Sequence, Set

from queuectl.errors import ClaimLostError, ConflictError, KeyTakenError
from queuectl.job import Job, JobState
from queuectl.queues import Rules


def require_successors(jobs: Sequence[Job], get: Callable[[str], Optional[Job]]) -> None:
    """Require that each job follows from what the store holds, and that none is there twice.

    Args:
        jobs: as they are to be saved. One that is to be removed is asked for as if it were saved
            once more, with its `rev` one higher.
        get: returns the job of an id as it stands now.

    Raises:
        ClaimLostError: the claim under which one was run is over.
        ConflictError: another one changed.
    """
    seen: Set[str] = set()
    for job in jobs:
        if job.id in seen:
            raise ConflictError(job.id)
        seen.add(job.id)
        now = get(job.id)
        if now is not None and (now.seq, now.rev + 1) == (job.seq, job.rev):
            continue
        # Who holds the claim has only missed something, as a cancel; and who never ran has none.
        holds = (
            now is not None
            and now.state == JobState.PROCESSING
            and (now.seq, now.runs) == (job.seq, job.runs)
        )
        raise ConflictError(job.id) if holds or job.runs == 0 else ClaimLostError(job.id)


def require_free(
    jobs: Sequence[Job], saved: Sequence[Job], holder: Callable[[str], Optional[Job]]
) -> None:
    """Require that each unique key has one holder at the most after a commit.

    Args:
        jobs: those that have no key now: new ones, and those that were over.
        saved: all that the commit saves, these among them.
        holder: returns the job that has a key now.

    Raises:
        KeyTakenError: there would be two.
    """
    new, changed = {job.id for job in jobs}, {job.id for job in saved}
    kept = (job for job in saved if job.id not in new)
    taken = {job.unique: job.id for job in kept if not job.is_over}
    for job in jobs:
        if job.unique is not None and not job.is_over:
            now = holder(job.unique)
            if now is not None and now.id not in changed:
                raise KeyTakenError(job.unique, now.id)
            if taken.setdefault(job.unique, job.id) != job.id:
                raise KeyTakenError(job.unique, taken[job.unique])


def is_kept(job: Job, by_seq: Callable[[int], Optional[Job]]) -> bool:
    """Whether one of those that a job is to follow keeps it from being claimed.

    Args:
        job: the job.
        by_seq: returns the job of a `seq`; nothing once it was removed.
    """
    for parent in job.parents:
        found = by_seq(abs(parent))
        if found is None or found.state == JobState.COMPLETED:
            continue
        if parent > 0 or not found.is_over:
            return True
    return False


def news_of(jobs: Sequence[Job], queue_rules: Rules) -> int:
    """Return how many jobs may have become claimable by a commit that saved these."""
    # One that ends makes room in its queue.
    return sum(job.waits or job.dependents + (job.queue in queue_rules) for job in jobs)
