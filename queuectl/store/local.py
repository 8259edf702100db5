"""The members and the output of a store whose workers all run on one machine.

They are files in a folder of that machine, whatever the jobs are kept in. The kernel tells who is
dead: a member holds a lock for as long as it lives. So such a store needs no heartbeats and no
clock, and a dead worker is found at once.
"""

from __future__ import annotations

import abc
import os
from typing import Callable, Iterable, Iterator, List, Mapping, Optional

from queuectl import clock
from queuectl.job import Job, JobState
from queuectl.store.base import Lost, Member, Store
from queuectl.store.disk import failure
from queuectl.store.folder import StoreFolder
from queuectl.store.kept import keep_spool, trim
from queuectl.store.lock import StoreLock
from queuectl.store.members import Members


class LocalStore(Store):
    """What stores of one machine have in common; subclasses keep the jobs and the settings.

    Args:
        path: the folder, absolute. Nothing is done to it here.

    Attributes:
        folder: the paths in it, and what makes it and checks that it is the caller's alone.
        lock: guards who joins and who is dead; not reentrant.
    """

    def __init__(self, path: str) -> None:
        self.folder = StoreFolder(path)
        self.lock = StoreLock(self.folder.lock)
        self._members = Members(self.folder.workers)

    @abc.abstractmethod
    def require_present(self) -> None:
        """Raise StoreGoneError if the store was removed, or another made in its place."""

    def tell_news(self, jobs: int) -> None:
        """Wake every supervisor, for so many jobs that may have become claimable, if any."""
        if jobs:
            self._members.tell_news(jobs)

    def drop_output(self, job_ids: Iterable[str]) -> None:
        """Remove all output that is kept of these jobs; raises StoreError."""
        self.folder.drop_logs(job_ids)

    def claimed_by(self, worker: str) -> Optional[Job]:
        """Return the job that a worker holds, or nothing."""
        running = self.select([JobState.PROCESSING])
        return next((job for job in running if job.worker == worker), None)

    def home(self) -> Optional[str]:
        self.folder.check_trust()
        return self.folder.path

    def tend(self) -> None:
        self.require_present()

    def close(self) -> None:
        self.lock.close()
        self._members.forget()

    def listen(self) -> int:
        return self._members.listen()

    def hear(self) -> int:
        return self._members.hear()

    def after_fork(self) -> None:
        self._members.forget()
        self.lock.close()

    def enroll(self, member: Member) -> None:
        with self.lock:
            # Nobody must join a store that was made anew: it would not know what to make of the
            # member.
            self.require_present()
            try:
                self._members.join(member)
            except FileNotFoundError:
                self.require_present()
                raise
            except OSError as error:
                raise failure("join", self.folder.workers, error) from error

    def note(self, member: Member) -> None:
        try:
            self._members.note(member)
        except OSError as error:
            raise failure("write to", self.folder.workers, error) from error

    def leave(self, member_id: str) -> None:
        with self.lock:
            self._members.leave(member_id)

    def members(self, role: str) -> List[Member]:
        return [member for member in self._members.living() if member.role == role]

    def lost(self, thorough: bool = False) -> List[Lost]:
        found: List[Lost] = []
        if thorough or self._members.has_dead():
            with self.lock:
                dead = list(self._members.take_dead())
            try:
                for member_id in dead:
                    member = self._members.read(member_id) or _unknown(member_id)
                    found.append(Lost(member, self.claimed_by(member_id)))
            except BaseException:
                # Whoever looks next, we or another supervisor, must find them.
                self._members.release_dead(dead)
                raise
        if thorough:
            found.extend(self._without_trace())
        return found

    def bury(self, lost: Lost) -> None:
        member = lost.member
        if member.job is not None:
            kept = self.kept_output(member.job, member.run)
            keep_spool(self.folder, self.spool(member.id), kept)
        with self.lock:
            self._members.drop_dead(member.id)

    def ask_to_stop(self, member_id: str, force: bool) -> bool:
        return self._members.ask_to_stop(member_id, force)

    def stop_asked(self) -> Optional[bool]:
        return self._members.stop_asked

    def spool(self, worker: str) -> str:
        return self._members.path(worker, "out")

    def kept_output(self, job_id: str, run: int) -> str:
        return self.folder.log(job_id, run)

    def trim_output(self, limit: int, spared: Callable[[], Mapping[str, int]]) -> None:
        for _ in trim(self.folder, limit, spared):
            pass

    def take_turn(self, interval: float) -> bool:
        path = self.folder.turn
        try:
            # One in the future is that of a clock that has stepped back; but ours is cut to the
            # millisecond.
            if -0.001 < clock.now() - os.stat(path).st_mtime < interval:
                return False
        except FileNotFoundError:
            pass
        except OSError as error:
            raise failure("open", path, error) from error
        self.require_present()
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
            os.utime(path)
        except OSError as error:
            raise failure("write to", path, error) from error
        return True

    def _without_trace(self) -> Iterator[Lost]:
        if self.counts().processing == 0:
            # As mostly when work begins: then the jobs need not be looked through for it.
            return
        # A worker enrols before it claims, and leaves after it has finished. So one of a claim that
        # was there before we looked for the worker in vain, and is still there after, left no
        # trace.
        gone = [
            job.worker
            for job in self.select([JobState.PROCESSING])
            if job.worker is not None and not self._members.has_trace(job.worker)
        ]
        if gone:
            for job in self.select([JobState.PROCESSING]):
                if job.worker in gone:
                    yield Lost(_unknown(job.worker), job)


def _unknown(worker: str) -> Member:
    return Member(worker, "worker", worker, 0, "", clock.to_iso(0), "")
