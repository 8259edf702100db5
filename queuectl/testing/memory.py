"""A store in memory: the contract in its plainest form, to compare others with.

Nothing is fast here and nothing is clever, so that it is right at a glance. Several handles may
share what they keep, as several processes share a store; all of them live in one process, so a
member is dead once its handle is closed.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import ClaimLostError, ConflictError, DuplicateIdError
from queuectl.job import Job, JobState
from queuectl.store.base import Counts, Lost, Member, Store


class _Shared:
    """What all handles of one store see."""

    def __init__(self) -> None:
        self.jobs: Dict[str, Job] = {}
        self.last_seq = 0
        self.settings: Dict[str, str] = {}
        self.members: Dict[str, Member] = {}
        # Whose each member is, and whose each dead one that somebody rescues.
        self.owners: Dict[str, MemoryStore] = {}
        self.rescuers: Dict[str, MemoryStore] = {}
        self.stops: Dict[str, bool] = {}
        self.news: Dict[str, int] = {}


class MemoryStore(Store):
    """One handle of a store in memory.

    Args:
        folder: an existing folder for the output of runs.
        other: a handle of the same store; nothing for a new one.
    """

    def __init__(self, folder: str, other: Optional[MemoryStore] = None) -> None:
        self.url = f"memory:{folder}"
        self.closed = False
        self._folder = folder
        self._shared: _Shared = _Shared() if other is None else other._shared
        self._asked: Optional[Tuple[float, float]] = None
        self._pipe: Tuple[int, ...] = ()

    def add(self, jobs: Sequence[Job], given_ids: Sequence[str] = ()) -> List[Job]:
        taken = set(self._shared.jobs)
        for job in jobs:
            if job.id in taken:
                raise DuplicateIdError(job.id)
            taken.add(job.id)
        added = []
        for job in jobs:
            self._shared.last_seq += 1
            added.append(replace(job, seq=self._shared.last_seq))
        self._put(added)
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

    def counts(self) -> Counts:
        jobs = self._shared.jobs.values()
        states = {state: sum(job.state == state for job in jobs) for state in JobState.ALL}
        delayed = sum(job.state == JobState.PENDING and job.run_at is not None for job in jobs)
        return Counts(delayed=delayed, **states)

    def claim(
        self,
        worker: str,
        now: float,
        horizon: float,
        done: Optional[Job] = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Optional[Job]:
        if done is not None:
            self._require_successor(done)
        self._asked = (now, horizon)
        due = [job for job in self._oldest_first() if _is_due(job, now, horizon)]
        if done is not None:
            self._put([done])
        if not due or not wanted():
            return None
        claimed = rules.claim(due[0], worker, now)
        self._put([claimed])
        return claimed

    def save(self, jobs: Sequence[Job], durable: bool = True) -> None:
        self._require_successors(jobs)
        self._put(jobs)

    def remove(self, jobs: Sequence[Job]) -> None:
        self._require_successors([replace(job, rev=job.rev + 1) for job in jobs])
        for job in jobs:
            del self._shared.jobs[job.id]
            for run in range(1, job.runs + 1):
                if os.path.exists(self.kept_output(job.id, run)):
                    os.unlink(self.kept_output(job.id, run))

    def next_due(self) -> Optional[float]:
        return min(
            (
                clock.from_iso(job.run_at)
                for job in self._shared.jobs.values()
                if job.waits and job.run_at is not None
                if self._asked is None or not _is_due(job, *self._asked)
            ),
            default=None,
        )

    def claimable(self, now: float, horizon: float) -> bool:
        return any(_is_due(job, now, horizon) for job in self._shared.jobs.values())

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

    def _put(self, jobs: Sequence[Job]) -> None:
        self._shared.jobs.update((job.id, job) for job in jobs)
        news = sum(job.waits for job in jobs)
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


def _is_due(job: Job, now: float, horizon: float) -> bool:
    if not job.waits:
        return False
    if job.run_at is None:
        return True
    due = clock.from_iso(job.run_at)
    return due <= now or (job.state == JobState.FAILED and due > now + horizon)


def _unknown(worker: str) -> Member:
    return Member(worker, "worker", worker, 0, "", clock.to_iso(0), "")
