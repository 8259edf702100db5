"""One run of a hook, from its start to its end; nothing here waits.

A hook leads a process group, and a session, of its own. It is over when no process of that group is
alive: so what it leaves in the background has its time too, and no more. What it prints goes to a
file that is nobody's any more once it runs, so that none can be left; it is kept short.
"""

from __future__ import annotations

import contextlib
import os
import signal
from time import monotonic
from typing import Mapping, Optional, Tuple

from queuectl import machine
from queuectl.capture import Capture, above_stdio
from queuectl.runner import TIMEOUT, in_words, spawn

LIMIT = 30.0
"""Seconds that a hook may run."""

_LOOK = 0.1  # seconds between two looks at what no signal tells of
_MOST_OUTPUT = 1 << 16


class Hook:
    """A hook that runs.

    Args:
        shell: the path of a program that takes `-c` and a line.
        command: the line.
        environ: its whole environment.
        spool: a path for the file that it prints to, which exists for a moment only.
        limits: how many seconds it may run, and how many it has then between TERM and KILL.

    Raises:
        NotStartedError: the system did not let it start.
    """

    def __init__(
        self,
        shell: str,
        command: str,
        environ: Mapping[bytes, bytes],
        spool: str,
        limits: Tuple[float, float],
    ) -> None:
        self._limit, self._kill_grace = limits
        self._deadline = monotonic() + self._limit
        self._output: Optional[Capture] = None
        self._status: Optional[int] = None
        self._ended_by: Optional[str] = None
        self._kill_at = 0.0
        self._next_look = 0.0
        null = above_stdio(os.open(os.devnull, os.O_RDWR))
        lent = -1
        try:
            # On a full disk it runs all the same: that may be what it is to tell of.
            with contextlib.suppress(OSError):
                self._output = Capture(spool)
                lent = self._output.lend()
            self._pid = spawn(shell, command, environ, null, null if lent < 0 else lent)
        except BaseException:
            self.let_go()
            raise
        finally:
            os.close(null)
            if lent >= 0:
                os.close(lent)
            with contextlib.suppress(OSError):
                os.unlink(spool)
        if self._output is not None:
            self._output.assign(self._pid, spool, _MOST_OUTPUT)

    def is_over(self) -> bool:
        """Tell whether it is over; if its time is, see to it that it ends."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = status
                self._next_look = 0.0
        now = monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK
        if self._output is not None:
            self._output.trim()
        if self._status is not None and not machine.group_alive(self._pid):
            return True
        if self._ended_by is None:
            if now >= self._deadline:
                self.end(TIMEOUT)
        elif now >= self._kill_at:
            machine.signal_group(self._pid, signal.SIGKILL)
        return False

    def end(self, reason: str) -> None:
        """Have it end: TERM now, and later, by `is_over`, KILL."""
        if self._ended_by is None:
            self._ended_by = reason
            self._kill_at = monotonic() + self._kill_grace
            machine.signal_group(self._pid, signal.SIGTERM)
            # One that is stopped gets to see TERM only once it continues.
            machine.signal_group(self._pid, signal.SIGCONT)

    def close(self) -> Optional[str]:
        """Let go of one that is over; returns what went wrong, in words, if anything did."""
        assert self._status is not None
        error = in_words(self._status, self._ended_by, self._limit)
        if error is not None and self._output is not None:
            line = self._output.last_line(self._output.trim())
            error = f"{error}: {line}" if line else error
        self.let_go()
        return error

    def let_go(self) -> None:
        """Close what is open for it, also in a forked child."""
        if self._output is not None:
            self._output.close()
