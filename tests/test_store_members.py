"""Members of a file store as real processes: who lives, who died, and what a fork shares."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import List

import pytest

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import StoreError, StoreLockedError
from queuectl.store.base import Lost, Member
from queuectl.store.file import FileStore
from queuectl.testing.common import HORIZON, NOW, add, claim_one, everything, ids
from queuectl.testing.members import is_readable
from test_store_tools import Child, Disk, in_child, wait_for


def member(name: str, role: str = "worker") -> Member:
    return Member(name, role, name, os.getpid(), "host", clock.to_iso(NOW), "s1")


def work_for_ever(disk: Disk, name: str) -> None:
    store = FileStore(str(disk.path))
    store.enroll(member(name))
    claim_one(store, worker=name)
    (disk.path.parent / name).touch()
    threading.Event().wait()


def lost_ids(lost: List[Lost]) -> List[str]:
    return sorted(each.member.id for each in lost)


class TestDeath:
    """A worker is dead when its process is, and not before."""

    def test_a_killed_worker_is_found_at_once(self, disk: Disk) -> None:
        store = disk.open()
        add(store, "a", "b")
        names = ("w1", "w2")
        children = [Child(lambda name=name: work_for_ever(disk, name)) for name in names]
        wait_for(lambda: all((disk.path.parent / name).exists() for name in names))
        assert store.lost() == store.lost(thorough=True) == []
        children[0].kill()
        started = time.monotonic()
        (lost,) = wait_for(store.lost)
        assert time.monotonic() - started < 1
        assert lost.member.id == "w1"
        assert lost.job is not None
        assert (lost.job.worker, lost.member.pid) == ("w1", children[0].pid)
        store.save([rules.rescue(lost.job, NOW, 1)])
        store.bury(lost)
        assert sorted(os.listdir(disk.path / "workers")) == ["w2.json", "w2.lock"]
        children[1].kill()
        assert lost_ids(wait_for(store.lost)) == ["w2"]

    def test_a_stopped_worker_is_alive(self, disk: Disk) -> None:
        store = disk.open()
        add(store, "a")
        child = Child(lambda: work_for_ever(disk, "w1"))
        wait_for((disk.path.parent / "w1").exists)
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        assert store.lost(thorough=True) == []
        assert ids(list(store.members("worker"))) == ["w1"]
        child.kill()

    def test_a_worker_that_is_slow_to_join_is_not_taken_for_dead(self, disk: Disk) -> None:
        """Wherever it is held up between its first file and its last."""
        store = disk.open()
        store.enroll(member("s1", "supervisor"))
        for name in ("open", "mkfifo", "pwrite"):
            slow = disk.path.parent / f"slow-{name}"

            def act(name: str = name, slow: object = slow) -> None:
                own = FileStore(str(disk.path))
                real = getattr(os, name)

                def wait(*args: object, **options: object) -> object:
                    done = real(*args, **options)
                    if "workers" in str(args[0]) or name == "pwrite":
                        setattr(os, name, real)
                        slow.touch()
                        wait_for(lambda: not slow.exists())
                    return done

                setattr(os, name, wait)
                own.enroll(member(f"w-{name}", "supervisor"))
                own.leave(f"w-{name}")

            child = Child(act)
            wait_for(slow.exists)

            def look() -> None:
                assert FileStore(str(disk.path)).lost(thorough=True) == []

            looking = Child(look)
            with pytest.raises(AssertionError, match="in vain"):
                wait_for(looking.has_ended, 0.1)
            slow.unlink()
            looking.finish()
            child.finish()
            assert store.lost(thorough=True) == []

    @pytest.mark.slow
    def test_the_living_are_never_taken_for_dead(self, disk: Disk) -> None:
        """While they come, work and go, and while two look thoroughly all the time."""
        add(disk.open(), *(f"job{number}" for number in range(300)))
        over = disk.path.parent / "over"

        def work(number: int) -> None:
            store = FileStore(str(disk.path))
            for turn in range(1 << 30):
                name = f"w{number}-{turn}"
                store.enroll(member(name))
                done = None
                for _ in range(3):
                    job = store.claim(name, NOW, HORIZON, done)
                    if job is None:
                        break
                    done = rules.release(job, NOW)
                else:
                    assert done is not None
                    store.save([done], durable=False)
                store.leave(name)
                if over.exists():
                    return

        def look() -> None:
            store = FileStore(str(disk.path))
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                assert store.lost(thorough=True) == []

        workers = [Child(lambda n=n: work(n)) for n in range(3)]
        lookers = [Child(look) for _ in range(2)]
        for looker in lookers:
            looker.finish()
        over.touch()
        for worker in workers:
            worker.finish()
        assert disk.open().lost(thorough=True) == []

    def test_each_dead_worker_is_one_rescuers(self, disk: Disk) -> None:
        """However many look for it at once."""
        store = disk.open()
        add(store, *(f"job{number}" for number in range(20)))
        log = disk.path.parent / "log"

        def die() -> None:
            own = FileStore(str(disk.path))
            for number in range(20):
                own.enroll(member(f"w{number}"))
                claim_one(own, worker=f"w{number}")

        def rescue() -> None:
            own = FileStore(str(disk.path))
            while own.counts().processing:
                for lost in own.lost():
                    with log.open("a") as file:
                        file.write(f"{lost.member.id}\n")
                    if lost.job is not None:
                        own.save([rules.rescue(lost.job, NOW, 0)])
                    own.bury(lost)

        in_child(die)
        children = [Child(rescue) for _ in range(3)]
        for child in children:
            child.finish()
        names = log.read_text().split()
        assert sorted(names) == sorted(f"w{number}" for number in range(20))
        assert [job.last_error for job in everything(store)] == ["Worker died"] * 20
        assert os.listdir(disk.path / "workers") == []

    def test_a_rescuer_that_fails_leaves_it_to_the_next(
        self, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die() -> None:
            FileStore(str(disk.path)).enroll(member("w1"))

        def fail(store: FileStore, worker: str) -> None:
            raise StoreLockedError("store locked")

        in_child(die)
        store = disk.open()
        with monkeypatch.context() as patch:
            patch.setattr(FileStore, "claimed_by", fail)
            with pytest.raises(StoreLockedError):
                store.lost()
        assert lost_ids(disk.open().lost()) == ["w1"]

    def test_one_that_died_before_it_wrote_anything_is_found(self, disk: Disk) -> None:
        store = disk.open()
        (disk.path / "workers").mkdir(mode=0o700)
        for left in ("lock", "wake", "json"):
            (disk.path / "workers/w1.lock").touch()
            (disk.path / f"workers/w1.{left}").touch()
            (lost,) = store.lost()
            assert (lost.member.id, lost.job) == ("w1", None)
            store.bury(lost)
            assert os.listdir(disk.path / "workers") == []


class TestFork:
    """A supervisor forks its workers after it has opened the store."""

    def test_a_child_does_not_keep_its_parent_alive(self, disk: Disk) -> None:
        """What it inherited of the parent's locks it lets go of."""
        step = disk.path.parent / "step"

        def parent() -> None:
            store = FileStore(str(disk.path))
            store.enroll(member("s1", "supervisor"))
            if os.fork() == 0:
                store.after_fork()
                step.write_text(str(os.getpid()))
                threading.Event().wait()
            wait_for(step.exists)
            os._exit(0)

        in_child(parent)
        store = disk.open()
        child = int(wait_for(step.read_text))
        try:
            assert lost_ids(store.lost()) == ["s1"]
            assert not store.ask_to_stop("s1", force=False)
        finally:
            os.kill(child, signal.SIGKILL)

    def test_a_child_that_ends_does_not_end_its_parents_membership(self, disk: Disk) -> None:
        store, other = disk.open(), disk.open()
        store.enroll(member("s1", "supervisor"))
        in_child(store.after_fork)
        assert other.lost() == []
        assert ids(list(other.members("supervisor"))) == ["s1"]
        assert other.ask_to_stop("s1", force=False)
        assert is_readable(store.listen(), 5)

    def test_parent_and_child_go_on_from_the_same_index(self, disk: Disk) -> None:
        """Each with its own position in the file."""
        store = disk.open()
        add(store, *(f"job{number}" for number in range(40)))
        assert store.claimable(NOW, HORIZON)
        log = disk.path.parent / "log"

        def work() -> None:
            store.after_fork()
            name = f"w{os.getpid()}"
            store.enroll(member(name))
            done = None
            while True:
                job = store.claim(name, NOW, HORIZON, done)
                if job is None:
                    break
                with log.open("a") as file:
                    file.write(job.id + "\n")
                done = rules.complete(job, NOW)
            store.leave(name)
            store.close()

        children = [Child(work) for _ in range(3)]
        late = add(store, "late")
        for child in children:
            child.finish()
        while store.claimable(NOW, HORIZON):
            store.save([rules.complete(claim_one(store), NOW)])
        claimed = log.read_text().split()
        assert len(claimed) == len(set(claimed))
        assert store.counts().completed == 41
        assert set(claimed) | {late[0].id} == {job.id for job in everything(store)}
        disk.verify()


class TestNews:
    """The pipe of a supervisor."""

    def test_a_supervisor_that_does_not_listen_holds_nobody_up(self, disk: Disk) -> None:
        store, other = disk.open(), disk.open()
        store.enroll(member("s1", "supervisor"))
        # A pipe takes 64 KiB; the store's own writes are what fills its last bytes.
        pipe = os.open(disk.path / "workers/s1.wake", os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while True:
                os.write(pipe, b"n" * 4096)
        os.close(pipe)
        added = add(other, "a", "b")
        assert everything(store) == added[::-1]
        assert other.ask_to_stop("s1", force=False) is False
        heard = 0
        while is_readable(store.listen(), 0):
            heard += store.hear()
        assert heard > 4096
        assert other.ask_to_stop("s1", force=True) is True
        store.hear()
        assert store.stop_asked() is True

    def test_a_commit_stands_whether_anybody_can_be_told_or_not(self, disk: Disk) -> None:
        store = disk.open()
        (disk.path / "workers").write_text("")
        (added,) = add(store, "a")
        assert everything(store) == [added]

    def test_a_name_that_is_taken_by_something_else_is_refused(self, disk: Disk) -> None:
        store = disk.open()
        (disk.path / "workers").mkdir(mode=0o700)
        (disk.path / "workers/s1.wake").touch()
        with pytest.raises(StoreError, match=r"cannot join .*File exists"):
            store.enroll(member("s1", "supervisor"))
        assert disk.open().lost() == []


def test_notes_are_read_whole_while_they_are_written(disk: Disk) -> None:
    store = disk.open()
    worker = member("w1")
    store.enroll(worker)
    over = disk.path.parent / "over"

    def read() -> None:
        own = FileStore(str(disk.path))
        while not over.exists():
            (found,) = own.members("worker")
            assert found.job == ("x" * found.run or None)

    readers = [Child(read) for _ in range(2)]
    for number in range(2000):
        run = number * 7 % 60
        store.note(worker._replace(job="x" * run or None, run=run))
    over.touch()
    for reader in readers:
        reader.finish()
