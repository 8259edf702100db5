"""A store in memory: the contract in its plainest form, to compare others with.

Nothing is fast here and nothing is clever, so that it is right at a glance; what can be found out
by a look at all jobs is in `queuectl.store.plain`. Several handles may share what they keep, as
several processes share a store; all of them live in one process, so a member is dead once its
handle is closed.
"""

from __future__ import annotations

import contextlib
import os
from typing import (
    Callable,
    ContextManager,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from queuectl import clock
from queuectl.job import Job
from queuectl.store.base import Lost, Member, SharedOutput
from queuectl.store.plain import PlainStore


class _Shared:
    """What all handles of one store see."""

    def __init__(self) -> None:
        self.jobs: Dict[str, Job] = {}
        self.last_seq = 0
        self.made_at = clock.now()
        self.turn_at: Optional[float] = None
        self.totals: Dict[str, int] = {}
        self.settings: Dict[str, str] = {}
        self.members: Dict[str, Member] = {}
        # Whose each member is, and whose each dead one that somebody rescues.
        self.owners: Dict[str, MemoryStore] = {}
        self.rescuers: Dict[str, MemoryStore] = {}
        self.stops: Dict[str, bool] = {}
        self.news: Dict[str, int] = {}
        # By the seq of the job and the run.
        self.output: Dict[Tuple[int, int], SharedOutput] = {}


class MemoryStore(PlainStore):
    """One handle of a store in memory.

    Args:
        folder: a folder for the output of runs; it must exist if there are any.
        other: a handle of the same store; nothing for a new one.
    """

    shares_output = True

    def __init__(self, folder: str, other: Optional[MemoryStore] = None) -> None:
        self.url = f"memory:{folder}"
        self.closed = False
        self._folder = folder
        self._shared: _Shared = _Shared() if other is None else other._shared
        self._pipe: Tuple[int, ...] = ()

    def commit(self) -> ContextManager[None]:
        # There is one thread, and what is refused is refused before anything is put.
        return contextlib.nullcontext()

    def put(self, jobs: Sequence[Job], enqueued: int, totals: Mapping[str, int]) -> None:
        self._shared.jobs.update((job.id, job) for job in jobs)
        self._shared.last_seq += enqueued
        for name, number in totals.items():
            self._shared.totals[name] = self._shared.totals.get(name, 0) + number

    def drop(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            del self._shared.jobs[job.id]
            for run in range(1, job.runs + 1):
                self._shared.output.pop((job.seq, run), None)

    def put_settings(self, settings: Dict[str, str]) -> None:
        self._shared.settings = settings

    def get(self, job_id: str) -> Optional[Job]:
        return self._shared.jobs.get(job_id)

    def select(
        self, states: Sequence[str], limit: Optional[int] = None, before: Optional[int] = None
    ) -> Iterator[Job]:
        found = [
            job
            for job in self._shared.jobs.values()
            if job.state in states and (before is None or job.seq < before)
        ]
        return iter(sorted(found, key=lambda job: -job.seq)[:limit])

    def enqueued(self) -> int:
        return self._shared.last_seq

    def totals(self) -> Dict[str, int]:
        return dict(self._shared.totals)

    def tell_news(self, jobs: int) -> None:
        for member in self.members("supervisor") if jobs else []:
            self._shared.news[member.id] = self._shared.news.get(member.id, 0) + jobs
            self._wake(member.id)

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

    def spool(self, worker: str) -> str:
        return os.path.join(self._folder, f"{worker}.out")

    def kept_output(self, job_id: str, run: int) -> str:
        return os.path.join(self._folder, f"{job_id}.{run}.log")

    def drop_output(self, job_ids: Iterable[str]) -> None:
        dropped = set(job_ids)
        # A store of which nothing is run needs no folder.
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                if name.endswith(".log") and name.rsplit(".", 2)[0] in dropped:
                    os.unlink(os.path.join(self._folder, name))

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

    def tend(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        for end in self._pipe:
            os.close(end)
        self._pipe = ()

    def _wake(self, supervisor: str) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._shared.owners[supervisor]._pipe[1], b"x")

    def _is_dead(self, member_id: str) -> bool:
        return self._shared.owners[member_id].closed

    def _claimed_by(self, worker: str) -> Optional[Job]:
        held = (job for job in self._shared.jobs.values() if job.worker == worker)
        return next(held, None)


def _unknown(worker: str) -> Member:
    return Member(worker, "worker", worker, 0, "", clock.to_iso(0), "")
