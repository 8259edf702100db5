"""What the tests of the store share: children that do one thing, and the store's folder."""

from __future__ import annotations

import os
import select
import signal
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import pytest

from queuectl import job as rules
from queuectl import machine
from queuectl.errors import DamagedError
from queuectl.job import Job, JobState
from queuectl.store.base import Counts
from queuectl.store.doctor import examine
from queuectl.store.file import FileStore
from queuectl.store.finding import DAMAGE, Finding
from queuectl.store.folder import StoreFolder
from queuectl.store.journal import Journal
from queuectl.store.lock import StoreLock
from queuectl.store.repair import Repaired, repair
from queuectl.testing.common import HORIZON, NOW, add, claim_one, everything, new_job

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root may do this")
NOBODY = 65534

# A disk in memory, if there is one: only the tests about fsync are about waiting for the disk.
_FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Child:
    """A forked process that does one thing. Whoever waits for it fails if it failed."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._failure, write = os.pipe()
        self._status = -1
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                act()
                code = 0
            except BaseException:  # noqa: BLE001  # Nothing may get out into a second pytest.
                os.write(write, traceback.format_exc()[-4000:].encode())
            finally:
                os._exit(code)
        os.close(write)

    def finish(self, code: int = 0, timeout: float = 30.0) -> None:
        """Wait for its end; it must have ended by itself, with this code."""
        ended, said = self.end(timeout)
        assert ended == code, said

    def end(self, timeout: float = 30.0) -> Tuple[int, str]:
        """Wait for its end.

        Return its exit code, negative if it was a signal, and its traceback if it failed.
        """
        try:
            wait_for(self.has_ended, timeout)
        except AssertionError:
            self.kill()
            raise
        # Its end says that it is over, not that of the pipe: what it forked has that too.
        said = b""
        if select.select([self._failure], [], [], 0)[0]:
            said = os.read(self._failure, 65536)
        os.close(self._failure)
        status = self._status
        ended = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        return ended, said.decode()

    def has_ended(self) -> bool:
        """Whether it is over."""
        if self._status < 0:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else -1
        return self._status >= 0

    def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._failure)


def in_child(act: Callable[[], object], code: int = 0) -> None:
    """Do it in a process of its own, and wait for that."""
    Child(act).finish(code)


def wait_for(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Return what the condition returns once that is true."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=_FAST) as folder:
        yield Path(folder)


class Disk:
    """A file store's folder, and what is in it.

    Args:
        folder: where it is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.jobs = folder / "jobs.jsonl"
        self.boot = folder / "jobs.boot"
        self.unsynced = folder / "jobs.unsynced"
        self.notices: List[str] = []
        self._opened: List[FileStore] = []

    def open(self, create: bool = True) -> FileStore:
        """Open the store; it is closed when the test ends."""
        self._opened.append(FileStore(str(self.path), create, self.notices.append))
        return self._opened[-1]

    def close(self) -> None:
        """Close everything that was opened."""
        for store in self._opened:
            store.close()
        self._opened.clear()

    def put(self, data: bytes) -> None:
        """Lay the folder anew with this job file, as written since the machine was booted."""
        self.close()
        self.notices.clear()
        self.path.mkdir(mode=0o700, exist_ok=True)
        for file in self.path.iterdir():
            file.unlink()
        self.jobs.write_bytes(data)
        self.boot.write_text(f"{machine.boot_id()} {0:016d}\n")

    def reboot(self) -> None:
        """Make the machine look as if it had been booted since the store was written last."""
        self.close()
        synced = self.boot.read_text().split()[1]
        self.boot.write_text(f"00000000-0000-0000-0000-000000000000 {synced}\n")

    @property
    def torn(self) -> List[bytes]:
        """What was cut off and kept."""
        return [file.read_bytes() for file in sorted(self.path.glob("torn-*"))]

    def examine(self) -> List[Finding]:
        """What doctor finds."""
        folder = StoreFolder(str(self.path))
        lock = StoreLock(folder.lock)
        try:
            return examine(folder, lock)
        finally:
            lock.close()

    def damage(self) -> List[Finding]:
        """What doctor calls damaged."""
        return [finding for finding in self.examine() if finding.level == DAMAGE]

    def repair(self) -> Repaired:
        """What doctor --repair does."""
        self.close()
        folder = StoreFolder(str(self.path))
        lock = StoreLock(folder.lock)
        try:
            return repair(folder, lock)
        finally:
            lock.close()

    def verify(self) -> None:
        """Every byte of the job file is as it was written, and the counts are those of the jobs."""
        journal = Journal(str(self.jobs))
        good = journal.last_good()
        assert good is not None
        assert good.end == self.jobs.stat().st_size
        journal.close()
        assert self.damage() == []
        store = FileStore(str(self.path), create=False)
        jobs = everything(store)
        counts = store.counts()
        store.close()
        states: Dict[str, int] = dict.fromkeys(JobState.ALL, 0)
        for job in jobs:
            states[job.state] += 1
        assert counts._replace(delayed=0)._asdict() == {**states, "delayed": 0}


@contextmanager
def new_disk() -> Iterator[Disk]:
    """The folder of a store that does not exist yet."""
    with fast_folder() as folder:
        disk = Disk(folder / "queuectl_data")
        yield disk
        disk.close()


def shown(disk: Disk) -> List[Job]:
    """What a process that has just started shows."""
    store = FileStore(str(disk.path), create=False)
    try:
        return everything(store)
    finally:
        store.close()


class Sample(NamedTuple):
    """A job file, and what it shows.

    Attributes:
        data: its bytes.
        ends: the offset behind each commit.
        jobs: the jobs after each commit, newest first.
        counts: the counts after each commit.
    """

    data: bytes
    ends: List[int]
    jobs: List[List[Job]]
    counts: List[Counts]

    def begin(self, at: int) -> int:
        """Where the commit begins that holds this byte; the header belongs to the first."""
        return max([0] + [end for end in self.ends if end <= at])

    @property
    def last(self) -> int:
        """Where the last commit begins."""
        return self.ends[-2]


def make_sample() -> Sample:
    """Write one in which each kind of commit is found."""
    with new_disk() as disk:
        store = disk.open()
        ends, jobs, counts = [], [], []

        def look() -> None:
            ends.append(disk.jobs.stat().st_size)
            jobs.append(everything(store))
            counts.append(store.counts())

        look()
        add(store, "a")
        look()
        add(store, "b", "c")
        look()
        running = claim_one(store)
        look()
        second = claim_one(store, done=rules.complete(running, NOW))
        look()
        store.save([rules.fail(second, NOW, "Exit code 1: \udcff", 2, 1)])
        look()
        add(store, "d", "e")
        look()
        return Sample(disk.jobs.read_bytes(), ends, jobs, counts)


def refused_by_all(disk: Disk, at: int = 0, until: int = 1 << 40) -> None:
    """Whoever reads the whole file refuses it, names it and the place, and changes nothing."""
    before = disk.jobs.read_bytes()
    looks = [
        lambda store: everything(store),
        lambda store: store.get("a"),
        lambda store: store.find("a", 1),
        lambda store: store.claimable(NOW, HORIZON),
        lambda store: store.claim("w", NOW, HORIZON),
        lambda store: store.add([new_job("x")], ["x"]),
        lambda store: store.rewrite(),
    ]
    for look in looks:
        with pytest.raises(DamagedError) as caught:
            look(disk.open())
        assert caught.value.path == str(disk.jobs)
        assert at <= caught.value.offset <= until
        assert str(disk.jobs) in str(caught.value)
        assert f"byte {caught.value.offset}" in str(caught.value)
    assert disk.jobs.read_bytes() == before
    assert disk.torn == []


def flip(disk: Disk, at: int, bit: int) -> None:
    """Flip one bit of the job file."""
    with disk.jobs.open("r+b", buffering=0) as file:
        (byte,) = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), at)


def zero(disk: Disk, start: int, stop: int) -> None:
    """Make a hole in the job file."""
    with disk.jobs.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"\0" * (stop - start), start)


def test_a_child_that_fails_fails_the_test() -> None:
    in_child(lambda: None)
    in_child(lambda: os._exit(7), code=7)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        in_child(lambda: 1 // 0)
    with pytest.raises(AssertionError, match="in vain"):
        Child(lambda: time.sleep(60)).finish(timeout=0.01)
