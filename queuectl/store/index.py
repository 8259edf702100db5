"""Which waiting jobs can be claimed, and which later: the live jobs in memory, without an object for any of them.

A slot per job, found by its `seq`, holds where its line is: the offset if it can be claimed, the negated offset if
it waits for its time, 0 if it is not waiting at all. New jobs come in the order of `seq`, so that a cursor that only
moves forward finds the oldest; what becomes claimable behind the cursor (a retry, a release) goes to a heap.

Entries of the heaps are never removed, they go stale: what a slot says now is the truth, an entry is only a hint to
look there. A waiting entry names the offset it was made for, so that one of an earlier wait releases nothing early.
"""

from __future__ import annotations

import heapq
from array import array
from typing import Dict, List, Optional, Tuple

from queuectl import clock
from queuectl.job import JobState

_CLAIMABLE = JobState.PENDING.encode()
_PROCESSING = JobState.PROCESSING.encode()
_RETRYING = JobState.FAILED.encode()

# A gap in seq costs 8 bytes a job as empty slots; a slot of its own costs about a hundred.
_SMALL_GAP = 1 << 16
_SPARSE_COST = 12


class Index:
    """The waiting and the running jobs of a store.

    Attributes:
        processing: the offset of each running job's line, by seq.
    """

    def __init__(self) -> None:
        self.processing: Dict[int, int] = {}
        self._base = 0
        self._slots = array("q")
        self._sparse: Dict[int, int] = {}
        self._cursor = 0
        self._behind: List[int] = []
        self._retries: List[Tuple[float, int, int]] = []
        self._delayed: List[Tuple[float, int, int]] = []

    def put(self, seq: int, state: bytes, run_at: Optional[bytes], offset: int) -> None:
        """Take in what the newest line of a job says.

        Args:
            seq: the job's place in the order.
            state: its state; anything but pending, failed and processing means that it needs no worker.
            run_at: the earliest time it may be claimed, as UTC text.
            offset: where the line is.
        """
        if state == _PROCESSING:
            self.processing[seq] = offset
            self._set(seq, 0)
            return
        if self.processing:
            self.processing.pop(seq, None)
        if state == _CLAIMABLE and run_at is None:
            self._set(seq, offset)
            if seq < self._cursor:
                heapq.heappush(self._behind, seq)
        elif state in (_CLAIMABLE, _RETRYING) and run_at is not None:
            self._set(seq, -offset)
            heap = self._retries if state == _RETRYING else self._delayed
            heapq.heappush(heap, (clock.from_iso(run_at.decode("ascii")), seq, offset))
        else:
            self._set(seq, 0)

    def next(self, now: float, horizon: float) -> Optional[int]:
        """Return the offset of the oldest job that can be claimed now, without taking it.

        Args:
            now: the time, in seconds since the epoch.
            horizon: how far ahead a retry can lie at the most, in seconds; one further ahead is due, for the clock
                stepped back.
        """
        self._release_due(self._delayed, now)
        self._release_due(self._retries, now)
        self._release_beyond(now + horizon)
        while self._behind and self._get(self._behind[0]) <= 0:
            heapq.heappop(self._behind)
        if self._behind:
            return self._get(self._behind[0])
        slots, at = self._slots, self._cursor - self._base
        while at < len(slots) and slots[at] <= 0:
            at += 1
        self._cursor = self._base + at
        return slots[at] if at < len(slots) else None

    def next_due(self) -> Optional[float]:
        """Return when the next job that waits for its time can be claimed."""
        for heap in (self._retries, self._delayed):
            while heap and not self._is_current(heap[0]):
                heapq.heappop(heap)
        return min((heap[0][0] for heap in (self._retries, self._delayed) if heap), default=None)

    def _release_due(self, heap: List[Tuple[float, int, int]], now: float) -> None:
        while heap and heap[0][0] <= now:
            self._release(heapq.heappop(heap))

    def _release_beyond(self, limit: float) -> None:
        # The heap's first is its earliest: if even that lies beyond the limit, all do.
        heap = self._retries
        while heap and (heap[0][0] > limit or not self._is_current(heap[0])):
            self._release(heapq.heappop(heap))

    def _release(self, entry: Tuple[float, int, int]) -> None:
        if self._is_current(entry):
            _, seq, offset = entry
            self._set(seq, offset)
            if seq < self._cursor:
                heapq.heappush(self._behind, seq)

    def _is_current(self, entry: Tuple[float, int, int]) -> bool:
        return self._get(entry[1]) == -entry[2]

    def _get(self, seq: int) -> int:
        at = seq - self._base
        if 0 <= at < len(self._slots):
            return self._slots[at]
        return self._sparse.get(seq, 0)

    def _set(self, seq: int, value: int) -> None:
        slots = self._slots
        at = seq - self._base
        if 0 <= at < len(slots):
            slots[at] = value
        elif at == len(slots) and slots:
            slots.append(value)
        elif value == 0 and at >= len(slots):
            pass
        elif at < 0:
            if value:
                self._sparse[seq] = value
            else:
                self._sparse.pop(seq, None)
        else:
            self._stretch(seq)
            self._slots[seq - self._base] = value

    def _stretch(self, seq: int) -> None:
        """Make the slots reach up to `seq`, or begin anew there if the gap is not worth filling."""
        slots = self._slots
        gap = seq - self._base - len(slots)
        if not slots or gap > _SMALL_GAP + _SPARSE_COST * len(slots):
            for at, value in enumerate(slots):
                if value:
                    self._sparse[self._base + at] = value
                if value > 0 and self._base + at >= self._cursor:
                    heapq.heappush(self._behind, self._base + at)
            self._base = self._cursor = seq
            self._slots = array("q", [0])
        else:
            slots.extend(array("q", bytes(8 * (gap + 1))))
