"""Who works on a file store: a file, a lock and, for a supervisor, a pipe for each, in `workers/`.

    ID.json   what the member is and is running; written in place, always the same length
    ID.lock   locked by the member for as long as it lives, so that the kernel tells when it died
    ID.out    the output of its current run
    ID.wake   a named pipe that a supervisor reads: `n` for each job that may be claimed, `s` or `f`
              to stop

Members join, and the dead are removed, only under the store's lock, and a member takes its own lock
before its file appears: so a file without a held lock is that of a dead member, never of one that
is slow.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from typing import Dict, Iterator, List, Optional, Sequence

from queuectl.errors import StoreError
from queuectl.store.base import Member
from queuectl.store.compact import encode
from queuectl.store.disk import failure, open_file
from queuectl.store.lock import is_held, take_liveness

# Of a worker, who is noted at each job, and of a supervisor, who may serve many queues.
_SIZE = 1024
_SUPERVISOR_SIZE = 1 << 16
_NEWS, _STOP, _FORCE = b"n", b"s", b"f"


class Members:
    """The members of one store, and those of this process among them.

    Args:
        folder: the path of `workers/`.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: Dict[str, int] = {}
        self._locks: Dict[str, int] = {}
        # The locks of dead members, whom nobody else can take while we hold them.
        self._dead: Dict[str, int] = {}
        self._pipe = -1
        self.stop_asked: Optional[bool] = None

    def path(self, member_id: str, kind: str) -> str:
        """The path of one of a member's files."""
        return os.path.join(self._folder, f"{member_id}.{kind}")

    def join(self, member: Member) -> None:
        """Add a member of this process. Only under the store's lock."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        lock = take_liveness(self.path(member.id, "lock"))
        while lock is None:
            # Somebody who looks whether it is held is holding it just now.
            time.sleep(0.001)
            lock = take_liveness(self.path(member.id, "lock"))
        self._locks[member.id] = lock
        try:
            if member.role == "supervisor":
                self._open_pipe(member.id)
            path = self.path(member.id, "json")
            self._files[member.id] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.note(member)
        except OSError:
            self.leave(member.id)
            raise

    def note(self, member: Member) -> None:
        """Write down what a member of this process is running."""
        text = encode(member._asdict())
        size = _SUPERVISOR_SIZE if member.role == "supervisor" else _SIZE
        os.pwrite(self._files[member.id], text.ljust(size - 1).encode("ascii") + b"\n", 0)

    def leave(self, member_id: str) -> None:
        """Take a member of this process out. Only under the store's lock."""
        self.remove(member_id)
        for held in (self._files, self._locks):
            if member_id in held:
                os.close(held.pop(member_id))

    def forget(self) -> None:
        """Close what was inherited over a fork; the locks stay the parent's."""
        for held in (self._files, self._locks, self._dead):
            for fd in held.values():
                os.close(fd)
            held.clear()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def living(self) -> List[Member]:
        """All members that are alive, oldest first."""
        alive = [member for member in self.all() if self._is_alive(member.id)]
        return sorted(alive, key=lambda member: (member.started_at, member.name, member.id))

    def all(self) -> Iterator[Member]:
        """All members that have a file, dead or alive."""
        for name in self._names(".json"):
            member = self.read(name[: -len(".json")])
            if member is not None:
                yield member

    def read(self, member_id: str) -> Optional[Member]:
        """What a member wrote down last.

        Nothing if it is gone, or died before it wrote anything.
        """
        for _ in range(100):
            try:
                path = self.path(member_id, "json")
                with open(open_file(path, os.O_RDONLY), "rb") as file:
                    return Member(**json.loads(file.read(_SUPERVISOR_SIZE)))
            except FileNotFoundError:
                return None
            except OSError as error:
                raise failure("read", self.path(member_id, "json"), error) from error
            except (ValueError, TypeError):
                # Caught in the middle of being written, or never written.
                time.sleep(0.001)
        return None

    def take_dead(self) -> Iterator[str]:
        """Yield the ids of dead members, each locked so that nobody else takes it.

        Only under the store's lock.
        """
        for name in self._names(".lock"):
            member_id = name[: -len(".lock")]
            if member_id not in self._locks and member_id not in self._dead:
                lock = take_liveness(self.path(member_id, "lock"))
                if lock is not None:
                    self._dead[member_id] = lock
                    yield member_id

    def release_dead(self, member_ids: Sequence[str]) -> None:
        """Let others take dead members that `take_dead` gave."""
        for member_id in member_ids:
            os.close(self._dead.pop(member_id))

    def drop_dead(self, member_id: str) -> None:
        """Remove the files of a dead member that `take_dead` gave. Only under the store's lock."""
        self.remove(member_id)
        if member_id in self._dead:
            os.close(self._dead.pop(member_id))

    def has_trace(self, member_id: str) -> bool:
        """Tell whether there is anything left of a member, dead or alive."""
        return os.path.exists(self.path(member_id, "lock"))

    def has_dead(self) -> bool:
        """Tell, without the store's lock, whether `take_dead` may find one."""
        ids = [name[: -len(".lock")] for name in self._names(".lock")]
        return any(not self._is_alive(each) for each in ids if each not in self._dead)

    def remove(self, member_id: str) -> None:
        """Remove a member's files.

        The lock last, so that a crash in between leaves what `take_dead` finds.
        """
        for kind in ("json", "wake", "out", "lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(member_id, kind))

    def tell_news(self, jobs: int) -> None:
        """Tell every supervisor that so many jobs may have become claimable."""
        # The commit stands, whether it can be told or not: who is not told looks for himself.
        with contextlib.suppress(StoreError):
            for name in self._names(".wake"):
                with contextlib.suppress(StoreError):
                    self._send(name[: -len(".wake")], _NEWS * min(jobs, 1024))

    def ask_to_stop(self, supervisor: str, force: bool) -> bool:
        """Ask a supervisor to stop; tell whether it could be asked."""
        return self._send(supervisor, _FORCE if force else _STOP)

    def listen(self) -> int:
        """The descriptor of this process's pipe."""
        return self._pipe

    def hear(self) -> int:
        """Read what was said in this process's pipe; return how many jobs came."""
        try:
            said = os.read(self._pipe, 4096)
        except BlockingIOError:
            return 0
        if _FORCE in said:
            self.stop_asked = True
        elif _STOP in said:
            self.stop_asked = bool(self.stop_asked)
        return said.count(_NEWS)

    def _open_pipe(self, member_id: str) -> None:
        path = self.path(member_id, "wake")
        os.mkfifo(path, 0o600)
        # Opened for writing too, or it would count as closed whenever nobody happens to write.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _send(self, supervisor: str, said: bytes) -> bool:
        try:
            fd = os.open(self.path(supervisor, "wake"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                # Nobody reads it: the supervisor is dead.
                return False
            raise StoreError(
                f"cannot reach the workers: {self._folder}: {error.strerror}"
            ) from error
        try:
            os.write(fd, said)
        except (BlockingIOError, BrokenPipeError):
            # It is full: whoever reads it finds enough to do, or hangs.
            return said == _NEWS * len(said)
        finally:
            os.close(fd)
        return True

    def _is_alive(self, member_id: str) -> bool:
        if member_id in self._dead:
            return False
        return member_id in self._locks or is_held(self.path(member_id, "lock"))

    def _names(self, ending: str) -> List[str]:
        try:
            return [name for name in os.listdir(self._folder) if name.endswith(ending)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise failure("open", self._folder, error) from error
