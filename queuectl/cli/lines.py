"""Lines that `start` and its workers write while they work: whole or not at all, and never waiting.

A worker that waits for a full pipe or a stopped terminal would run no jobs. So pipes and terminals
are opened once more, without blocking; the caller's own descriptor stays as it is, for others may
share it.
"""

from __future__ import annotations

import os
import select
import stat
from time import monotonic, sleep
from typing import Tuple

from queuectl.cli.output import CLEAR_LINE
from queuectl.render import ERRORS, Screen

# What a pipe takes whole or not at all.
_LONGEST = select.PIPE_BUF
# Others may be put off the processor while they write to the terminal, which then has no room.
_PATIENCE = 0.2  # seconds
_PAUSE = 0.0005  # seconds between two attempts; all the patience there is once a line was dropped


class Lines:
    """Writes lines to a descriptor; one that cannot be written at once is dropped.

    Args:
        fd: where to.
        screen: what is known about it.
        shares_bar: whether a progress bar may stand where the line goes.
    """

    def __init__(self, fd: int, screen: Screen, shares_bar: bool = False) -> None:
        self.screen = screen
        self._fd, self._may_block = _reopen(fd)
        self._prefix = CLEAR_LINE if shares_bar else ""
        self._is_torn = False
        self._patience = _PATIENCE

    def write(self, text: str) -> None:
        """Write a line."""
        if len(text) * 16 > _LONGEST:
            text = self._cut(text)
        self.draw(f"{self._prefix}{text}\n")

    def draw(self, text: str) -> None:
        """Write text that is not a line of its own."""
        data = text.encode(self.screen.encoding, ERRORS)
        if self._is_torn:
            data = b"\n" + data
        try:
            if self._may_block and not self._has_room(0):
                return
            self._is_torn = self._write_now(data) < len(data)
            self._patience = _PATIENCE
        except BlockingIOError:
            # Not read fast enough, or a stopped terminal: so the next line will not wait for long.
            self._patience = _PAUSE
        except OSError:
            # Nobody reads it any more, or there is no room.
            pass

    def _write_now(self, data: bytes) -> int:
        deadline = monotonic() + self._patience
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                # A terminal says so, too, while another process is writing to it, and seems to
                # have no room until that is done.
                if monotonic() >= deadline:
                    raise
                if self._has_room(deadline - monotonic()):
                    sleep(_PAUSE)

    def _has_room(self, patience: float) -> bool:
        return bool(select.select([], [self._fd], [], max(patience, 0))[1])

    def _cut(self, text: str) -> str:
        data = text.encode(self.screen.encoding, ERRORS)
        room = _LONGEST - len(f"{self._prefix}...\n\n")
        if len(data) <= room:
            return text
        return data[:room].decode(self.screen.encoding, "ignore") + "..."


def _reopen(fd: int) -> Tuple[int, bool]:
    """Open what a descriptor leads to once more, not blocking; tell whether it still may block."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd, False
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return os.open(f"/proc/self/fd/{fd}", flags), False
        except OSError:
            # No /proc, or a terminal of another user.
            pass
    return fd, True
