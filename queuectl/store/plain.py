"""Where to begin with a store: what can be found out by a look at all jobs is found out so.

That is slow, but right. Who writes a store provides what `PlainStore` leaves open, among it each
change and `select`, and later whatever else must be fast. The functions are the rules of a commit:
each is to be asked where nobody can get in between.
"""

from __future__ import annotations

from typing import Callable, Collection, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import ClaimLostError, ConflictError, KeyTakenError
from queuectl.job import OVER, WAITING, Job, JobState
from queuectl.queues import Rules, closed_queues, read_rules
from queuectl.store.base import Activity, Counts, Store, Watch
from queuectl.values import DEFAULT_QUEUE

_OPEN = tuple(state for state in JobState.ALL if state not in OVER)


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


class PlainStore(Store):
    """A store that looks at all its jobs; subclasses keep them."""

    def find(self, prefix: str, limit: int) -> List[str]:
        found = [job.id for job in self.select(JobState.ALL) if job.id.startswith(prefix)]
        return found[:limit]

    def dump(self) -> Tuple[int, Iterator[Job]]:
        found = list(self.select(JobState.ALL))[::-1]
        return len(found), iter(found)

    def watch(self, job_ids: Collection[str]) -> Watch:
        return _PlainWatch(self, job_ids)

    def activity(self, failures: int) -> Activity:
        running = self.select([JobState.PROCESSING])
        failed = self.select([JobState.FAILED, JobState.DEAD])
        return Activity(
            sorted(running, key=lambda job: (str(job.started_at), job.seq)),
            sorted(failed, key=lambda job: (job.updated_at, job.seq), reverse=True)[:failures],
        )

    def counts(self) -> Counts:
        return _counts(list(self.select(JobState.ALL)))

    def running(self) -> Dict[str, int]:
        running = {DEFAULT_QUEUE: 0}
        for job in self.select([JobState.PROCESSING]):
            running[job.queue] = running.get(job.queue, 0) + 1
        return running

    def bound(self) -> int:
        return sum(bool(job.parents) for job in self.select(WAITING))

    def tally(self) -> Dict[str, Counts]:
        queues: Dict[str, List[Job]] = {}
        for job in self.select(JobState.ALL):
            queues.setdefault(job.queue, []).append(job)
        return {queue: _counts(jobs) for queue, jobs in queues.items()}

    def children(self, parents: Sequence[Job]) -> List[Job]:
        numbers = {job.seq for job in parents}
        waiting = list(self.select(WAITING))[::-1]
        return [job for job in waiting if not numbers.isdisjoint(map(abs, job.parents))]

    def holder(self, key: str) -> Optional[Job]:
        return next((job for job in self.select(_OPEN) if job.unique == key), None)

    def current(self, claimed: Job) -> Optional[Job]:
        job = self.get(claimed.id)
        return job if job is not None and job.seq == claimed.seq else None

    def next_job(
        self,
        now: float,
        horizon: float,
        queues: Optional[Collection[str]] = None,
        done: Optional[Job] = None,
    ) -> Optional[Job]:
        """Return the job that `claim` is to hand out, or nothing.

        Args:
            now: as for `claim`, and so are `horizon` and `queues`.
            horizon: see there.
            queues: see there.
            done: what is saved in the same commit, and is saved already.
        """
        due = (
            job
            for job in self._free(queues, closed_queues(self.rules(), self.running()))
            if rules.is_due(job, now, horizon) and (done is None or job.seq != done.seq)
        )
        return min(due, key=lambda job: (-job.priority, job.seq), default=None)

    def claimable(
        self, now: float, horizon: float, queues: Optional[Collection[str]] = None
    ) -> bool:
        return self.next_job(now, horizon, queues) is not None

    def next_due(self, queues: Optional[Collection[str]] = None) -> Optional[float]:
        free = self._free(queues, closed_queues(self.rules(), self.running()))
        return min((clock.from_iso(job.run_at) for job in free if job.run_at), default=None)

    def awaits_retry(self, queues: Optional[Collection[str]] = None) -> bool:
        paused = [name for name, rule in self.rules().items() if rule.paused]
        return any(job.state == JobState.FAILED for job in self._free(queues, paused))

    def rules(self) -> Rules:
        """What is set for single queues."""
        return read_rules(self.settings())

    def sync(self) -> None:
        pass

    def rewrite_due(self) -> bool:
        return False

    def rewrite(self) -> bool:
        return False

    def _free(self, queues: Optional[Collection[str]], closed: Collection[str]) -> Iterator[Job]:
        """The waiting jobs, in these queues and no closed one, that no other job keeps."""
        jobs = {job.seq: job for job in self.select(JobState.ALL)}
        for job in jobs.values():
            is_served = job.queue not in closed and (queues is None or job.queue in queues)
            if job.waits and is_served and not is_kept(job, jobs.get):
                yield job


class _PlainWatch(Watch):
    """Some jobs, each compared with what it was."""

    def __init__(self, store: Store, job_ids: Collection[str]) -> None:
        self._store = store
        self._seen: Dict[str, object] = dict.fromkeys(job_ids, ...)

    def look(self) -> Iterator[Tuple[str, Optional[Job]]]:
        now = {job_id: self._store.get(job_id) for job_id in self._seen}
        changed = {job_id: job for job_id, job in now.items() if job != self._seen[job_id]}
        self._seen.update(now)
        return iter(changed.items())

    def close(self) -> None:
        pass


def _counts(jobs: Collection[Job]) -> Counts:
    states = {state: sum(job.state == state for job in jobs) for state in JobState.ALL}
    delayed = sum(job.state == JobState.PENDING and job.run_at is not None for job in jobs)
    return Counts(delayed=delayed, **states)
