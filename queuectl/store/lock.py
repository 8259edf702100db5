"""Locks on files: the store's, held for microseconds, and those that show that a process is alive.

Both are `flock` locks, which the kernel drops when the last descriptor of an open file is closed, however its
processes ended: so no lock is ever stale, and nobody has to break one. A lock belongs to the open file, not to the
process: after a fork the child must open its own, and must close what it inherited without unlocking it, for that
would unlock it for the parent too.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Callable, Optional

from queuectl.errors import StoreError, StoreLockedError

import filelock

# Filelock before 3.30, the newest for Python 3.8 and 3.9, only has FileLock.
_HAS_DESCRIPTORS = hasattr(filelock, "lock_descriptor")

PATIENCE = 30.0
_LONGEST_PAUSE = 0.005


def take_liveness(path: str) -> Optional[int]:
    """Make or open a lock file and take its lock without waiting.

    Returns:
        The descriptor that holds the lock until it is closed, or nothing if another open file holds it.
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
    """Tell whether a living process holds the lock of this file; a file that is gone is held by nobody."""
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
    # FileLock of an old filelock would do the same, but a copy of it in a forked child unlocks the parent's
    # lock when it is collected.
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class StoreLock:
    """The lock that every commit takes. Not reentrant; threads of one process exclude each other as well.

    Args:
        path: the lock file; made when the lock is first taken.
        patience: how long to wait for it, in seconds.
    """

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._threads = threading.Lock()
        self._pid = -1
        self._try: Callable[[], bool]
        self._unlock: Callable[[], None]
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
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            self._unlock()
        finally:
            self._threads.release()

    def close(self) -> None:
        """Close the lock file; nothing of the parent's is unlocked by it."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._pid = -1

    def is_stale(self) -> bool:
        """Tell whether the path no longer leads to the file that this process locks."""
        if self._fd < 0:
            return False
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._fd))

    def _open(self) -> None:
        self.close()
        # A lock that a thread of the parent held at the fork would stay taken here for ever.
        self._threads = threading.Lock()
        if not _HAS_DESCRIPTORS:
            self._use_file_lock()
        else:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StoreError(
                    f"cannot lock the store: {self._path}: {error.strerror}"
                ) from error
            self._fd = fd
            self._try = lambda: filelock.lock_descriptor(fd, blocking=False)
            self._unlock = lambda: filelock.unlock_descriptor(fd)
        self._pid = os.getpid()

    def _use_file_lock(self) -> None:
        lock = filelock.FileLock(self._path, timeout=0, mode=0o600)

        def attempt() -> bool:
            try:
                lock.acquire()
            except filelock.Timeout:
                return False
            except OSError as error:
                raise StoreError(
                    f"cannot lock the store: {self._path}: {error.strerror}"
                ) from error
            return True

        self._try = attempt
        self._unlock = lock.release

    def _wait(self) -> None:
        deadline = time.monotonic() + self._patience
        pause = 0.0002
        while True:
            # Jitter keeps those who wait from coming back all at once.
            time.sleep(pause * random.uniform(0.5, 1.5))
            if self._try():
                return
            if time.monotonic() >= deadline:
                raise StoreLockedError(
                    f"store locked for over {self._patience:g}s by {_holder(self._path)}: {self._path}"
                )
            pause = min(pause * 1.5, _LONGEST_PAUSE)


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
