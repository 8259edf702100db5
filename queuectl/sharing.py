"""Showing what a run prints to those who cannot see its file, while it runs and once it has ended.

Only where the store asks for it. A thread may share while the run lasts, and the worker once it has
ended; never both at once, for the thread is done before the run counts as ended.
"""

from __future__ import annotations

import os
from typing import Callable, Optional, Tuple

from queuectl import machine
from queuectl.capture import read_ends
from queuectl.job import Job
from queuectl.store.base import SharedOutput, Store


class Sharing:
    """Shares the output of one run after the other, for one worker.

    Args:
        store: with whom.
        spool: the path of the file that the current run writes.
        most: tells how many bytes of the beginning, and of the end, others may see.
    """

    def __init__(self, store: Store, spool: str, most: Callable[[], int]) -> None:
        self._store = store
        self._spool = spool
        self._most = most
        self._limit = 0
        # The run that has ended, and where its output is kept, while not all of that is shared.
        self._ended: Optional[Tuple[Job, str]] = None
        # What told the file apart that was shared last.
        self._shared: Tuple[object, ...] = ()

    def begin(self, limit: int) -> None:
        """Take note that a run begins, of whose output so many bytes are kept."""
        self._limit = limit

    def so_far(self, job: Job) -> None:
        """Share what the current run has printed; raises what `share_output` does."""
        self._share(job, self._spool)

    def end(self, job: Job, kept: str) -> None:
        """Take note that a run has ended, and to which path its output is moved."""
        if self._store.shares_output:
            self._ended = job, kept

    def finish(self) -> None:
        """Share all that the last run printed, before others see that it has ended.

        Raises what `share_output` does; it is then to be called again.
        """
        if self._ended is not None:
            self._share(*self._ended)
            self._ended = None

    def _share(self, job: Job, path: str) -> None:
        try:
            status = os.stat(path)
            now = (path, status.st_size, status.st_mtime_ns)
            if now == self._shared or not status.st_size:
                return
            ends = read_ends(path, self._most(), self._limit)
        except OSError:
            # It printed nothing, or the file cannot be read, which who looks for it here is told.
            return
        self._store.share_output(job, SharedOutput(machine.host(), path, *ends))
        self._shared = now
