"""The store's lock: one holder at a time, whoever it is, and never a stale one."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List

import filelock
import pytest

from queuectl.errors import StoreError, StoreLockedError
from queuectl.store.lock import StoreLock, is_held, take_liveness
from test_store_tools import Child, fast_folder, in_child, wait_for


@pytest.fixture
def path() -> Iterator[str]:
    with fast_folder() as folder:
        yield str(folder / "jobs.lock")


@contextmanager
def held(path: str) -> Iterator[Child]:
    """Let another process hold the lock."""
    holding = Path(path + ".held")

    def hold() -> None:
        with StoreLock(path):
            holding.touch()
            wait_for(lambda: not holding.exists(), 30)

    child = Child(hold)
    try:
        wait_for(holding.exists)
        yield child
    finally:
        if holding.exists():
            holding.unlink()
            child.finish()


def take(path: str, patience: float = 0.05) -> None:
    """Take the lock as a process that has just started."""
    lock = StoreLock(path, patience)
    try:
        with lock:
            pass
    finally:
        lock.close()


def is_blocked(pid: int) -> bool:
    """Whether the process sleeps until a lock is free, as far as the kernel tells."""
    if not os.path.exists("/proc/locks"):
        return True
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and str(pid) in line.split() for line in lines)


def adds_up(path: str, number: int, start: Callable[[Callable[[], None]], object]) -> None:
    """Let many add to one number, which loses what two do at a time."""
    Path(path + ".sum").write_text("0")

    def add() -> None:
        lock = StoreLock(path)
        for _ in range(200):
            with lock:
                total = int(Path(path + ".sum").read_text())
                Path(path + ".sum").write_text(str(total + 1))
        lock.close()

    start(add)
    assert int(Path(path + ".sum").read_text()) == 200 * number


def test_processes_exclude_each_other(path: str) -> None:
    def start(add: Callable[[], None]) -> None:
        children = [Child(add) for _ in range(4)]
        for child in children:
            child.finish()

    adds_up(path, 4, start)


def test_threads_with_locks_of_their_own_exclude_each_other(path: str) -> None:
    def start(add: Callable[[], None]) -> None:
        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    adds_up(path, 4, start)


def test_threads_that_share_a_lock_exclude_each_other_from_the_first_time_on(path: str) -> None:
    for _ in range(50):
        lock = StoreLock(path)
        inside: List[str] = []
        ready = threading.Barrier(6)

        def work(lock: StoreLock = lock, inside: List[str] = inside, ready: Any = ready) -> None:
            ready.wait()
            with lock:
                inside.append("in")
                time.sleep(0)
                inside.append("out")

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lock.close()
        assert inside == ["in", "out"] * 6


def test_who_waits_too_long_is_told_who_holds_it(path: str) -> None:
    with held(path) as child:
        started = time.monotonic()
        with pytest.raises(StoreLockedError) as caught:
            take(path, 0.1)
        assert 0.1 <= time.monotonic() - started < 5
    assert caught.value.exit_code == 75
    if os.path.exists("/proc/locks"):
        assert f"for over 0.1s by process {child.pid} (" in str(caught.value)
        assert "python" in str(caught.value)
    assert path in str(caught.value)
    take(path)


def test_who_waits_gets_it_soon_after_it_is_free(path: str) -> None:
    with held(path):
        taken = Path(path + ".taken")

        def wait() -> None:
            with StoreLock(path):
                taken.touch()

        waiting = Child(wait)
        with pytest.raises(StoreLockedError):
            take(path, 0.2)
        assert not taken.exists()
    started = time.monotonic()
    waiting.finish()
    assert taken.exists()
    assert time.monotonic() - started < 1


class TestWaiting:
    """Who waits sleeps in the kernel, if the alarm that ends the wait can be his."""

    def test_it_takes_no_looks(self, path: str) -> None:
        with held(path) as child:

            def wait() -> None:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
                started = time.monotonic()
                with pytest.raises(StoreLockedError, match=f"for over 0.3s by process {child.pid}"):
                    take(path, 0.3)
                assert 0.3 <= time.monotonic() - started < 5
                assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before < 20
                assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL

            Child(wait).finish()

    def test_it_ends_when_the_lock_is_free(self, path: str) -> None:
        taken = Path(path + ".taken")

        def wait() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            with StoreLock(path):
                taken.touch()
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

        with held(path):
            waiting = Child(wait)
            wait_for(lambda: is_blocked(waiting.pid))
        waiting.finish()
        assert taken.exists()

    def test_it_ends_where_no_alarm_comes_through(self, path: str) -> None:
        def wait() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            with pytest.raises(StoreLockedError):
                take(path, 0.1)

        with held(path):
            Child(wait).finish()

    def test_an_alarm_of_the_program_is_left_alone(self, path: str) -> None:
        def wait() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            with pytest.raises(StoreLockedError):
                take(path, 0.05)
            assert signal.alarm(0) >= 59

        with held(path):
            Child(wait).finish()


def test_the_lock_of_a_process_that_was_killed_is_free(path: str) -> None:
    with held(path) as child:
        os.unlink(path + ".held")
        child.kill()
        take(path)


def test_another_thread_is_waited_for_too(path: str) -> None:
    lock = StoreLock(path, 0.05)
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holding.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    with pytest.raises(StoreLockedError, match="another thread"), lock:
        pass
    done.set()
    thread.join()
    with lock:
        pass
    lock.close()


def test_it_is_not_reentrant(path: str) -> None:
    lock = StoreLock(path, 0.05)
    with lock, pytest.raises(StoreLockedError), lock:
        pass
    with lock:
        pass
    lock.close()


def test_an_error_inside_releases_it(path: str) -> None:
    lock = StoreLock(path, 0.05)
    with pytest.raises(ZeroDivisionError), lock:
        1 / 0  # noqa: B018
    take(path)
    lock.close()


class TestFork:
    """flock belongs to the open file: what is inherited must be closed, never unlocked."""

    def test_a_child_neither_has_nor_releases_its_parents_lock(self, path: str) -> None:
        lock = StoreLock(path, 0.05)

        def act() -> None:
            # Without being told of the fork, as in a process that a library forked.
            with pytest.raises(StoreLockedError), lock:
                pass
            lock.close()
            with pytest.raises(StoreLockedError), lock:
                pass

        with lock:
            in_child(act)
            with pytest.raises(StoreLockedError):
                in_child_take(path)
        in_child(lambda: take(path))
        lock.close()

    def test_a_child_can_take_it_though_a_thread_of_its_parent_had_it(self, path: str) -> None:
        lock = StoreLock(path, 0.05)
        release, holding = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                holding.set()
                release.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        holding.wait()
        refused, free = Path(path + ".refused"), Path(path + ".free")

        def act() -> None:
            with pytest.raises(StoreLockedError), lock:
                pass
            refused.touch()
            wait_for(free.exists)
            with lock:
                pass

        with warnings_about_threads_ignored():
            child = Child(act)
        wait_for(refused.exists)
        release.set()
        thread.join()
        free.touch()
        child.finish()
        lock.close()

    def test_parent_and_child_exclude_each_other_afterwards(self, path: str) -> None:
        lock = StoreLock(path, 0.05)
        with lock:
            pass
        entered, leave = Path(path + ".entered"), Path(path + ".leave")

        def act() -> None:
            with lock:
                entered.touch()
                wait_for(leave.exists)

        child = Child(act)
        wait_for(entered.exists)
        with pytest.raises(StoreLockedError), lock:
            pass
        leave.touch()
        child.finish()
        with lock:
            pass
        lock.close()


class TestFile:
    """The lock file itself."""

    def test_it_is_nobody_elses(self, path: str) -> None:
        def act() -> None:
            os.umask(0)
            take(path)

        in_child(act)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def test_one_that_was_removed_is_made_anew(self, path: str) -> None:
        """People remove lock files that they think stale; nobody may go on with the old one."""
        lock = StoreLock(path, 0.05)
        with lock:
            pass
        for _ in range(2):
            os.unlink(path)
            with lock:
                assert os.path.exists(path)
                with pytest.raises(StoreLockedError):
                    take(path)
        os.unlink(path)
        with held(path), pytest.raises(StoreLockedError), lock:
            pass
        with lock:
            pass
        lock.close()

    def test_a_removed_folder_is_not_made_anew(self, path: str) -> None:
        folder = os.path.join(os.path.dirname(path), "store")
        os.mkdir(folder)
        used, unused = (StoreLock(os.path.join(folder, "jobs.lock"), 0.05) for _ in range(2))
        with used:
            pass
        shutil.rmtree(folder)
        with used:
            # There is nothing left to guard, but those who clean up after themselves can.
            pass
        with pytest.raises(StoreError, match=r"cannot lock the store.*No such file"), unused:
            pass
        assert not os.path.exists(folder)
        used.close()

    def test_filelock_sees_it(self, path: str) -> None:
        """Whoever wants to keep all others out for a while, for a backup say, can use filelock."""
        lock = StoreLock(path, 0.05)
        other = filelock.FileLock(path, timeout=0)
        with lock, pytest.raises(filelock.Timeout), other:
            pass
        with other, pytest.raises(StoreLockedError), lock:
            pass
        with lock:
            pass
        lock.close()

    def test_a_file_that_may_not_be_opened_is_named(self, path: str) -> None:
        os.mkdir(path)
        with pytest.raises(
            StoreError, match=r"cannot lock the store: .*jobs\.lock: Is a directory"
        ):
            take(path)


class TestLiveness:
    """A lock that shows that a process is alive."""

    def test_it_is_held_until_its_process_is_gone(self, path: str) -> None:
        assert not is_held(path)
        holding = Path(path + ".held")

        def hold() -> None:
            assert take_liveness(path) is not None
            holding.touch()
            threading.Event().wait()

        child = Child(hold)
        wait_for(holding.exists)
        assert is_held(path)
        assert take_liveness(path) is None
        os.kill(child.pid, 19)
        assert is_held(path)
        child.kill()
        assert not is_held(path)
        mine = take_liveness(path)
        assert mine is not None
        assert is_held(path)
        os.close(mine)
        assert not is_held(path)

    def test_looking_leaves_no_descriptor_open(self, path: str) -> None:
        mine = take_liveness(path)
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        for _ in range(3):
            assert take_liveness(path) is None
            assert is_held(path)
        after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        assert after == before
        assert mine is not None
        os.close(mine)


def in_child_take(path: str) -> None:
    """Take the lock in another process; raise what it raised."""

    def act() -> None:
        try:
            take(path)
        except StoreLockedError:
            os._exit(75)

    child = Child(act)
    status = os.waitpid(child.pid, 0)[1]
    os.close(child._failure)
    if os.WEXITSTATUS(status) == 75:
        raise StoreLockedError
    assert status == 0


@contextmanager
def warnings_about_threads_ignored() -> Iterator[None]:
    """Python warns where a process with threads forks; what then holds is what is tested."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
