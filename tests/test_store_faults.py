"""A disk that fails: no room, no confirmation, no permission.

What the system calls do is spoilt, in a child of its own.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import OutcomeUnknownError, StoreError, StoreFullError
from queuectl.store.base import Member
from queuectl.store.file import FileStore
from queuectl.testing.common import (
    HORIZON,
    NOW,
    add,
    claim_one,
    current,
    everything,
    ids,
    new_job,
    run_and_complete,
)
from test_store_tools import Child, Disk, in_child, needs_root, shown


def spoil(
    name: str, error: int, times: int = 1 << 30, only: Callable[[Any], bool] = lambda fd: True
) -> None:
    """Make a system call fail in this process, so many times."""
    real = getattr(os, name)
    left = times

    def call(*args: Any, **options: Any) -> Any:
        nonlocal left
        if left > 0 and only(args[0]):
            left -= 1
            raise OSError(error, os.strerror(error))
        return real(*args, **options)

    setattr(os, name, call)


def is_folder(fd: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{fd}")


class TestFailedFsync:
    """The disk does not confirm what it was given; asking again would mean nothing."""

    @pytest.mark.parametrize("call", ["fdatasync", "fsync"])
    def test_the_outcome_is_unknown_and_the_next_writer_begins_a_new_file(
        self, disk: Disk, call: str
    ) -> None:
        (first,) = add(disk.open(), "a")
        inode = disk.jobs.stat().st_ino

        def act() -> None:
            store = FileStore(str(disk.path))
            # fsync is the folder's: fdatasync is the file's.
            spoil(call, errno.EIO, 1)
            with pytest.raises(OutcomeUnknownError, match=r"unknown.*: Input/output error$"):
                store.add([new_job("b")])

        in_child(act)
        assert disk.unsynced.exists()
        assert ids(shown(disk)) == ["b", "a"]
        assert disk.jobs.stat().st_ino == inode
        store = disk.open()
        add(store, "c")
        assert not disk.unsynced.exists()
        assert disk.jobs.stat().st_ino != inode
        assert ids(shown(disk)) == ["c", "b", "a"]
        assert store.get("a") == first
        disk.verify()

    def test_the_same_process_goes_on_with_the_new_file(self, disk: Disk) -> None:
        add(disk.open(), "a", "b")
        other = disk.open()
        assert other.claimable(NOW, 1)

        def act() -> None:
            store = FileStore(str(disk.path))
            spoil("fdatasync", errno.EIO, 1)
            running = claim_one(store)
            with pytest.raises(OutcomeUnknownError):
                store.tend()
            second = claim_one(store, done=rules.complete(running, NOW))
            store.tend()
            store.save([rules.complete(second, NOW)])

        in_child(act)
        assert not disk.unsynced.exists()
        assert [job.state for job in everything(other)] == ["completed", "completed"]
        add(other, "c")
        disk.verify()

    def test_one_that_succeeds_after_that_of_another_failed_means_nothing(self, disk: Disk) -> None:
        """Some kernels tell only the first who asks, though they dropped what others wrote too."""
        add(disk.open(), "a")

        def act() -> None:
            store, other = FileStore(str(disk.path)), FileStore(str(disk.path))
            real = os.fdatasync

            def come_second(fd: int) -> None:
                os.fdatasync = real
                spoil("fdatasync", errno.EIO, 1)
                with pytest.raises(OutcomeUnknownError):
                    add(other, "c")
                real(fd)

            os.fdatasync = come_second
            with pytest.raises(OutcomeUnknownError):
                add(store, "b")
            add(store, "d")

        in_child(act)
        assert not disk.unsynced.exists()
        assert ids(shown(disk)) == ["d", "c", "b", "a"]
        disk.verify()

    def test_the_next_boot_mends_it_too(self, disk: Disk) -> None:
        add(disk.open(), "a")
        disk.unsynced.touch()
        disk.reboot()
        add(disk.open(), "b")
        assert not disk.unsynced.exists()
        assert ids(shown(disk)) == ["b", "a"]
        disk.verify()

    def test_it_is_tried_until_a_disk_confirms(self, disk: Disk) -> None:
        add(disk.open(), "a")

        def act() -> None:
            store = FileStore(str(disk.path))
            spoil("fdatasync", errno.EIO, 3)
            with pytest.raises(OutcomeUnknownError):
                store.add([new_job("b")])
            for _ in range(2):
                with pytest.raises(StoreError, match=r"cannot replace .*: Input/output error"):
                    store.add([new_job("c")])
            store.add([new_job("d")])

        in_child(act)
        assert not disk.unsynced.exists()
        assert ids(shown(disk)) == ["d", "b", "a"]
        disk.verify()

    def test_what_the_kernel_dropped_is_cut(self, disk: Disk) -> None:
        """The kernel may forget what it could not write, as if power had been lost."""
        store = disk.open()
        add(store, "a")
        size = disk.jobs.stat().st_size

        def act() -> None:
            own = FileStore(str(disk.path))
            spoil("fdatasync", errno.EIO, 1)
            with pytest.raises(OutcomeUnknownError):
                add(own, "b")

        Child(act).finish()
        assert disk.unsynced.exists()
        disk.close()
        with disk.jobs.open("r+b") as file:
            file.seek(size)
            file.write(b"\0" * 30)
        add(disk.open(), "c")
        assert ids(shown(disk)) == ["c", "a"]
        assert len(disk.torn) == 1
        disk.verify()

    def test_every_acknowledgement_depends_on_it(self, disk: Disk) -> None:
        (job,) = add(disk.open(), "a")
        cancelled = rules.cancel(job, NOW)

        def act() -> None:
            acts = [
                lambda store: add(store, "b"),
                lambda store: store.save([cancelled]),
                lambda store: store.save([rules.retry(cancelled, NOW)]),
                lambda store: store.remove([store.get("a")]),
                lambda store: store.sync(),
            ]
            stores = [FileStore(str(disk.path)) for _ in acts]
            for store, each in zip(stores, acts):
                spoil("fdatasync", errno.EIO, 1, lambda fd: not is_folder(fd))
                with pytest.raises(OutcomeUnknownError):
                    each(store)
                disk.unsynced.unlink()
            store = FileStore(str(disk.path))
            spoil("fsync", errno.EIO, 1)
            with pytest.raises(StoreError, match="Input/output error"):
                store.configure({"max_retries": "5"})

        in_child(act)
        assert disk.open().settings() == {}

    def test_a_transition_of_a_worker_is_not_synced_until_it_is_tended(self, disk: Disk) -> None:
        add(disk.open(), "a", "b")

        def act() -> None:
            store = FileStore(str(disk.path))
            spoil("fdatasync", errno.EIO)
            running = claim_one(store)
            store.save([rules.release(running, NOW)], durable=False)
            with pytest.raises(OutcomeUnknownError):
                store.tend()

        in_child(act)

    def test_only_what_changed_is_synced(self, disk: Disk) -> None:
        store = disk.open()
        add(store, "a")
        store.tend()

        def act() -> None:
            calls = []
            real = os.fdatasync
            os.fdatasync = lambda fd: calls.append(fd) or real(fd)
            own = FileStore(str(disk.path))
            store.sync()
            assert len(calls) == 1
            own.add([new_job("b")])
            assert len(calls) == 2

        in_child(act)


class TestShortWrite:
    """The kernel may take less than it was given."""

    def test_it_goes_on(self, disk: Disk) -> None:
        def act() -> None:
            real = os.pwrite
            os.pwrite = lambda fd, data, at: real(fd, bytes(data)[:7], at)
            store = FileStore(str(disk.path))
            add(store, "a", "b")
            claim_one(store)
            store.rewrite()

        in_child(act)
        assert [job.state for job in shown(disk)] == ["pending", "processing"]
        disk.verify()

    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO])
    def test_one_that_then_fails_is_cut_back(self, disk: Disk, error: int) -> None:
        add(disk.open(), "a")
        before = disk.jobs.read_bytes()
        full = error != errno.EIO

        def act() -> None:
            real = os.pwrite
            written = 0

            def write(fd: int, data: bytes, at: int) -> int:
                nonlocal written
                if written:
                    raise OSError(error, os.strerror(error))
                written = real(fd, bytes(data)[:100], at)
                return written

            os.pwrite = write
            store = FileStore(str(disk.path))
            with pytest.raises(StoreError) as caught:
                store.add([new_job("b")])
            assert isinstance(caught.value, StoreFullError) == full
            assert os.strerror(error) in str(caught.value)
            os.pwrite = real
            store.add([new_job("c")])

        in_child(act)
        assert disk.jobs.read_bytes().startswith(before)
        assert ids(shown(disk)) == ["c", "a"]
        assert disk.torn == []
        disk.verify()

    def test_one_that_cannot_even_be_cut_back_is_a_torn_tail(self, disk: Disk) -> None:
        add(disk.open(), "a")

        def act() -> None:
            real = os.pwrite

            def write(fd: int, data: bytes, at: int) -> int:
                real(fd, bytes(data)[:100], at)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            os.pwrite = write
            spoil("ftruncate", errno.EIO)
            with pytest.raises(StoreError):
                FileStore(str(disk.path)).add([new_job("b")])

        in_child(act)
        assert ids(shown(disk)) == ["a"]
        add(disk.open(), "c")
        assert [len(tail) for tail in disk.torn] == [100]
        disk.verify()

    def test_a_limit_of_size(self, disk: Disk) -> None:
        """`ulimit -f`: the kernel takes what fits, and refuses the rest."""
        add(disk.open(), "a")
        before = disk.jobs.read_bytes()

        def act() -> None:
            limit = len(before) + 200
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            store = FileStore(str(disk.path))
            with pytest.raises(StoreFullError, match="File too large; nothing was changed"):
                add(store, "b", "c")
            assert disk.jobs.read_bytes() == before
            with pytest.raises(StoreFullError):
                claim_one(store)
            assert disk.jobs.read_bytes() == before
            assert store.counts().pending == 1
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            assert claim_one(store).id == "a"

        in_child(act)
        disk.verify()


@contextmanager
def small_disk(folder: Path, size: str = "256k") -> Iterator[Path]:
    """A disk with little room."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    done = subprocess.run(mount, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, but: int = 0) -> Path:
    """Leave no room on the disk, or so many pages."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        file.truncate(file.seek(0, os.SEEK_END) - 4096 * but)
    return ballast


@needs_root
class TestFullDisk:
    """A real disk without room."""

    @pytest.fixture
    def full(self, tmp_path: Path) -> Iterator[Disk]:
        with small_disk(tmp_path / "disk") as folder:
            disk = Disk(folder / "queuectl_data")
            yield disk
            disk.close()

    def test_nothing_changes_until_there_is_room(self, full: Disk) -> None:
        store = full.open()
        add(store, "a", "b")
        running = claim_one(store)
        ballast = fill(full.path.parent)
        before, jobs = full.jobs.read_bytes(), everything(store)
        big = new_job("big", "x" * 100_000)
        for act in (
            lambda: store.add([big]),
            lambda: full.open().add([big], ["big"]),
            lambda: store.save([rules.fail(running, NOW, "x" * 100_000, 2)]),
            lambda: claim_one(store, done=rules.fail(running, NOW, "x" * 100_000, 2)),
            lambda: store.configure({"shell": "/" + "x" * 5000}),
            lambda: store.rewrite(),
        ):
            with pytest.raises(StoreFullError, match="No space left on device"):
                act()
            assert full.jobs.read_bytes() == before
            assert everything(store) == shown(full) == jobs
        assert store.settings() == {}
        ballast.unlink()
        store.save([rules.complete(running, NOW)])
        assert store.rewrite()
        add(store, "c")
        assert ids(shown(full)) == ["c", "b", "a"]
        full.verify()

    def test_whoever_waits_for_an_end_that_could_not_be_saved_waits_on(self, full: Disk) -> None:
        store = full.open()
        add(store, "a")
        running = claim_one(store)
        store.add([new_job("b", after_any=("a",))], [], [rules.awaited(running, NOW, 1)])
        running = current(store, "a")
        ballast = fill(full.path.parent)
        too_much = replace(rules.complete(running, NOW), last_error="x" * 100_000)
        with pytest.raises(StoreFullError):
            claim_one(store, done=too_much)
        assert not store.claimable(NOW, HORIZON)
        ballast.unlink()
        assert claim_one(store, done=rules.complete(running, NOW)).id == "b"
        full.verify()

    def test_a_store_cannot_be_made_on_it(self, full: Disk) -> None:
        ballast = fill(full.path.parent)
        with pytest.raises(StoreFullError):
            full.open()
        assert not full.jobs.exists()
        ballast.unlink()
        assert full.open().counts().total == 0

    def test_a_torn_tail_is_not_lost_and_its_half_copies_do_not_add_up(self, full: Disk) -> None:
        add(full.open(), "a")
        tail = b'{"id":"' + b"x" * 20_000
        with full.jobs.open("ab") as file:
            file.write(tail)
        ballast = fill(full.path.parent, but=2)
        before = full.jobs.read_bytes()
        store = full.open()
        for _ in range(3):
            with pytest.raises(StoreFullError):
                add(store, "b")
            assert full.torn == []
            assert full.jobs.read_bytes() == before
        ballast.unlink()
        add(store, "b")
        assert full.torn == [tail]
        assert ids(shown(full)) == ["b", "a"]

    def test_a_worker_cannot_join_but_leaves_nothing_behind(self, full: Disk) -> None:
        store = full.open()
        add(store, "a")
        fill(full.path.parent)
        worker = Member("w1", "worker", "Worker-1", os.getpid(), "host", clock.to_iso(NOW), "s1")
        with pytest.raises(StoreFullError):
            store.enroll(worker)
        assert store.members("worker") == []
        assert os.listdir(full.path / "workers") == []
        assert full.open().lost(thorough=True) == []

    def test_a_disk_that_can_only_be_read(self, full: Disk) -> None:
        store = full.open()
        add(store, "a")
        jobs = everything(store)
        full.close()
        remount = ["mount", "-o", "remount,ro", str(full.path.parent)]
        subprocess.run(remount, check=True)
        store = full.open()
        assert everything(store) == jobs
        assert store.get("a") == jobs[0]
        assert store.counts().pending == 1
        for act in (
            lambda: add(store, "b"),
            lambda: store.save([rules.cancel(jobs[0], NOW)]),
            lambda: claim_one(store),
            lambda: store.configure({"max_retries": "5"}),
            lambda: store.rewrite(),
        ):
            with pytest.raises(StoreError, match="Read-only file system"):
                act()
        with pytest.raises(StoreError, match="Read-only file system"):
            FileStore(str(full.path.parent / "other"))


def test_a_store_that_is_rewritten_while_the_disk_fails_stays_as_it_is(disk: Disk) -> None:
    store = disk.open()
    add(store, "a", "b", "c")
    run_and_complete(store)
    assert store.rewrite()
    run_and_complete(store)
    jobs, data = everything(store), disk.jobs.read_bytes()
    (moved,) = [path.stat().st_size for path in disk.path.glob("history-*")]
    for call in ("fdatasync", "rename", "pwrite", "fsync"):

        def act(call: str = call) -> None:
            own = FileStore(str(disk.path))
            spoil(call, errno.EIO, 1)
            with pytest.raises(StoreError, match="Input/output error"):
                own.rewrite()

        Child(act).finish()
        assert everything(store) == shown(disk) == jobs
        if call != "fsync":
            assert disk.jobs.read_bytes() == data
            # What was written in vain must not take the room that the workers need.
            assert sorted(path.name for path in disk.path.glob("*.new")) == []
            assert [path.stat().st_size for path in disk.path.glob("history-*")] == [moved]
    assert store.rewrite()
    assert everything(store) == shown(disk) == jobs
    disk.verify()
