"""A store in memory: the contract in its plainest form, to compare others with.

Nothing is fast here and nothing is clever, so that it is right at a glance. Several handles may
share what they keep, as several processes share a store; all of them live in one process, so a
member is dead once its handle is closed.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import (
    Callable,
    Collection,
    Dict,
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
from queuectl.errors import ClaimLostError, ConflictError, DuplicateIdError, KeyTakenError
from queuectl.job import Job, JobState
from queuectl.queues import closed_queues, is_rule, read_rules
from queuectl.store.base import Activity, Counts, Lost, Member, SharedOutput, Store, Watch
from queuectl.values import DEFAULT_QUEUE


class _Shared:
    """What all handles of one store see."""

    def __init__(self) -> None:
        self.jobs: Dict[str, Job] = {}
        self.last_seq = 0
        self.made_at = clock.now()
        self.turn_at: Optional[float] = None
        self.completions = 0
        self.settings: Dict[str, str] = {}
        self.members: Dict[str, Member] = {}
        # Whose each member is, and whose each dead one that somebody rescues.
        self.owners: Dict[str, MemoryStore] = {}
        self.rescuers: Dict[str, MemoryStore] = {}
        self.stops: Dict[str, bool] = {}
        self.news: Dict[str, int] = {}
        # By the seq of the job and the run.
        self.output: Dict[Tuple[int, int], SharedOutput] = {}


class MemoryStore(Store):
    """One handle of a store in memory.

    Args:
        folder: an existing folder for the output of runs.
        other: a handle of the same store; nothing for a new one.
    """

    shares_output = True

    def __init__(self, folder: str, other: Optional[MemoryStore] = None) -> None:
        self.url = f"memory:{folder}"
        self.closed = False
        self._folder = folder
        self._shared: _Shared = _Shared() if other is None else other._shared
        self._asked: Optional[Tuple[float, float]] = None
        self._pipe: Tuple[int, ...] = ()

    def add(
        self, jobs: Sequence[Job], given_ids: Sequence[str] = (), also: Sequence[Job] = ()
    ) -> List[Job]:
        taken = set(self._shared.jobs)
        for job in jobs:
            if job.id in taken:
                raise DuplicateIdError(job.id)
            taken.add(job.id)
        self._require_successors(also)
        self._require_free(jobs, [*jobs, *also])
        first = self._shared.last_seq + 1
        seq_of = {job.id: job.seq for job in also}
        seq_of.update((job.id, first + number) for number, job in enumerate(jobs))
        added = [rules.placed(job, seq_of[job.id], seq_of) for job in jobs]
        self._shared.last_seq += len(added)
        self._put([*added, *also])
        return added

    def get(self, job_id: str) -> Optional[Job]:
        return self._shared.jobs.get(job_id)

    def find(self, prefix: str, limit: int) -> List[str]:
        return [job_id for job_id in self._shared.jobs if job_id.startswith(prefix)][:limit]

    def select(self, states: Sequence[str], limit: Optional[int] = None) -> Iterator[Job]:
        found = [job for job in self._oldest_first() if job.state in states]
        return iter(found[::-1][:limit])

    def dump(self) -> Tuple[int, Iterator[Job]]:
        found = self._oldest_first()
        return len(found), iter(found)

    def watch(self, job_ids: Collection[str]) -> Watch:
        return _MemoryWatch(self._shared, job_ids)

    def activity(self, failures: int) -> Activity:
        jobs = self._shared.jobs.values()
        running = [job for job in jobs if job.state == JobState.PROCESSING]
        failed = [job for job in jobs if job.state in (JobState.FAILED, JobState.DEAD)]
        return Activity(
            sorted(running, key=lambda job: (job.started_at, job.seq)),
            sorted(failed, key=lambda job: (job.updated_at, job.seq), reverse=True)[:failures],
        )

    def enqueued(self) -> int:
        return self._shared.last_seq

    def completions(self) -> int:
        return self._shared.completions

    def counts(self) -> Counts:
        return _counts(self._shared.jobs.values())

    def running(self) -> Dict[str, int]:
        running = {DEFAULT_QUEUE: 0}
        for job in self._shared.jobs.values():
            if job.state == JobState.PROCESSING:
                running[job.queue] = running.get(job.queue, 0) + 1
        return running

    def bound(self) -> int:
        return sum(job.waits and bool(job.parents) for job in self._shared.jobs.values())

    def tally(self) -> Dict[str, Counts]:
        queues = {job.queue for job in self._shared.jobs.values()}
        return {queue: _counts(self._of_queue(queue)) for queue in queues}

    def children(self, parents: Sequence[Job]) -> List[Job]:
        numbers = {job.seq for job in parents}
        return [
            job
            for job in self._oldest_first()
            if job.waits and not numbers.isdisjoint(map(abs, job.parents))
        ]

    def holder(self, key: str) -> Optional[Job]:
        held = (job for job in self._shared.jobs.values() if job.unique == key and not job.is_over)
        return next(held, None)

    def current(self, claimed: Job) -> Optional[Job]:
        job = self._shared.jobs.get(claimed.id)
        return job if job is not None and job.seq == claimed.seq else None

    def claim(
        self,
        worker: str,
        now: float,
        horizon: float,
        done: Optional[Job] = None,
        wanted: Callable[[], bool] = lambda: True,
        queues: Optional[Collection[str]] = None,
    ) -> Optional[Job]:
        if done is not None:
            self._require_successor(done)
        self._asked = (now, horizon)
        due = self._due(now, horizon, queues, done)
        if done is not None:
            self._put([done])
        if not due or not wanted():
            return None
        claimed = rules.claim(due[0], worker, now)
        self._put([claimed])
        return claimed

    def save(self, jobs: Sequence[Job], durable: bool = True) -> None:
        self._require_successors(jobs)
        self._require_free([job for job in jobs if self._shared.jobs[job.id].is_over], jobs)
        self._put(jobs)

    def remove(self, jobs: Sequence[Job], also: Sequence[Job] = ()) -> None:
        self._require_successors([*(replace(job, rev=job.rev + 1) for job in jobs), *also])
        self._put(also)
        for job in jobs:
            del self._shared.jobs[job.id]
            for run in range(1, job.runs + 1):
                self._shared.output.pop((job.seq, run), None)
                if os.path.exists(self.kept_output(job.id, run)):
                    os.unlink(self.kept_output(job.id, run))

    def next_due(self, queues: Optional[Collection[str]] = None) -> Optional[float]:
        closed = self._closed(None)
        return min(
            (
                clock.from_iso(job.run_at)
                for job in self._shared.jobs.values()
                if job.waits and job.run_at is not None
                if self._asked is None or not rules.is_due(job, *self._asked)
                if _serves(job, queues, closed) and not self._is_kept(job, None)
            ),
            default=None,
        )

    def claimable(
        self, now: float, horizon: float, queues: Optional[Collection[str]] = None
    ) -> bool:
        return bool(self._due(now, horizon, queues, None))

    def awaits_retry(self, queues: Optional[Collection[str]] = None) -> bool:
        paused = [name for name, rule in read_rules(self._shared.settings).items() if rule.paused]
        return any(
            job.state == JobState.FAILED and _serves(job, queues, paused)
            for job in self._shared.jobs.values()
            if not self._is_kept(job, None)
        )

    def listen(self) -> int:
        return self._pipe[0]

    def hear(self) -> int:
        with contextlib.suppress(BlockingIOError):
            os.read(self._pipe[0], 4096)
        mine = [member for member, owner in self._shared.owners.items() if owner is self]
        return sum(self._shared.news.pop(member, 0) for member in mine)

    def after_fork(self) -> None:
        raise NotImplementedError("a store in memory is not shared with a forked process")

    def enroll(self, member: Member) -> None:
        if member.role == "supervisor" and not self._pipe:
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
        self._shared.members[member.id] = member
        self._shared.owners[member.id] = self

    def note(self, member: Member) -> None:
        self._shared.members[member.id] = member

    def leave(self, member_id: str) -> None:
        del self._shared.members[member_id], self._shared.owners[member_id]

    def members(self, role: str) -> List[Member]:
        living = [m for m in self._shared.members.values() if not self._is_dead(m.id)]
        found = [member for member in living if member.role == role]
        return sorted(found, key=lambda member: (member.started_at, member.name, member.id))

    def lost(self, thorough: bool = False) -> List[Lost]:
        found = []
        for member in self._shared.members.values():
            rescuer = self._shared.rescuers.get(member.id)
            if self._is_dead(member.id) and (rescuer is None or rescuer.closed):
                self._shared.rescuers[member.id] = self
                found.append(Lost(member, self._claimed_by(member.id)))
        if thorough:
            for job in self._shared.jobs.values():
                if job.worker is not None and job.worker not in self._shared.members:
                    found.append(Lost(_unknown(job.worker), job))
        return found

    def bury(self, lost: Lost) -> None:
        member = lost.member
        spool = self.spool(member.id)
        if os.path.exists(spool):
            kept = "" if member.job is None else self.kept_output(member.job, member.run)
            if kept and os.path.getsize(spool) and not os.path.exists(kept):
                os.rename(spool, kept)
            else:
                os.unlink(spool)
        self._shared.members.pop(member.id, None)
        self._shared.owners.pop(member.id, None)
        self._shared.rescuers.pop(member.id, None)

    def ask_to_stop(self, member_id: str, force: bool) -> bool:
        if member_id not in self._shared.members or self._is_dead(member_id):
            return False
        self._shared.stops[member_id] = force or self._shared.stops.get(member_id, False)
        self._wake(member_id)
        return True

    def stop_asked(self) -> Optional[bool]:
        stops = self._shared.stops.items()
        asked = [force for member, force in stops if self._shared.owners.get(member) is self]
        return any(asked) if asked else None

    def settings(self) -> Dict[str, str]:
        return self._shared.settings

    def configure(self, changes: Dict[str, Optional[str]]) -> None:
        stored = {**self._shared.settings, **changes}
        self._shared.settings = {name: text for name, text in stored.items() if text is not None}
        if any(map(is_rule, changes)):
            self._tell_news(MAX_WORKERS)

    def spool(self, worker: str) -> str:
        return os.path.join(self._folder, f"{worker}.out")

    def kept_output(self, job_id: str, run: int) -> str:
        return os.path.join(self._folder, f"{job_id}.{run}.log")

    def trim_output(self, limit: int, spared: Callable[[], Mapping[str, int]]) -> None:
        paths = [os.path.join(self._folder, name) for name in os.listdir(self._folder)]
        logs = sorted((p for p in paths if p.endswith(".log")), key=os.path.getmtime)
        excess = sum(map(os.path.getsize, logs)) - limit
        first_spared = spared() if excess > 0 else {}
        for path in logs:
            job_id, run = os.path.basename(path)[: -len(".log")].rsplit(".", 1)
            if excess > 0 and not int(run) >= first_spared.get(job_id, int(run) + 1):
                excess -= os.path.getsize(path)
                os.unlink(path)
                job = self.get(job_id)
                if job is not None:
                    self._shared.output.pop((job.seq, int(run)), None)

    def share_output(self, job: Job, output: SharedOutput) -> None:
        if self.current(job) is not None:
            self._shared.output[job.seq, job.runs] = output

    def shared_output(self, job_id: str, run: int) -> Optional[SharedOutput]:
        job = self.get(job_id)
        return None if job is None else self._shared.output.get((job.seq, run))

    def age(self) -> float:
        return clock.now() - self._shared.made_at

    def take_turn(self, interval: float) -> bool:
        now = clock.now()
        if self._shared.turn_at is not None and 0 <= now - self._shared.turn_at < interval:
            return False
        self._shared.turn_at = now
        return True

    def sync(self) -> None:
        pass

    def tend(self) -> None:
        pass

    def rewrite_due(self) -> bool:
        return False

    def rewrite(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True
        for end in self._pipe:
            os.close(end)
        self._pipe = ()

    def _oldest_first(self) -> List[Job]:
        return sorted(self._shared.jobs.values(), key=lambda job: job.seq)

    def _of_queue(self, queue: str) -> List[Job]:
        return [job for job in self._shared.jobs.values() if job.queue == queue]

    def _due(
        self,
        now: float,
        horizon: float,
        queues: Optional[Collection[str]],
        done: Optional[Job],
    ) -> List[Job]:
        """What can be claimed once `done` is saved, the next first; never `done` itself."""
        closed = self._closed(done)
        due = [
            job
            for job in self._shared.jobs.values()
            if job.waits and rules.is_due(job, now, horizon) and _serves(job, queues, closed)
            if not self._is_kept(job, done)
        ]
        return sorted(due, key=lambda job: (-job.priority, job.seq))

    def _closed(self, done: Optional[Job]) -> Collection[str]:
        running = self.running()
        if done is not None:
            running[done.queue] -= 1
        return closed_queues(read_rules(self._shared.settings), running)

    def _is_kept(self, job: Job, done: Optional[Job]) -> bool:
        """Whether one of its parents keeps a job from being claimed."""
        by_seq = {other.seq: other for other in self._shared.jobs.values()}
        if done is not None:
            by_seq[done.seq] = done
        for parent in job.parents:
            found = by_seq.get(abs(parent))
            if found is None or found.state == JobState.COMPLETED:
                continue
            if parent > 0 or not found.is_over:
                return True
        return False

    def _require_free(self, jobs: Sequence[Job], saved: Sequence[Job]) -> None:
        after = {**self._shared.jobs, **{job.id: job for job in saved}}
        holders: Dict[str, str] = {}
        saved_ids = {job.id for job in jobs}
        # Those that were there first.
        for job in sorted(after.values(), key=lambda job: job.id in saved_ids):
            if job.unique is not None and not job.is_over:
                holder = holders.setdefault(job.unique, job.id)
                if holder != job.id and job.id in saved_ids:
                    raise KeyTakenError(job.unique, holder)

    def _put(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            before = self._shared.jobs.get(job.id)
            if job.state == JobState.COMPLETED and (before is None or before.state != job.state):
                self._shared.completions += 1
        self._shared.jobs.update((job.id, job) for job in jobs)
        queue_rules = read_rules(self._shared.settings)
        # One that ends makes room in its queue.
        self._tell_news(
            sum(job.waits or job.dependents + (job.queue in queue_rules) for job in jobs)
        )

    def _tell_news(self, news: int) -> None:
        for member in self.members("supervisor") if news else []:
            self._shared.news[member.id] = self._shared.news.get(member.id, 0) + news
            self._wake(member.id)

    def _wake(self, supervisor: str) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._shared.owners[supervisor]._pipe[1], b"x")

    def _require_successors(self, jobs: Sequence[Job]) -> None:
        ids: Set[str] = set()
        for job in jobs:
            if job.id in ids:
                raise ConflictError(job.id)
            ids.add(job.id)
            self._require_successor(job)

    def _require_successor(self, job: Job) -> None:
        current = self._shared.jobs.get(job.id)
        if current is not None and (current.seq, current.rev + 1) == (job.seq, job.rev):
            return
        claim_holds = (
            current is not None
            and current.state == JobState.PROCESSING
            and (current.seq, current.runs) == (job.seq, job.runs)
        )
        raise ConflictError(job.id) if claim_holds or job.runs == 0 else ClaimLostError(job.id)

    def _is_dead(self, member_id: str) -> bool:
        return self._shared.owners[member_id].closed

    def _claimed_by(self, worker: str) -> Optional[Job]:
        held = (job for job in self._shared.jobs.values() if job.worker == worker)
        return next(held, None)


class _MemoryWatch(Watch):
    """Some jobs, each compared with what it was."""

    def __init__(self, shared: _Shared, job_ids: Collection[str]) -> None:
        self._shared = shared
        self._seen: Dict[str, object] = dict.fromkeys(job_ids, ...)

    def look(self) -> Iterator[Tuple[str, Optional[Job]]]:
        now = {job_id: self._shared.jobs.get(job_id) for job_id in self._seen}
        changed = {job_id: job for job_id, job in now.items() if job is not self._seen[job_id]}
        self._seen.update(now)
        return iter(changed.items())

    def close(self) -> None:
        pass


def _serves(job: Job, queues: Optional[Collection[str]], closed: Collection[str]) -> bool:
    return job.queue not in closed and (queues is None or job.queue in queues)


def _counts(jobs: Collection[Job]) -> Counts:
    states = {state: sum(job.state == state for job in jobs) for state in JobState.ALL}
    delayed = sum(job.state == JobState.PENDING and job.run_at is not None for job in jobs)
    return Counts(delayed=delayed, **states)


def _unknown(worker: str) -> Member:
    return Member(worker, "worker", worker, 0, "", clock.to_iso(0), "")
