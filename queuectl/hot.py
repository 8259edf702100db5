"""Which workers are hot: the few that claim at a time, while the others stand by.

Were many to take turns on a few processors, each would find the caches filled with what the others
need, and a short job would cost half as much again. So a worker is hot from its claim until its job
has gone on for a while, and while enough of them are hot others stand by: those that have had
nothing to do, and those that are done with a short job. Who cools lets one in who stands by: the
supervisor is called, which wakes him. Once done with what took long he claims like anybody: he has
a result to save, and one commit does both.

Only speed depends on it. A place is held by the time at which it was taken, which lapses, and who
stands by looks again by himself: so a hot worker that died or was stopped, and a call that was
lost, keep nobody from work for longer than a moment.
"""

from __future__ import annotations

import os
from mmap import mmap
from time import monotonic
from typing import List

from queuectl.capture import above_stdio

_LAPSE = 0.05  # seconds
_STANDS_BY = -1.0
_DOUBLE = 8  # bytes


class Hot:
    """Who is hot and who stands by, in memory shared with the processes that are forked later.

    Args:
        slots: how many workers there are; each has one.
        most: how many of them may be hot at a time.
        lapse: seconds after which a place counts no more that was not taken anew.

    Attributes:
        calls: readable for the supervisor once somebody is to be let in; then call `hear`.
    """

    def __init__(self, slots: int, most: int, lapse: float = _LAPSE) -> None:
        self._most = most
        self._lapse = lapse
        self._places = memoryview(mmap(-1, _DOUBLE * slots)).cast("d")
        self.calls, self._calling = map(above_stdio, os.pipe())
        for end in (self.calls, self._calling):
            os.set_blocking(end, False)

    def enter(self, slot: int) -> bool:
        """Make a worker hot; if enough of the others are, it stands by, which the answer tells.

        Two may find the same place free: to keep them from it would cost more than it gives.
        """
        now = monotonic()
        if len(self._places) > self._most:
            self._places[slot] = _STANDS_BY
            lapsed = now - self._lapse
            if sum(taken > lapsed for taken in self._places.tolist()) >= self._most:
                return False
        self._places[slot] = now
        return True

    def join(self, slot: int) -> None:
        """Make a worker hot, however many are."""
        self._places[slot] = monotonic()

    def stands_by(self, slot: int) -> bool:
        """Whether a worker stands by."""
        return bool(self._places[slot] == _STANDS_BY)

    def leave(self, slot: int) -> None:
        """Take note that a worker is neither: it found no job, so others need not look either."""
        self._places[slot] = 0.0

    def hand_on(self, slot: int) -> None:
        """Take note that a worker is neither, and have one let in who stands by."""
        self._places[slot] = 0.0
        if _STANDS_BY in self._places.tolist():
            try:
                os.write(self._calling, b"c")
            except (BrokenPipeError, BlockingIOError):
                # The supervisor is dead, or has more calls than there can be workers to let in.
                pass

    def hear(self) -> List[int]:
        """Return the slots of those to be woken; to be called by the supervisor."""
        try:
            calls = len(os.read(self.calls, 4096))
        except BlockingIOError:
            return []
        return list(filter(self.stands_by, range(len(self._places))))[:calls]

    def let_go(self) -> None:
        """In a worker: close what is the supervisor's."""
        os.close(self.calls)


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
