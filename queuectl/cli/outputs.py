"""Finding what a job printed, while it runs and after.

The output of a run that ended is in a place of its own; that of the current run is in the file of
its worker, which gets another one as soon as the run has ended. So after opening that file it is
asked again whose it is.
"""

from __future__ import annotations

import os
import stat
from typing import List, NamedTuple, Optional

from queuectl.errors import StoreError
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.render import Screen

_TAIL_BYTES = 1 << 16
_TAIL_LINES = 10


class Output(NamedTuple):
    """What a run printed.

    Attributes:
        run: its number.
        path: the file that holds it.
        fd: that file, opened; the caller's to close.
    """

    run: int
    path: str
    fd: int


def open_output(manager: QueueManager, job: Job, run: Optional[int] = None) -> Optional[Output]:
    """Open what a run printed.

    Args:
        manager: the queue.
        job: whose.
        run: which; the newest that printed anything by default.

    Returns:
        Nothing if there is none.

    Raises:
        StoreError: it cannot be read.
    """
    if run is not None:
        return _open_run(manager, job, run)
    for number in range(job.runs, 0, -1):
        found = _open_run(manager, job, number)
        if found is not None:
            return found
    return None


def tail(output: Output, screen: Screen, width: int) -> List[str]:
    """Return the last lines of an output, as they can be shown, each cut to so many columns."""
    size = os.fstat(output.fd).st_size
    data = os.pread(output.fd, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
    if size > _TAIL_BYTES:
        # It may begin within a character of several bytes.
        data = data.lstrip(bytes(range(0x80, 0xC0)))
    lines = data.decode("utf-8", "surrogateescape").rstrip("\n").split("\n")
    return [screen.cut(screen.output(line), width) for line in lines[-_TAIL_LINES:]]


def _open_run(manager: QueueManager, job: Job, run: int) -> Optional[Output]:
    while True:
        kept = manager.store.kept_output(job.id, run)
        found = _open(run, kept)
        if found is not None or not (job.state == JobState.PROCESSING and job.runs == run):
            return found
        found = _open(run, manager.store.spool(str(job.worker)))
        if found is not None and _still_writes(manager, job):
            return found
        if found is not None:
            os.close(found.fd)
        # Either nothing is printed yet, or the run has ended meanwhile: the job tells.
        now = manager.store.get(job.id)
        if now is None or now.rev == job.rev:
            return _open(run, kept)
        job = now


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


def _still_writes(manager: QueueManager, job: Job) -> bool:
    """Whether the worker's file is that of this run; a worker that died has no later one."""
    for member in manager.members("worker"):
        if member.id == job.worker:
            return (member.job, member.run) == (job.id, job.runs)
    return True
