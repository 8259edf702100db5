"""The live jobs in memory, without an object for any: which can be claimed, and when.

A slot per job, found by its `seq`, holds where its line is: the offset if it can be claimed, the
negated offset if it waits for its time, 0 if it is not waiting at all. New jobs come in the order
of `seq`, so that a cursor that only moves forward finds the oldest; what becomes claimable behind
the cursor (a retry, a release) goes to a heap.

Mostly jobs are claimed in the order of `seq`: `front` is how far that has gone, and stands in the
commits, so all processes have the same. A claim in order takes the oldest of all that can be
claimed whatever the time, and moves the front behind it. So who learns that nothing else happened
knows, without reading a line, that of what waited between the old front and the new one all was
claimed.

Entries of the heaps are never removed, they go stale: what a slot says now is the truth, an entry
is only a hint to look there. A waiting entry names the offset it was made for, so that one of an
earlier wait releases nothing early. Whether a job is due depends on nothing but what it says and
the time that is asked for, not on what was asked before: so all processes agree, also after the
clock stepped back.
"""

from __future__ import annotations

import heapq
from array import array
from typing import Dict, List, NamedTuple, Optional, Tuple

from queuectl import clock
from queuectl.job import JobState

_CLAIMABLE = JobState.PENDING.encode()
_RETRYING = JobState.FAILED.encode()

# A gap in seq costs 8 bytes a job as empty slots; a slot of its own costs about a hundred.
_SMALL_GAP = 1 << 16
_SPARSE_COST = 12


class Next(NamedTuple):
    """The job to claim next.

    Attributes:
        offset: where its line is.
        front: the front once it is claimed, if its claim is in order.
    """

    offset: int
    front: Optional[int]


class Index:
    """The waiting jobs of a store.

    Attributes:
        front: the seq up to which jobs were claimed in order, as of the lines that were `put`.
        held: the seq of the job that this process holds; its line is looked out for.
        held_at: the offset of that job's newest line.
    """

    def __init__(self) -> None:
        self.front = 0
        self.held = -1
        self.held_at = 0
        self._base = 0
        self._slots = array("q")
        self._sparse: Dict[int, int] = {}
        self._cursor = 0
        self._behind: List[int] = []
        self._retries: List[Tuple[float, int, int]] = []
        self._delayed: List[Tuple[float, int, int]] = []
        # No retry lies further ahead than this.
        self._farthest = 0.0
        # What was due when somebody asked, oldest job first: seq, due, offset, whether it is a
        # retry.
        self._due: List[Tuple[int, float, int, bool]] = []

    def put(self, seq: int, state: bytes, run_at: Optional[bytes], offset: int) -> None:
        """Take in what the newest line of a job says.

        Args:
            seq: the job's place in the order.
            state: its state; anything but pending and failed means that it is not waiting.
            run_at: the earliest time it may be claimed, as UTC text.
            offset: where the line is.
        """
        if seq == self.held:
            self.held_at = offset
        if state == _CLAIMABLE and run_at is None and seq == self._base + len(self._slots):
            # A new job. A million of them take half the time without a call for each.
            self._slots.append(offset)
            return
        if state == _CLAIMABLE and run_at is None:
            self._set(seq, offset)
            if seq < self._cursor:
                heapq.heappush(self._behind, seq)
        elif state in (_CLAIMABLE, _RETRYING) and run_at is not None:
            self._set(seq, -offset)
            due = clock.from_iso(run_at.decode("ascii"))
            self._await((due, seq, offset), state == _RETRYING)
        else:
            self._set(seq, 0)

    def hold(self, seq: int, offset: int) -> None:
        """Look out for the lines of a job that this process claimed by the line at the offset."""
        self.held = seq
        self.held_at = offset

    def pass_to(self, front: int) -> None:
        """Take in that nothing happened but claims in order, and that they have gone so far."""
        slots, base = self._slots, self._base
        for at in range(max(self.front - base, 0), min(front - base, len(slots))):
            if slots[at] > 0:
                slots[at] = 0
        if self._sparse:
            passed = range(self.front, min(front, base))
            few = passed if len(passed) < len(self._sparse) else list(self._sparse)
            for seq in few:
                if seq in passed and self._sparse.get(seq, 0) > 0:
                    del self._sparse[seq]
        if self._cursor >= self.front:
            self._cursor = max(self._cursor, front)
        self.front = front

    def next(self, now: float, horizon: float) -> Optional[Next]:
        """Return the oldest job that can be claimed now, without taking it.

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
            return None if due is None else Next(due[2], None)
        if due is not None and due[0] < plain:
            return Next(due[2], None)
        return Next(self._get(plain), plain + 1 if plain >= self.front else None)

    def next_due(self) -> Optional[float]:
        """Return when the next job that waits for its time can be claimed."""
        for heap in (self._retries, self._delayed):
            while heap and not self._is_current(heap[0]):
                heapq.heappop(heap)
        return min((heap[0][0] for heap in (self._retries, self._delayed) if heap), default=None)

    def _await(self, entry: Tuple[float, int, int], is_retry: bool) -> None:
        heapq.heappush(self._retries if is_retry else self._delayed, entry)
        if is_retry:
            self._farthest = max(self._farthest, entry[0])

    def _collect(self, now: float, limit: float) -> None:
        """Move what is due from the heaps in order of time to the one in order of seq."""
        for heap in (self._delayed, self._retries):
            while heap and heap[0][0] <= now:
                due, seq, offset = heapq.heappop(heap)
                heapq.heappush(self._due, (seq, due, offset, heap is self._retries))
        if self._farthest > limit:
            # The clock stepped back, or the longest delay was made shorter.
            for due, seq, offset in self._retries:
                if due > limit:
                    heapq.heappush(self._due, (seq, due, offset, True))
            self._retries = [entry for entry in self._retries if entry[0] <= limit]
            heapq.heapify(self._retries)
            self._farthest = max((due for due, _, _ in self._retries), default=0.0)

    def _first_plain(self) -> Optional[int]:
        """Return the seq of the oldest job that can be claimed whatever the time."""
        while self._behind and self._get(self._behind[0]) <= 0:
            heapq.heappop(self._behind)
        if self._behind:
            return self._behind[0]
        slots, at = self._slots, self._cursor - self._base
        while at < len(slots) and slots[at] <= 0:
            at += 1
        self._cursor = self._base + at
        return self._cursor if at < len(slots) else None

    def _first_due(self, now: float, limit: float) -> Optional[Tuple[int, float, int, bool]]:
        """Return the oldest of the jobs that are due.

        Those that no longer are, for the clock stepped back, wait again.
        """
        while self._due:
            seq, due, offset, is_retry = self._due[0]
            if self._get(seq) == -offset:
                if due <= now or (is_retry and due > limit):
                    return self._due[0]
                self._await((due, seq, offset), is_retry)
            heapq.heappop(self._due)
        return None

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
