"""The waiting jobs of one queue and one priority, without an object for any.

A slot per job, found by its `seq`, holds where its line is: the offset if it can be claimed, the
negated offset if it waits for its time, 0 if it is not waiting at all. New jobs come in the order
of `seq`, so that a cursor that only moves forward finds the oldest; what becomes claimable behind
the cursor (a retry, a release) goes to a heap.

Entries of the heaps are never removed, they go stale: what a slot says now is the truth, an entry
is only a hint to look there. A waiting entry names the offset it was made for, so that one of an
earlier wait releases nothing early. Whether a job is due depends on nothing but what it says and
the time that is asked for, not on what was asked before: so all processes agree, also after the
clock stepped back.
"""

from __future__ import annotations

import heapq
import math
from array import array
from itertools import chain
from typing import Dict, List, NamedTuple, Optional, Tuple

# A gap in seq costs 8 bytes a job as empty slots; a slot of its own costs about a hundred.
_SPARSE_COST = 12
_SMALL_GAP = 16


class _Wait(NamedTuple):
    """A wait for a time.

    Attributes:
        due: when it is over.
        seq: the job that waits.
        offset: where its line is that says so.
        reach: how far ahead a retry can lie at the most, in seconds; none if that is the horizon of
            all, infinity if it is no retry.
    """

    due: float
    seq: int
    offset: int
    reach: Optional[float]

    def is_due(self, now: float, limit: float) -> bool:
        """Whether it is over: its time has come, or was given by a clock that stepped back.

        Args:
            now: the time.
            limit: the farthest time that a retry without a reach of its own can have.
        """
        farthest = limit if self.reach is None else now + self.reach
        return self.due <= now or self.due > farthest


class Lane:
    """A lane of the queue.

    Attributes:
        base: the seq of the first slot.
        slots: where the lines of the jobs are, from there on.
    """

    def __init__(self) -> None:
        self.base = 0
        self.slots = array("q")
        self._sparse: Dict[int, int] = {}
        self._cursor = 0
        self._behind: List[int] = []
        self._retries: List[_Wait] = []
        self._delayed: List[_Wait] = []
        # No retry lies further ahead than this, and none with a reach of its own waits before that.
        self._farthest = 0.0
        self._earliest = -math.inf
        # What was due when somebody asked, oldest job first.
        self._due: List[Tuple[int, _Wait]] = []

    def put(self, seq: int, offset: int) -> None:
        """Take in a job that can be claimed."""
        self._set(seq, offset)
        if seq < self._cursor:
            heapq.heappush(self._behind, seq)

    def put_waiting(
        self, seq: int, offset: int, due: float, is_retry: bool, reach: Optional[float]
    ) -> None:
        """Take in a job that waits for its time.

        Args:
            seq: the job.
            offset: where its line is.
            due: when it can be claimed.
            is_retry: whether it failed before.
            reach: how far ahead this retry can lie at the most, in seconds; none for the horizon.
        """
        self._set(seq, -offset)
        self._await(_Wait(due, seq, offset, reach if is_retry else math.inf))

    def drop(self, seq: int) -> None:
        """Take a job out, if it is there."""
        at = seq - self.base
        if 0 <= at < len(self.slots):
            self.slots[at] = 0
        elif self._sparse:
            self._sparse.pop(seq, None)

    def pass_by(self, front: int, new_front: int) -> None:
        """Take in that all that could be claimed was, from `front` up to before `new_front`."""
        slots, base = self.slots, self.base
        for at in range(max(front - base, 0), min(new_front - base, len(slots))):
            if slots[at] > 0:
                slots[at] = 0
        if self._sparse:
            passed = range(front, min(new_front, base))
            few = passed if len(passed) < len(self._sparse) else list(self._sparse)
            for seq in few:
                if seq in passed and self._sparse.get(seq, 0) > 0:
                    del self._sparse[seq]
        if self._cursor >= front:
            self._cursor = max(self._cursor, new_front)

    def first(self, now: float, horizon: float) -> Optional[Tuple[int, bool]]:
        """Return the oldest job that can be claimed now, and whether that is whatever the time.

        Args:
            now: the time, in seconds since the epoch.
            horizon: how far ahead a retry can lie at the most, in seconds; one further ahead is
                due, for the clock stepped back.
        """
        limit = now + horizon
        self._collect(now, limit)
        plain = self._first_plain()
        due = self._first_due(now, limit)
        if plain is None:
            return None if due is None else (due, False)
        return (due, False) if due is not None and due < plain else (plain, True)

    def offset(self, seq: int) -> int:
        """Return where the line of a job is that waits here."""
        return abs(self._get(seq))

    def next_due(self) -> Optional[float]:
        """Return when the next job that waits for its time can be claimed."""
        for heap in (self._retries, self._delayed):
            while heap and not self._is_current(heap[0]):
                heapq.heappop(heap)
        return min((heap[0].due for heap in (self._retries, self._delayed) if heap), default=None)

    @property
    def awaits_retry(self) -> bool:
        """Whether a job that failed waits for its time, or is due and was not claimed yet."""
        due = (wait for _, wait in self._due if wait.reach != math.inf)
        return any(self._is_current(wait) for wait in chain(self._retries, due))

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits for a time; whether anybody can be claimed `first` tells."""
        return not (self._retries or self._delayed)

    def _await(self, wait: _Wait) -> None:
        if wait.reach == math.inf:
            heapq.heappush(self._delayed, wait)
            return
        heapq.heappush(self._retries, wait)
        if wait.reach is None:
            self._farthest = max(self._farthest, wait.due)
        else:
            self._earliest = max(self._earliest, wait.due - wait.reach)

    def _collect(self, now: float, limit: float) -> None:
        """Move what is due from the heaps in order of time to the one in order of seq."""
        for heap in (self._delayed, self._retries):
            while heap and heap[0].due <= now:
                wait = heapq.heappop(heap)
                heapq.heappush(self._due, (wait.seq, wait))
        if self._farthest > limit or self._earliest > now:
            # The clock stepped back, or the longest delay was made shorter.
            waits, self._retries = self._retries, []
            self._farthest, self._earliest = 0.0, -math.inf
            for wait in waits:
                if wait.is_due(now, limit):
                    heapq.heappush(self._due, (wait.seq, wait))
                else:
                    self._await(wait)

    def _first_plain(self) -> Optional[int]:
        """Return the seq of the oldest job that can be claimed whatever the time."""
        while self._behind and self._get(self._behind[0]) <= 0:
            heapq.heappop(self._behind)
        if self._behind:
            return self._behind[0]
        slots, at = self.slots, self._cursor - self.base
        while at < len(slots) and slots[at] <= 0:
            at += 1
        self._cursor = self.base + at
        return self._cursor if at < len(slots) else None

    def _first_due(self, now: float, limit: float) -> Optional[int]:
        """Return the oldest of the jobs that are due.

        Those that no longer are, for the clock stepped back, wait again.
        """
        while self._due:
            seq, wait = self._due[0]
            if self._is_current(wait):
                if wait.is_due(now, limit):
                    return seq
                self._await(wait)
            heapq.heappop(self._due)
        return None

    def _is_current(self, wait: _Wait) -> bool:
        return self._get(wait.seq) == -wait.offset

    def _get(self, seq: int) -> int:
        at = seq - self.base
        if 0 <= at < len(self.slots):
            return self.slots[at]
        return self._sparse.get(seq, 0)

    def _set(self, seq: int, value: int) -> None:
        slots = self.slots
        at = seq - self.base
        if 0 <= at < len(slots):
            slots[at] = value
        elif at == len(slots) and slots:
            slots.append(value)
        elif at < 0:
            self._sparse[seq] = value
        else:
            self._stretch(seq)
            self.slots[seq - self.base] = value

    def _stretch(self, seq: int) -> None:
        """Make the slots reach up to `seq`, or begin anew there if the gap is not worth filling."""
        slots = self.slots
        gap = seq - self.base - len(slots)
        if not slots or gap > _SMALL_GAP + _SPARSE_COST * len(slots):
            for at, value in enumerate(slots):
                if value:
                    self._sparse[self.base + at] = value
                if value > 0 and self.base + at >= self._cursor:
                    heapq.heappush(self._behind, self.base + at)
            self.base = self._cursor = seq
            self.slots = array("q", [0])
        else:
            slots.extend(array("q", bytes(8 * (gap + 1))))
