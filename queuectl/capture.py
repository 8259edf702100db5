"""The file that catches what a job prints: bounded, and never mixed with that of another job.

A job gets a descriptor that appends and holds a shared lock on the file; whatever it starts
inherits both. So one attempt to lock the file tells whether anybody can still write to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import NamedTuple, Optional

from queuectl import machine

_CHUNK = 1 << 16  # bytes copied at once
_TAIL = 4096  # bytes among which the last line of output is searched
_LINE = 200  # characters that are kept of it
_ROUNDS = 8  # looks at what a job wrote while its output is being cut

MARKER = 56
"""The bytes of the line that tells what was cut, with the newline before it."""

_CUT = re.compile(rb"\n--- (\d+) bytes cut by queuectl -*\n")


class Cut(NamedTuple):
    """What the line tells that stands where the middle of an output was cut out.

    Attributes:
        at: its offset.
        size: how many bytes were cut out there so far.
    """

    at: int
    size: int


def marker(size: int) -> bytes:
    """The line that tells how many bytes were cut out where it stands."""
    return (f"\n--- {size} bytes cut by queuectl ".ljust(MARKER - 1, "-") + "\n").encode()


def find_cut(fd: int) -> Optional[Cut]:
    """Find out what was cut out of the middle of a file."""
    size = os.fstat(fd).st_size
    # It is a quarter of the limit; the file has twice that or more, and a job that writes fast can
    # make it longer than the limit for a moment.
    at, stop = max(size // 8 - MARKER, 0), size // 2 + MARKER
    while at < stop:
        data = os.pread(fd, _CHUNK, at)
        found = last_cut(data, at)
        if found is not None or len(data) <= MARKER:
            return found
        at += len(data) - MARKER
    return None


def last_cut(data: bytes, offset: int) -> Optional[Cut]:
    """Find the last line that tells of a cut in bytes from this offset of a file."""
    cuts = [match for match in _CUT.finditer(data) if len(match[0]) == MARKER]
    return Cut(offset + cuts[-1].start(), int(cuts[-1][1])) if cuts else None


class Ends(NamedTuple):
    """The beginning and the end of an output.

    Attributes:
        size: how many bytes were printed in all, those that were cut out among them.
        head: the first of them.
        tail: the last of them, if they are more than the first.
    """

    size: int
    head: bytes
    tail: bytes


def read_ends(path: str, most: int, limit: Optional[int]) -> Ends:
    """Read the beginning and the end of an output, whose job may still write to it.

    Args:
        path: the file.
        most: how many bytes to read of each.
        limit: what its `Capture.limit` is: at a quarter of that it is cut.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        at, behind, lost = size, 0, 0
        if limit is not None:
            cut = last_cut(os.pread(fd, MARKER, limit // 4), limit // 4)
            if cut is not None:
                at, behind, lost = cut.at, cut.at + MARKER, cut.size - MARKER
        head = os.pread(fd, min(at, most), 0)
        start = max(behind, len(head), size - most)
        return Ends(size + lost, head, os.pread(fd, size - start, start))
    finally:
        os.close(fd)


class Capture:
    """The file to which a job writes, by a descriptor that no job has.

    It does not append, unlike those that are lent: a job goes on at the end of what `trim` leaves.

    Attributes:
        limit: the most bytes that it may keep.
        held: whether, when it was last asked, somebody could still write to it.
    """

    def __init__(self, path: str) -> None:
        self.limit: Optional[int] = None
        self.held = False
        self._path = self._target = path
        self._group = 0
        self._cut = 0  # bytes taken out so far
        self._marker = 0  # bytes of the line in the file that tells so
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        self._fd = above_stdio(os.open(path, flags, 0o600))

    def lend(self) -> int:
        """Open it for a job, and lock it until everybody who inherits this has closed it."""
        fd = above_stdio(os.open(self._path, os.O_WRONLY | os.O_APPEND))
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        except OSError:
            # A file system without locks.
            pass
        return fd

    def assign(self, group: int, target: str, limit: Optional[int]) -> None:
        """Say whose output it is now, where that goes, and how much of it is kept."""
        self._group, self._target, self.limit = group, target, limit

    def is_held(self) -> bool:
        """Whether somebody can still write to it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            # A file system without locks.
            return machine.group_alive(self._group)
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def trim(self) -> int:
        """Return its size; if that is over the limit, first take out the middle.

        A quarter of the limit is left at the beginning and about as much at the end. The job writes
        meanwhile: what it adds is taken along, in a few rounds that get shorter and shorter. What
        it writes in the microseconds between the last look and the cut is lost, uncounted.
        """
        size = os.fstat(self._fd).st_size
        if self.limit is None or size <= self.limit:
            return size
        quarter = self.limit // 4
        room = min(MARKER, self.limit - 2 * quarter)
        try:
            copied, end = 0, quarter + room
            for _ in range(_ROUNDS):
                if size <= copied:
                    break
                if end + size - copied > 3 * quarter:
                    copied, end = size - quarter, quarter + room
                copied, end = size, self._copy(copied, size, end)
                size = os.fstat(self._fd).st_size
            os.ftruncate(self._fd, end)
            self._cut += max(size - self._marker - (end - room), 0)
            self._marker = room
            os.pwrite(self._fd, marker(self._cut)[:room], quarter)
        except OSError:
            # No room to copy to, or a bad disk: the job goes on, and only the beginning is left.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, quarter)
                self._cut += max(size - self._marker - quarter, 0)
                self._marker = 0
        return os.fstat(self._fd).st_size

    def _copy(self, start: int, end: int, to: int) -> int:
        """Move bytes nearer to the beginning, a chunk at a time; returns where they end."""
        while start < end:
            written = os.pwrite(self._fd, os.pread(self._fd, min(_CHUNK, end - start), start), to)
            if not written:
                break
            start, to = start + written, to + written
        return to

    def move(self) -> None:
        """Give it its place; nothing happens if it was removed, as it is with its store."""
        target = os.path.abspath(self._target)
        try:
            os.rename(self._path, target)
        except FileNotFoundError:
            if not os.path.lexists(self._path):
                return
            _make_folders(os.path.dirname(target), os.path.commonpath([self._path, target]))
            os.rename(self._path, target)
        self._path = target

    def last_line(self, size: int) -> str:
        """The last line that is not blank, without what is blank at its ends; cut if it is long."""
        tail = os.pread(self._fd, _TAIL, max(size - _TAIL, 0))
        if size > _TAIL:
            # It may begin within a character of several bytes.
            tail = tail.lstrip(bytes(range(0x80, 0xC0)))
        for line in reversed(tail.split(b"\n")):
            text = line.decode("utf-8", "surrogateescape").strip()
            if text:
                return text if len(text) <= _LINE else text[: _LINE - 1] + "…"
        return ""

    def close(self) -> None:
        """Leave it as it is."""
        os.close(self._fd)

    def discard(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        self.close()


def _make_folders(folder: str, top: str) -> None:
    """Make a folder and those that it lacks above it; `top`, which is one of them, must exist."""
    if folder != top:
        _make_folders(os.path.dirname(folder), top)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)


def above_stdio(fd: int) -> int:
    """Move a descriptor out of the way of a job's 0 to 2, which may have been free to take."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
