"""Sleeping until a signal, a descriptor or the time says so: no polling, and no wake-up is lost."""

from __future__ import annotations

import os
import select
import signal
from typing import List


class Waiter:
    """Sleeps until a signal comes, a descriptor is readable or time is up; in the main thread only.

    SIGCHLD gets a handler, which does nothing: without one in Python it wakes nobody, and if a
    parent left it ignored the kernel would not keep the status of children.
    """

    def __init__(self) -> None:
        self._waking, self._written = os.pipe()
        os.set_blocking(self._waking, False)
        os.set_blocking(self._written, False)
        self._fds = {self._waking}
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(self._waking, select.POLLIN)
        self._old_handler = signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        self._old_fd = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)

    def register(self, fd: int) -> None:
        """Wake up for `fd` too; one that stays readable, or is at its end, keeps `wait` awake."""
        self._fds.add(fd)
        if self._poll is not None:
            self._poll.register(fd, select.POLLIN)

    def unregister(self, fd: int) -> None:
        """Forget a registered descriptor."""
        self._fds.remove(fd)
        if self._poll is not None:
            self._poll.unregister(fd)

    def wait(self, seconds: float) -> List[int]:
        """Wait at most so many seconds; returns which registered descriptors are readable."""
        seconds = min(max(seconds, 0.0), 86400.0)
        if self._poll is not None:
            ready = [fd for fd, _ in self._poll.poll(seconds * 1000)]
        else:
            ready = select.select(self._fds, [], [], seconds)[0]
        if self._waking in ready:
            os.read(self._waking, 4096)
            ready.remove(self._waking)
        return ready

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        signal.set_wakeup_fd(self._old_fd)
        signal.signal(signal.SIGCHLD, self._old_handler or signal.SIG_DFL)
        os.close(self._waking)
        os.close(self._written)
