"""Finding what a job printed, while it runs and after, and reading it while it grows.

What another machine has is found by what that shares of it; what lies here is always taken first.

The output of a run that ended is in a place of its own; that of the current run is in the file of
its worker, which gets another one as soon as the run has ended. So after opening that file it is
asked again whose it is. Once it is open it does not matter any more where it is moved.
"""

from __future__ import annotations

import os
import stat
from typing import Iterator, NamedTuple, Optional

from queuectl.capture import MARKER, find_cut, last_cut, marker
from queuectl.errors import StoreError
from queuectl.job import Job, JobState
from queuectl.store.base import SharedOutput, Store
from queuectl.text import as_utf8

PIECE = 1 << 16
"""The most bytes of output that are in memory at once."""

_KNOWN = 256  # bytes by which a file that was cut is told from one that only grew
_PATIENCE = 20  # looks at a file that was cut, for the line that says so


class Output(NamedTuple):
    """What a run printed.

    Attributes:
        run: its number.
        path: the file that holds it.
        fd: that file, opened; the caller's to close.
        shared: what another machine shares of it, if the file is there; then `fd` is one with that,
            and a line as in an output that was cut where something is left out.
    """

    run: int
    path: str
    fd: int
    shared: Optional[SharedOutput] = None


class Piece(NamedTuple):
    """A part of what a run printed.

    Attributes:
        data: the bytes; none if there is nothing new.
        lost: how many bytes before it were cut out before they were read; none if nobody knows.
    """

    data: bytes
    lost: Optional[int] = 0


def open_output(store: Store, job: Job, run: Optional[int] = None) -> Optional[Output]:
    """Open what a run printed.

    Args:
        store: where the job is.
        job: whose output.
        run: of which run; the newest that printed anything by default.

    Returns:
        Nothing if there is none.

    Raises:
        StoreError: it cannot be read.
    """
    for number in range(job.runs, 0, -1) if run is None else [run]:
        found = _open_run(store, job, number) or _open_shared(store, job, number)
        if found is not None:
            return found
    return None


def open_as_known(store: Store, job: Job, run: int) -> Optional[Output]:
    """Open what a run printed, if the job is as it is believed to be.

    Returns:
        Nothing if there is none; or if the run has just ended, which another look at the job tells.
    """
    found = _open(run, store.kept_output(job.id, run))
    if found is not None or not _is_running(job, run):
        return found
    found = _open(run, store.spool(str(job.worker)))
    if found is not None and not _still_writes(store, job):
        os.close(found.fd)
        return None
    return found


def why_none(job: Job, run: Optional[int]) -> str:
    """Say why there is no output of a run, or of any."""
    if job.runs == 0:
        return f"job {job.id!r} has not run yet"
    if run is not None and run > job.runs:
        times = "once" if job.runs == 1 else f"{job.runs} times"
        return f"job {job.id!r} has run only {times}"
    if run is not None:
        return f"run {run} of job {job.id!r} printed nothing"
    yet = " yet" if job.state == JobState.PROCESSING else ""
    return f"job {job.id!r} has printed nothing{yet}"


def why_missing(missing: int, shared: SharedOutput) -> str:
    """Say why so many bytes of an output cannot be shown."""
    where = f"{as_utf8(shared.path)} on {shared.host}"
    return f"{missing} bytes are left out: what is kept of them is in {where}"


def start_of_lines(fd: int, lines: int) -> int:
    """Return the offset of the last so many lines of a file, the last of which may have no end."""
    end = os.fstat(fd).st_size
    if lines == 0 or end == 0:
        return end
    ends_a_line = os.pread(fd, 1, end - 1) == b"\n"
    return _behind_newline(fd, end, lines + ends_a_line)


def _behind_newline(fd: int, end: int, number: int) -> int:
    """Return the offset behind the newline of this number before `end`, counted backwards."""
    while end > 0:
        start = max(end - PIECE, 0)
        data = os.pread(fd, end - start, start)
        found = data.count(b"\n")
        if found >= number:
            at = len(data)
            for _ in range(number):
                at = data.rindex(b"\n", 0, at)
            return start + at + 1
        number -= found
        end = start
    return 0


class GrowingOutput:
    """Reads what a run prints, from an offset on, while its file grows and is cut in the middle.

    Args:
        fd: the file, to be closed by `close`.
        at: the offset.
    """

    has_begun = True
    """Whether there was anything yet; this file is never opened before there is."""

    def __init__(self, fd: int, at: int = 0) -> None:
        self._fd = fd
        self._at = at
        self._known = os.pread(fd, min(at, _KNOWN), max(at - _KNOWN, 0))
        cut = find_cut(fd) if at else None
        self._cut = cut if cut is not None and cut.at < at else None
        self._looks = 0

    @property
    def at(self) -> int:
        """The offset up to which it was read."""
        return self._at

    def read(self) -> Piece:
        """Read on."""
        lost: Optional[int] = 0
        if self._was_cut():
            lost = self._find_place()
        data = os.pread(self._fd, PIECE, self._at)
        if not data or self._was_cut():
            # As it was cut meanwhile, these may be bytes from anywhere.
            return Piece(b"", lost)
        start = self._at - len(self._known)
        known = self._known + data
        found = last_cut(known, start)
        if found is not None:
            self._cut = found
        self._at += len(data)
        self._known = known[-_KNOWN:]
        return Piece(data, lost)

    def why_lost(self, lost: Optional[int]) -> str:
        """Say why so many bytes are not shown; none if nobody knows how many."""
        many = "an unknown number of" if lost is None else f"{lost}"
        return f"{many} bytes were cut before they could be shown"

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _was_cut(self) -> bool:
        size = len(self._known)
        return os.pread(self._fd, size, self._at - size) != self._known

    def _find_place(self) -> Optional[int]:
        """Go to where it goes on behind what was read; return how much of that is missing."""
        cut = find_cut(self._fd)
        known = 0 if self._cut is None else self._cut.size
        if cut is None or cut.size <= known:
            # It is written after the cut; not at all where there was no room.
            self._looks += 1
            if self._looks <= _PATIENCE:
                return 0
            self._go_to(os.fstat(self._fd).st_size)
            return None
        # Where it is in all that was printed: what was cut before lies behind that line.
        place = self._at
        if self._cut is not None and place > self._cut.at:
            place += self._cut.size - MARKER
        self._cut = cut
        self._go_to(max(place - cut.size, cut.at) + MARKER)
        return max(cut.at + cut.size - place, 0)

    def _go_to(self, at: int) -> None:
        self._looks = 0
        self._at = at
        self._known = os.pread(self._fd, min(at, _KNOWN), max(at - _KNOWN, 0))


def pieces(fd: int, start: int = 0) -> Iterator[bytes]:
    """Yield what is in a file from an offset on, in pieces, up to its end."""
    while True:
        data = os.pread(fd, PIECE, start)
        if not data:
            return
        start += len(data)
        yield data


def _open_run(store: Store, job: Job, run: int) -> Optional[Output]:
    while True:
        found = open_as_known(store, job, run)
        if found is not None or not _is_running(job, run):
            return found
        # Either nothing is printed yet, or the run has ended meanwhile: the job tells.
        now = store.get(job.id)
        if now is None or now.rev == job.rev:
            return _open(run, store.kept_output(job.id, run))
        job = now


def _open_shared(store: Store, job: Job, run: int) -> Optional[Output]:
    shared = store.shared_output(job.id, run)
    if shared is None:
        return None
    return Output(run, shared.path, copied(shared), shared)


def copied(shared: SharedOutput) -> int:
    """Write what was shared to a file without a name; return its descriptor."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(shared.head)
        if shared.missing:
            file.write(marker(shared.missing))
        file.write(shared.tail)
        file.flush()
        return os.dup(file.fileno())


def _is_running(job: Job, run: int) -> bool:
    return job.state == JobState.PROCESSING and job.runs == run


def _open(run: int, path: str) -> Optional[Output]:
    """Open a file that is not empty."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    status = os.fstat(fd)
    is_file = stat.S_ISREG(status.st_mode)
    if is_file and status.st_size:
        return Output(run, path, fd)
    os.close(fd)
    if not is_file:
        raise StoreError(f"cannot read {path}: it is not a file")
    return None


def _still_writes(store: Store, job: Job) -> bool:
    """Whether the worker's file is that of this run; a worker that died has no later one."""
    for member in store.members("worker"):
        if member.id == job.worker:
            return (member.job, member.run) == (job.id, job.runs)
    return True
