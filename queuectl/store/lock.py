"""Locks on files: the store's, held for microseconds, and those that show that a process is alive.

Both are `flock` locks, which the kernel drops when the last descriptor of an open file is closed,
however its processes ended: so no lock is ever stale, and nobody has to break one. A lock belongs
to the open file, not to the process: after a fork the child must open its own, and must close what
it inherited without unlocking it, for that would unlock it for the parent too.

Who must wait for the store's lock sleeps in the kernel, which wakes him when it is free: with 32
workers, looking again and again takes more time than the work itself. The kernel knows no limit of
time for that, so an alarm ends it. Where the alarm may not be ours (other threads, a program that
uses it) the wait is a series of looks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import threading
import time
from typing import Optional

import filelock

from queuectl.errors import StoreError, StoreLockedError

# Filelock before 3.30, the newest for Python 3.8 and 3.9, only has FileLock.
_HAS_DESCRIPTORS = hasattr(filelock, "lock_descriptor")

PATIENCE = 30.0
_LONGEST_PAUSE = 0.005


def take_liveness(path: str) -> Optional[int]:
    """Make or open a lock file and take its lock without waiting.

    Returns:
        The descriptor that holds the lock until it is closed, or nothing if another open file holds
        it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        taken = _try_descriptor(fd)
    except BaseException:
        os.close(fd)
        raise
    if not taken:
        os.close(fd)
        return None
    return fd


def is_held(path: str) -> bool:
    """Tell whether a living process holds the lock of this file.

    A file that is gone is held by nobody.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_descriptor(fd)
    finally:
        os.close(fd)


def _try_descriptor(fd: int) -> bool:
    if _HAS_DESCRIPTORS:
        return filelock.lock_descriptor(fd, blocking=False)
    # FileLock of an old filelock does the same to a file that it opens itself. But it makes a
    # removed folder anew, and a copy of it in a forked child unlocks the parent's lock when it is
    # collected.
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock_descriptor(fd: int) -> None:
    if _HAS_DESCRIPTORS:
        filelock.unlock_descriptor(fd)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)


class StoreLock:
    """The lock that every commit takes, and that threads of one process share.

    It is not reentrant.

    Args:
        path: the lock file; made when the lock is first taken.
        patience: how long to wait for it, in seconds.
    """

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._threads = threading.Lock()
        self._opening = threading.Lock()
        self._pid = -1
        self._fd = -1

    def __enter__(self) -> None:
        """Take the lock.

        Raises:
            StoreLockedError: it stayed taken for longer than the patience lasts.
            StoreError: the lock file cannot be opened.
        """
        if self._pid != os.getpid():
            self._open()
        if not self._threads.acquire(timeout=self._patience):
            raise StoreLockedError(
                f"store locked for over {self._patience:g}s by another thread of this process"
            )
        try:
            if not self._try():
                self._wait()
            while os.fstat(self._fd).st_nlink == 0 and self._open_the_next():
                self._wait()
        except BaseException:
            # An interrupt may have come when it was taken already.
            with contextlib.suppress(OSError):
                _unlock_descriptor(self._fd)
            self._threads.release()
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            _unlock_descriptor(self._fd)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Close the lock file; nothing of the parent's is unlocked by it."""
        if self._fd >= 0:
            os.close(self._fd)
        self._opening = threading.Lock()
        self._fd = -1
        self._pid = -1

    def _open(self) -> None:
        with self._opening:
            if self._pid != os.getpid():
                try:
                    fd = self._open_file()
                except OSError as error:
                    raise self._failure(error) from error
                if self._fd >= 0:
                    os.close(self._fd)
                # A lock that a thread of the parent held at the fork would stay taken here for
                # ever.
                self._threads = threading.Lock()
                self._fd = fd
                self._pid = os.getpid()

    def _open_the_next(self) -> bool:
        """Turn to the file that took the place of one that was removed.

        People do that to locks that they think stale.
        """
        try:
            fd = self._open_file()
        except OSError:
            # The whole store was removed, which those who hold the lock will see.
            return False
        os.close(self._fd)
        self._fd = fd
        return True

    def _open_file(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _try(self) -> bool:
        try:
            return _try_descriptor(self._fd)
        except OSError as error:
            # As on a file system that knows no locks.
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> StoreError:
        return StoreError(f"cannot lock the store: {self._path}: {error.strerror}")

    def _wait(self) -> None:
        wait = _wait_in_kernel if _may_use_alarm() else _look_again
        try:
            taken = wait(self._fd, self._patience)
        except OSError as error:
            raise self._failure(error) from error
        if not taken:
            raise StoreLockedError(
                f"store locked for over {self._patience:g}s by {_holder(self._path)}: {self._path}"
            )


class _PatienceEndedError(Exception):
    """The alarm went off."""


def _may_use_alarm() -> bool:
    """Whether nothing else in this process can want the alarm, or get it."""
    return (
        threading.current_thread() is threading.main_thread()
        and threading.active_count() == 1
        and signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN)
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
        and signal.SIGALRM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    )


def _wait_in_kernel(fd: int, patience: float) -> bool:
    """Take the lock once it is free; False if that takes longer than so many seconds."""

    def interrupt(signum: int, frame: object) -> None:
        raise _PatienceEndedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, patience)
            # The lock that filelock takes; its own wait for it is a series of looks.
            fcntl.flock(fd, fcntl.LOCK_EX)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _PatienceEndedError:
        return False
    finally:
        signal.signal(signal.SIGALRM, before)
    return True


def _look_again(fd: int, patience: float) -> bool:
    """The same without the alarm."""
    deadline = time.monotonic() + patience
    pause = 0.0002
    while not _try_descriptor(fd):
        if time.monotonic() >= deadline:
            return False
        # Jitter keeps those who wait from coming back all at once.
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 3, _LONGEST_PAUSE)
    return True


def _holder(path: str) -> str:
    """Name the process that holds the lock of this file, as far as the kernel tells."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                    pid = int(words[4])
                    with open(f"/proc/{pid}/cmdline", "rb") as file:
                        command = file.read(200).replace(b"\0", b" ").decode("utf-8", "replace")
                    return f"process {pid} ({command.strip()})"
    except (OSError, ValueError, IndexError):
        pass
    return "another process"
