"""Asking the queue from a server: in threads, each with a manager of its own.

What is opened of a store is not shared between threads. What counts all jobs has a thread for
itself: its first look is long, and the next ones know what it saw.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional, Tuple, TypeVar

from queuectl.errors import StoreGoneError
from queuectl.manager import QueueManager
from queuectl.metrics import Measures, measure

T = TypeVar("T")

_THREADS = 4
_FRESH = 0.2  # seconds for which what was counted is told again


class Desk:
    """Asks a queue.

    Args:
        url: of its store.

    Attributes:
        is_closing: whether the server ends: whoever follows something is told no more.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.is_closing = False
        self._mine = threading.local()
        self._pool = ThreadPoolExecutor(_THREADS, "ask")
        self._counter = ThreadPoolExecutor(1, "count")
        self._follower = ThreadPoolExecutor(1, "follow")
        self._counted: Optional[Tuple[float, Measures]] = None

    async def ask(self, act: Callable[[QueueManager], T]) -> T:
        """Have something done with the queue."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, act)

    async def follow(self, act: Callable[[QueueManager], T]) -> T:
        """The same for what is done again and again: always with the same manager."""
        return await asyncio.get_running_loop().run_in_executor(self._follower, self._run, act)

    def leave(self, act: Callable[[], None]) -> None:
        """Have something done behind all that `follow` was asked for, without waiting for it."""
        self._follower.submit(act)

    async def measures(self) -> Measures:
        """Return what is told of the queue, as of not long ago."""
        return await asyncio.get_running_loop().run_in_executor(self._counter, self._measure)

    def begin(self) -> None:
        """Count all jobs, so that the first who asks need not wait for that."""
        self._counter.submit(self._measure)

    def _measure(self) -> Measures:
        now = time.monotonic()
        if self._counted is None or now >= self._counted[0] + _FRESH:
            self._counted = (now, self._run(measure))
        return self._counted[1]

    def _run(self, act: Callable[[QueueManager], T]) -> T:
        manager: Optional[QueueManager] = getattr(self._mine, "manager", None)
        if manager is None:
            manager = self._mine.manager = QueueManager.open(self._url, create=False)
        try:
            return act(manager)
        except StoreGoneError:
            # It may be made anew.
            del self._mine.manager
            manager.close()
            raise
