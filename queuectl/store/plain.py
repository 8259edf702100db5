"""Where to begin with a store: every rule of the contract, on a few steps that a subclass provides.

What can be found out by a look at all jobs is found out so. That is slow, but right; whatever must
be fast is overridden one by one. A change is a `commit`, in which nobody else can get in between
what is read and what is written.
"""

from __future__ import annotations

import abc
from dataclasses import replace
from typing import (
    Callable,
    Collection,
    ContextManager,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from queuectl import clock
from queuectl import job as rules
from queuectl.config import MAX_WORKERS
from queuectl.errors import DuplicateIdError
from queuectl.job import OVER, WAITING, Job, JobState
from queuectl.queues import Rules, closed_queues, is_rule, read_rules
from queuectl.store.base import Activity, Counts, Store, Watch
from queuectl.store.checks import is_kept, news_of, require_free, require_successors
from queuectl.totals import add_changes
from queuectl.values import DEFAULT_QUEUE

_OPEN = tuple(state for state in JobState.ALL if state not in OVER)


class PlainStore(Store):
    """A store that looks at all its jobs; subclasses keep them.

    Beside what is abstract here, a subclass provides of the contract: `select`, `enqueued`,
    `totals`, `settings`, `age`, and what concerns workers and output, as `LocalStore` does.
    """

    @abc.abstractmethod
    def commit(self) -> ContextManager[None]:
        """Return the context of one change, which is whole or absent also after a crash.

        Nobody else changes anything in it: from its beginning on, what is read is what others have
        committed last. It is written once the context ends, and not at all if that raises.
        """

    @abc.abstractmethod
    def put(self, jobs: Sequence[Job], enqueued: int, totals: Mapping[str, int]) -> None:
        """Within a commit: keep jobs, each in the place of what has its `seq`, and add to totals.

        Args:
            jobs: new ones and changed ones.
            enqueued: how many are new.
            totals: by name, how much there is to add to each of `totals`.
        """

    @abc.abstractmethod
    def drop(self, jobs: Sequence[Job]) -> None:
        """Within a commit: take jobs out."""

    @abc.abstractmethod
    def put_settings(self, settings: Dict[str, str]) -> None:
        """Within a commit: keep these settings, and no others."""

    @abc.abstractmethod
    def drop_output(self, job_ids: Iterable[str]) -> None:
        """Remove all output that is kept of these jobs; raises StoreError."""

    @abc.abstractmethod
    def tell_news(self, jobs: int) -> None:
        """Wake every supervisor, for so many jobs that may have become claimable, if any."""

    def add(
        self, jobs: Sequence[Job], given_ids: Sequence[str] = (), also: Sequence[Job] = ()
    ) -> List[Job]:
        with self.commit():
            taken: Set[str] = set()
            for job in jobs:
                if job.id in taken or self.get(job.id) is not None:
                    raise DuplicateIdError(job.id)
                taken.add(job.id)
            require_successors(also, self.get)
            require_free(jobs, [*jobs, *also], self.holder)
            seq_of = {job.id: job.seq for job in also}
            seq_of.update((job.id, seq) for seq, job in enumerate(jobs, self.enqueued() + 1))
            added = [rules.placed(job, seq_of[job.id], seq_of) for job in jobs]
            self._put([*added, *also], len(added))
        self.tell_news(news_of([*added, *also], self.rules()))
        return added

    def save(self, jobs: Sequence[Job], durable: bool = True) -> None:
        with self.commit():
            require_successors(jobs, self.get)
            before = {job.id: self.get(job.id) for job in jobs}
            over = [job_id for job_id, was in before.items() if was is not None and was.is_over]
            require_free([job for job in jobs if job.id in over], jobs, self.holder)
            self._put(jobs)
        self.tell_news(news_of(jobs, self.rules()))

    def remove(self, jobs: Sequence[Job], also: Sequence[Job] = ()) -> None:
        with self.commit():
            require_successors([*(replace(job, rev=job.rev + 1) for job in jobs), *also], self.get)
            self.drop_output(job.id for job in jobs)
            self.drop(jobs)
            self._put(also)
        self.tell_news(news_of([*jobs, *also], self.rules()))

    def claim(
        self,
        worker: str,
        now: float,
        horizon: float,
        done: Optional[Job] = None,
        wanted: Callable[[], bool] = lambda: True,
        queues: Optional[Collection[str]] = None,
    ) -> Optional[Job]:
        ended = [] if done is None else [done]
        claimed = None
        with self.commit():
            require_successors(ended, self.get)
            self._put(ended)
            job = self.next_job(now, horizon, queues, done)
            if job is not None and wanted():
                claimed = rules.claim(job, worker, now)
                self._put([claimed])
        self.tell_news(news_of(ended, self.rules()))
        return claimed

    def configure(self, changes: Dict[str, Optional[str]]) -> None:
        with self.commit():
            changed = {**self.settings(), **changes}
            self.put_settings({name: text for name, text in changed.items() if text is not None})
        if any(map(is_rule, changes)):
            self.tell_news(MAX_WORKERS)

    def get(self, job_id: str) -> Optional[Job]:
        return next((job for job in self.select(JobState.ALL) if job.id == job_id), None)

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

    def oldest(self, now: float, horizon: float) -> Optional[Job]:
        due = (job for job in self._free(None, ()) if rules.is_due(job, now, horizon))
        return min(due, key=lambda job: job.seq, default=None)

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

    def _put(self, jobs: Sequence[Job], new: int = 0) -> None:
        totals: Dict[str, int] = {}
        add_changes(totals, [(self.get(job.id), job) for job in jobs])
        self.put(jobs, new, totals)

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
