"""What became of jobs in the last hour, minute by minute, for as long as the server has looked.

It is told by the totals of the store, which are looked at again and again: what they grew by
between two looks belongs to the minute of the second. Nothing is kept on a disk; who starts the
server anew begins with an empty hour, and since when it knows is told with it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Dict, Mapping, Optional

from queuectl import clock
from queuectl.errors import QueueError
from queuectl.web.desk import Desk

MINUTES = 60
_PAUSE = 5.0  # seconds between two looks
_COUNTED = ("completed", "failed")


class History:
    """How often jobs completed and attempts failed, in each of the last sixty minutes."""

    def __init__(self) -> None:
        self._since: Optional[float] = None
        self._before: Mapping[str, int] = {}
        self._minutes: Dict[int, Dict[str, int]] = {}

    async def watch(self, desk: Desk) -> None:
        """Look at the totals until this is cancelled."""
        while True:
            try:
                await self.look(desk)
            except QueueError:
                # Whoever asks for something else is told. Here the next look makes up for this one.
                pass
            await asyncio.sleep(_PAUSE)

    async def look(self, desk: Desk) -> None:
        """Look at the totals once more; raises QueueError where nothing can be seen of them."""
        told = await desk.measures()
        self.add(clock.now(), told.totals)

    def add(self, now: float, totals: Mapping[str, int]) -> None:
        """Take in the totals of a store.

        Args:
            now: the time, in seconds since the epoch.
            totals: as they are now; if one is less than it was, the store was made anew.
        """
        grown = {name: totals.get(name, 0) - self._before.get(name, 0) for name in _COUNTED}
        if self._since is None:
            self._since = now
        elif min(grown.values()) >= 0:
            minute = self._minutes.setdefault(int(now // 60), dict.fromkeys(_COUNTED, 0))
            for name, by in grown.items():
                minute[name] += by
        self._before = {name: totals.get(name, 0) for name in _COUNTED}
        for old in [number for number in self._minutes if number <= now // 60 - MINUTES]:
            del self._minutes[old]

    def told(self, now: float) -> Dict[str, Any]:
        """Tell of the last sixty minutes, the oldest first, the last of them the current one."""
        last = int(now // 60)
        none = dict.fromkeys(_COUNTED, 0)
        minutes = [
            {"at": clock.to_iso(number * 60), **self._minutes.get(number, none)}
            for number in range(last - MINUTES + 1, last + 1)
        ]
        return {
            "since": clock.to_iso(now if self._since is None else self._since),
            "minutes": minutes,
        }
