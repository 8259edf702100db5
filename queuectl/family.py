"""Jobs that wait for others: who they are, and what becomes of them.

A parent knows how many wait for it, and each new one changes its `rev`. So who ends a parent and
its descendants in one commit either meant all of them, or is refused and looks again.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Optional, Sequence, Set

from queuectl import job as rules
from queuectl.job import WAITING, Job, JobState
from queuectl.store.base import Store

_DEEP = 8  # so many generations are looked for one by one, each at the cost of a pass of the store


def doomed(store: Store, parents: Sequence[Job], now: float, what: str) -> List[Job]:
    """Cancel, for all generations, the jobs that could only have run after these completed.

    Args:
        store: where they are.
        parents: jobs that will never complete.
        now: the time, in seconds since the epoch.
        what: what became of the parents, such as `cancelled`.

    Returns:
        The jobs as they are to be saved, together with what becomes of the parents.
    """
    cancelled: Dict[int, Job] = {parent.seq: parent for parent in parents}
    generation: List[Job] = [parent for parent in parents if parent.dependents]
    found: List[Job] = []
    children: Callable[[Sequence[Job]], List[Job]] = store.children
    generations = 0
    while generation:
        generations += 1
        if generations == _DEEP:
            children = _read_children(store)
        ids = {parent.seq: parent.id for parent in generation}
        ended: List[Job] = []
        for child in children(generation):
            parent = next((ids[seq] for seq in child.parents if seq in ids), None)
            if parent is not None and child.seq not in cancelled:
                reason = f"Job {parent!r}, which it was to follow, was {what}"
                ended.append(rules.cancel(child, now, reason))
        cancelled.update((job.seq, job) for job in ended)
        found.extend(ended)
        generation = [job for job in ended if job.dependents]
        what = "cancelled"
    return found


def _read_children(store: Store) -> Callable[[Sequence[Job]], List[Job]]:
    """Read all jobs that wait for others once; return what does as `Store.children` with them."""
    by_parent: Dict[int, Dict[int, Job]] = {}
    for job in store.select(WAITING):
        for seq in job.parents:
            by_parent.setdefault(abs(seq), {})[job.seq] = job

    def children(parents: Sequence[Job]) -> List[Job]:
        found: Dict[int, Job] = {}
        for parent in parents:
            found.update(by_parent.get(parent.seq, {}))
        return [found[seq] for seq in sorted(found)]

    return children


def finish(store: Store, job: Job) -> None:
    """Save the result of a run.

    One that was cancelled takes along those that were to follow it.

    Raises:
        ClaimLostError: the claim is over.
        ConflictError: the job, or one that follows it, was changed meanwhile.
    """
    followers: List[Job] = []
    if job.state == JobState.CANCELLED and job.dependents:
        followers = doomed(store, [job], store.now(), "cancelled")
    store.save([job, *followers], durable=False)


def is_kept(job: Job, parents: Mapping[int, Job]) -> bool:
    """Tell whether a job waits for others.

    Args:
        job: a job that waits.
        parents: by `seq`, those that it is to follow, as far as they are still there.
    """
    for seq in job.parents:
        parent = parents.get(abs(seq))
        if parent is None or parent.state == JobState.COMPLETED:
            continue
        if seq > 0 or not parent.is_over:
            return True
    return False


def find_cycle(parents: Mapping[str, Sequence[str]]) -> Optional[List[str]]:
    """Find jobs that wait for each other in a circle.

    Args:
        parents: by id, for whom each waits; those for whom nobody here waits may be missing.

    Returns:
        Their ids, each before the one it waits for, the first once more at the end.
    """
    clear: Set[str] = set()
    for start in parents:
        path: Dict[str, None] = {}
        # What is left to be looked at: first the start, then of each job on the path its parents.
        left = [iter([start])]
        while left:
            job_id = next(left[-1], None)
            if job_id is None:
                left.pop()
                if path:
                    clear.add(path.popitem()[0])
            elif job_id in path:
                circle = list(path)
                return [*circle[circle.index(job_id) :], job_id]
            elif job_id not in clear and job_id in parents:
                path[job_id] = None
                left.append(iter(parents[job_id]))
    return None


def cancelled_too(jobs: Sequence[Job]) -> List[str]:
    """Say, a line each, why jobs were cancelled that `doomed` found."""
    return [f"job {job.id!r} is cancelled too: {job.last_error}" for job in jobs]
