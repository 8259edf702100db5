"""Following what a run prints on another machine, from what that shares of it.

A place is counted in all that the run has printed, whatever of that is shared: so nothing is shown
twice, and what is left out is known.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import Optional

from queuectl.capture import MARKER
from queuectl.outputs import Piece, copied, start_of_lines, why_missing
from queuectl.store.base import SharedOutput, Store

_PAUSE = 0.5  # seconds between two looks, as long as between two times that a run shares


class SharedReader:
    """Reads on in what a run shares of its output.

    Args:
        store: where that is.
        job_id: whose run.
        run: its number.
        lines: with how many of its last lines to begin; none for all.
    """

    def __init__(self, store: Store, job_id: str, run: int, lines: Optional[int] = None) -> None:
        self._store = store
        self._id, self._run = job_id, run
        self._lines = lines
        self._shared: Optional[SharedOutput] = None
        self._at = 0
        self._look_at = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether anything was shared yet."""
        return self._shared is not None

    def look(self, at_once: bool) -> None:
        """Ask what is shared by now, unless that was asked just before."""
        if not at_once and monotonic() < self._look_at:
            return
        self._look_at = monotonic() + _PAUSE
        shared = self._store.shared_output(self._id, self._run)
        if shared is None:
            return
        if self._shared is None and self._lines is not None:
            self._at = _start_of_lines(shared, self._lines)
        self._shared = shared

    def read(self) -> Piece:
        """Read on in what was shared at the last look."""
        if self._shared is None:
            return Piece(b"")
        _, _, size, head, tail = self._shared
        start = max(self._at, size - len(tail))
        if self._at < len(head):
            piece = Piece(head[self._at :])
            self._at = len(head)
        else:
            piece = Piece(tail[start - (size - len(tail)) :], start - self._at)
            self._at = max(self._at, size)
        return piece

    def why_lost(self, lost: Optional[int]) -> str:
        """Say why so many bytes are not shown."""
        assert self._shared is not None
        return why_missing(lost or 0, self._shared)

    def close(self) -> None:
        """Let go of it."""
        self._shared = None


def _start_of_lines(shared: SharedOutput, lines: int) -> int:
    """Return the place of the last so many lines, as far as they are shared."""
    fd = copied(shared)
    try:
        at = start_of_lines(fd, lines)
    finally:
        os.close(fd)
    if at <= len(shared.head) or not shared.missing:
        return at
    return max(at - MARKER, len(shared.head)) + shared.missing
