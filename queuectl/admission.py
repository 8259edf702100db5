"""Enqueueing: what becomes of requests for new jobs, all or none of them.

What new jobs need of others is decided on what was read: the parents for which they wait, the
holder of a unique key. The store refuses it if one of these moved on, or a key was taken meanwhile;
then it is read and decided again.
"""

from __future__ import annotations

from collections import Counter
from typing import (
    Callable,
    Dict,
    FrozenSet,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)
from typing import Counter as CounterType

from queuectl import job as rules
from queuectl.config import Settings
from queuectl.errors import (
    ConflictError,
    DuplicateIdError,
    InvalidValueError,
    KeyTakenError,
    QueueError,
    RequestError,
    WrongStateError,
)
from queuectl.family import cancelled_too, doomed, find_cycle
from queuectl.job import Job, JobState
from queuectl.newjob import REPLACE, SKIP, NewJob, current_folder, make_job, make_like
from queuectl.store.base import Store

T = TypeVar("T")


class Receipt(NamedTuple):
    """What became of requests.

    Attributes:
        jobs: the job for each request: a new one, or the one that holds its unique key.
        known: the ids of those that were there already.
        notices: what a user should know, a line each.
    """

    jobs: List[Job]
    known: FrozenSet[str]
    notices: List[str]


def admit(
    store: Store,
    requests: Sequence[NewJob],
    settings: Settings,
    now: float,
    find: Callable[[str], Job],
) -> Receipt:
    """Add the jobs that are asked for; see `QueueManager.submit`.

    Args:
        store: where.
        requests: for what.
        settings: for what they do not say.
        now: the time, in seconds since the epoch.
        find: finds a job by an id or its beginning.
    """
    return _Admission(store, requests, settings, now, find).run()


def restore(store: Store, jobs: Sequence[Job]) -> List[Job]:
    """Add jobs as they are, in whatever state, as when a queue is moved here; all or none.

    Those that waited for others wait for these still: among them, or among those that are there.

    Raises:
        DuplicateIdError: an id is taken.
        KeyTakenError: a job that is not over has a unique key that is taken.
    """
    ids = {job.id for job in jobs}
    wanted: CounterType[str] = Counter()
    for job in jobs:
        if job.waits:
            wanted.update({*job.after, *job.after_any} - ids)
    while True:
        there = [job for job in store.select(JobState.ALL) if job.id in wanted] if wanted else []
        now = store.now()
        awaited = [
            rules.awaited(job, now, wanted[job.id])
            for job in there
            if job.state != JobState.COMPLETED
        ]
        try:
            return store.add(jobs, [job.id for job in jobs], awaited)
        except ConflictError:
            continue


class _Admission:
    def __init__(
        self,
        store: Store,
        requests: Sequence[NewJob],
        settings: Settings,
        now: float,
        find: Callable[[str], Job],
    ) -> None:
        self._store = store
        self._requests = requests
        self._now = now
        self._find = find
        cwd = "/" if all(request.cwd for request in requests) else current_folder()
        self._jobs: List[Job] = []
        for number, request in enumerate(requests):
            self._at(number, self._make, request, settings, cwd)
        # The requests that are met by a job which holds their key, by number.
        self._met: Dict[int, str] = {}
        # The same by the ids that their jobs would have had.
        self._holders: Dict[str, str] = {}
        # By unique key, the jobs that make room for new ones.
        self._replaced: Dict[str, str] = {}
        self._notices: List[str] = []
        self._refuse_doubles()

    def _make(self, request: NewJob, settings: Settings, cwd: str) -> None:
        job: Optional[Job] = None
        if self._jobs:
            job = make_like(request, self._requests[len(self._jobs) - 1], self._jobs[-1])
        self._jobs.append(job or make_job(request, settings, self._now, cwd))

    def run(self) -> Receipt:
        while True:
            self._notices = []
            new = {n: job for n, job in enumerate(self._jobs) if n not in self._met}
            try:
                also = self._make_room(new)
                jobs, parents = self._tie(new)
                also += parents
                self._refuse_overlap(also)
                given = [job.id for n, job in new.items() if self._requests[n].id is not None]
                added = self._store.add(jobs, given, also) if jobs else []
            except KeyTakenError as taken:
                self._yield_to(taken, new)
            except ConflictError:
                continue
            else:
                return self._receipt(dict(zip(new, added)))

    def _receipt(self, added: Dict[int, Job]) -> Receipt:
        if not self._met:
            return Receipt(list(added.values()), frozenset(), self._notices)
        by_id = {job.id: job for job in added.values()}
        jobs: List[Job] = []
        known = set()
        for number in range(len(self._requests)):
            job = added.get(number)
            if job is None:
                job = by_id.get(self._met[number])
            if job is None:
                holder = self._met[number]
                known.add(holder)
                # It may have been purged since; then it is told as it would have been.
                job = self._store.get(holder) or self._jobs[number]
            jobs.append(job)
        return Receipt(jobs, frozenset(known), self._notices)

    def _refuse_doubles(self) -> None:
        """Refuse ids that are there twice; of keys that are, mostly the first counts."""
        ids = set()
        firsts: Dict[str, str] = {}
        for number, (request, job) in enumerate(zip(self._requests, self._jobs)):
            if request.id is not None:
                if request.id in ids:
                    raise DuplicateIdError(request.id)
                ids.add(request.id)
            if job.unique is None:
                continue
            holder = firsts.setdefault(job.unique, job.id)
            if holder != job.id and (request.on_conflict or SKIP) != SKIP:
                raise _placed(KeyTakenError(job.unique, holder), number)
            if holder != job.id:
                self._meet(number, holder)

    def _meet(self, number: int, holder: str) -> None:
        self._met[number] = holder
        self._holders[self._jobs[number].id] = holder

    def _yield_to(self, taken: KeyTakenError, new: Dict[int, Job]) -> None:
        """Do what those ask for whose unique key is taken."""
        for number, job in new.items():
            if job.unique != taken.key:
                continue
            policy = self._requests[number].on_conflict or SKIP
            if policy == SKIP:
                # With it those of the same requests that it met.
                for other, rival in enumerate(self._jobs):
                    if rival.unique == taken.key:
                        self._meet(other, taken.holder)
            elif policy == REPLACE:
                self._replaced[taken.key] = job.id
            else:
                raise _placed(taken, number)

    def _make_room(self, new: Dict[int, Job]) -> List[Job]:
        """Cancel the jobs that are replaced, with those that were to follow them."""
        also: List[Job] = []
        for key, successor in self._replaced.items():
            holder = self._store.holder(key)
            if holder is None:
                continue
            if not holder.waits:
                number = next(n for n, job in new.items() if job.id == successor)
                what = f"job {holder.id!r} is {holder.state}: it cannot be replaced"
                raise _placed(WrongStateError(what), number)
            ended = rules.cancel(holder, self._now, f"Replaced by job {successor!r}")
            followers = doomed(self._store, [ended], self._now, "replaced")
            also += [ended, *followers]
            self._notices.extend(cancelled_too(followers))
        return also

    def _tie(self, new: Dict[int, Job]) -> Tuple[List[Job], List[Job]]:
        """Have the new jobs wait for their parents; return them, and those as they know of it."""
        if not any(job.after or job.after_any for job in new.values()):
            return list(new.values()), []
        mine = {job.id for job in new.values()}
        known: Dict[str, Job] = {}
        counts: CounterType[str] = Counter()
        parents: Dict[int, Tuple[List[str], List[str]]] = {}
        for number, job in new.items():
            after = self._at(number, self._resolve, job.after, mine, known)
            after_any = self._at(number, self._resolve, job.after_any, mine, known)
            for parent in after:
                if parent in known:
                    self._at(number, self._check_parent, known[parent], job)
            kept = [p for p in after if p in mine or known[p].state != JobState.COMPLETED]
            kept += [p for p in after_any if p in mine or not known[p].is_over]
            counts.update(set(kept))
            parents[number] = after, after_any
        jobs = [rules.related(job, *parents[n], counts[job.id]) for n, job in new.items()]
        self._refuse_cycle(dict(zip(new, jobs)))
        awaited = [job for job in known.values() if counts[job.id]]
        return jobs, [rules.awaited(job, self._now, counts[job.id]) for job in awaited]

    def _resolve(self, names: Sequence[str], mine: Set[str], known: Dict[str, Job]) -> List[str]:
        """Find the parents that are meant: ids of the same requests first, then any."""
        ids: Dict[str, None] = {}
        for name in names:
            # Who refers to a request that was met refers to the job that meets it.
            job_id = self._holders.get(name, name)
            if job_id not in mine and job_id not in known:
                parent = self._find(job_id)
                known[parent.id] = parent
                job_id = parent.id
            ids[job_id] = None
        return list(ids)

    def _check_parent(self, parent: Job, child: Job) -> None:
        if parent.state == JobState.CANCELLED:
            raise WrongStateError(f"job {parent.id!r} is cancelled: nothing can run after it")
        if parent.state == JobState.DEAD:
            self._notices.append(
                f"job {parent.id!r} is dead: job {child.id!r} waits until it is retried and "
                "completes"
            )

    def _refuse_cycle(self, tied: Dict[int, Job]) -> None:
        parents = {job.id: (*job.after, *job.after_any) for job in tied.values()}
        cycle = find_cycle(parents)
        if cycle is not None:
            number = next(n for n, job in tied.items() if job.id == cycle[0])
            what = "jobs wait for each other: " + " after ".join(cycle)
            raise _placed(InvalidValueError(what), number)

    def _refuse_overlap(self, also: List[Job]) -> None:
        twice = [job_id for job_id, count in Counter(job.id for job in also).items() if count > 1]
        if twice:
            raise RequestError(f"a new job can not both replace job {twice[0]!r} and wait for it")

    @staticmethod
    def _at(number: int, call: Callable[..., T], *args: object) -> T:
        """Make known which request an error concerns."""
        try:
            return call(*args)
        except QueueError as error:
            raise _placed(error, number) from error.__cause__


def _placed(error: QueueError, number: int) -> QueueError:
    error.request = number
    return error
