"""The index of waiting jobs, held against a model that looks at every job each time."""

from __future__ import annotations

import sys
from typing import Any, Dict, List, NamedTuple, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl import clock
from queuectl.job import JobState
from queuectl.store.index import Index

NOW = 1_762_707_697.0
HORIZON = 100.0
STATES = (*JobState.ALL, "purged")


class Line(NamedTuple):
    """What the newest line of a job says."""

    state: str
    run_at: Optional[float]
    offset: int


class Model:
    """Every job's newest line, looked through from the oldest on."""

    def __init__(self) -> None:
        self.lines: Dict[int, Line] = {}

    def next(self, now: float) -> Optional[int]:
        """The offset of the oldest job that is due."""
        for _, line in sorted(self.lines.items()):
            if self.is_due(line, now):
                return line.offset
        return None

    def next_due(self, now: float) -> Optional[float]:
        """When the next job falls due that is not due yet."""
        waiting = [
            line.run_at
            for line in self.lines.values()
            if line.run_at is not None
            and line.state in ("pending", "failed")
            and not self.is_due(line, now)
        ]
        return min(waiting, default=None)

    @staticmethod
    def is_due(line: Line, now: float) -> bool:
        if line.state == "pending":
            return line.run_at is None or line.run_at <= now
        if line.state == "failed":
            assert line.run_at is not None
            return line.run_at <= now or line.run_at > now + HORIZON
        return False


class Pair:
    """An index and its model, told the same."""

    def __init__(self) -> None:
        self.index, self.model = Index(), Model()
        self.offset = 100

    def put(self, seq: int, state: str, run_at: Optional[float] = None) -> None:
        """A new line of a job."""
        self.offset += 10
        if state not in ("pending", "failed"):
            run_at = None
        elif state == "failed" and run_at is None:
            run_at = NOW
        text = None if run_at is None else clock.to_iso(run_at).encode()
        self.index.put(seq, state.encode(), text, self.offset)
        self.model.lines[seq] = Line(state, run_at, self.offset)

    def check(self, now: float) -> None:
        """Both say the same at this time."""
        assert self.index.next(now, HORIZON) == self.model.next(now)
        processing = {
            seq: line.offset for seq, line in self.model.lines.items() if line.state == "processing"
        }
        assert self.index.processing == processing
        if self.model.next(now) is None:
            assert self.index.next_due() == self.model.next_due(now)

    def drain(self, now: float) -> List[int]:
        """Claim all that is due, and tell in which order."""
        claimed = []
        while True:
            self.check(now)
            offset = self.index.next(now, HORIZON)
            if offset is None:
                return claimed
            seqs = [seq for seq, line in self.model.lines.items() if line.offset == offset]
            claimed.extend(seqs)
            self.put(seqs[0], "processing")


TIMES = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([-101, -100, 99, 100, 101, 150]),
    st.integers(-300_000, 300_000).map(lambda number: number / 1000),
).map(lambda seconds: clock.from_iso(clock.to_iso(NOW + seconds)))
# Small numbers meet each other; large ones make gaps.
SEQS = st.one_of(st.integers(1, 12), st.integers(1, 200_000))
PUTS = st.tuples(SEQS, st.sampled_from(STATES), st.none() | TIMES)


@settings(max_examples=300)
@given(st.lists(st.one_of(PUTS, TIMES), max_size=60))
def test_it_says_what_a_look_at_every_job_says(steps: List[Any]) -> None:
    """Whatever the order of lines and looks, of jobs and of times."""
    pair = Pair()
    for step in steps:
        if isinstance(step, tuple):
            pair.put(*step)
        else:
            pair.check(step)
    pair.drain(NOW)
    pair.drain(NOW + 1000)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from(STATES), st.none() | TIMES)), TIMES)
def test_jobs_in_the_order_of_enqueueing(steps: List[Any], now: float) -> None:
    """The way a file is read: each job appears after those before it."""
    pair, top = Pair(), 0
    for number, state, run_at in steps:
        top = max(top + 1, number) if number > top else top
        pair.put(min(number, top), state, run_at)
        if state == "dead":
            pair.check(now)
    pair.drain(now)


class TestStaleEntries:
    """An entry of a heap is a hint: what the newest line says is the truth."""

    def test_an_earlier_wait_releases_nothing(self) -> None:
        pair = Pair()
        for run_at in (NOW + 1, NOW + 50, NOW + 9):
            pair.put(1, "failed", run_at)
        assert pair.drain(NOW + 8) == []
        assert pair.index.next_due() == NOW + 9
        assert pair.drain(NOW + 9) == [1]
        assert pair.drain(NOW + 60) == []

    def test_a_job_that_waits_in_another_way_now(self) -> None:
        pair = Pair()
        pair.put(1, "failed", NOW + 1)
        pair.put(1, "pending", NOW + 5)
        assert pair.drain(NOW + 4) == []
        pair.put(1, "failed", NOW + 9)
        assert pair.drain(NOW + 8) == []
        pair.put(1, "pending")
        assert pair.drain(NOW) == [1]

    @pytest.mark.parametrize("state", ["cancelled", "purged", "dead", "completed", "processing"])
    def test_a_job_that_no_longer_waits(self, state: str) -> None:
        pair = Pair()
        for run_at in (NOW + 1, None):
            pair.put(1, "pending", run_at)
            pair.check(NOW + 2)
            pair.put(1, state)
            assert pair.drain(NOW + 2) == []
            assert pair.index.next_due() is None

    def test_looking_takes_nothing(self) -> None:
        pair = Pair()
        pair.put(1, "failed", NOW)
        pair.put(2, "pending")
        for _ in range(3):
            pair.check(NOW)
        assert pair.drain(NOW) == [1, 2]

    def test_a_job_that_comes_back_is_found_behind_the_cursor(self) -> None:
        pair = Pair()
        for seq in range(1, 6):
            pair.put(seq, "pending")
        assert pair.drain(NOW) == [1, 2, 3, 4, 5]
        for seq in (4, 2, 4):
            pair.put(seq, "pending")
        assert pair.drain(NOW) == [2, 4]


class TestGaps:
    """After a rewrite the numbers of the jobs that are left have gaps."""

    def test_one_job_far_ahead(self) -> None:
        pair = Pair()
        pair.put(3, "pending")
        pair.put(5, "pending", NOW + 1)
        pair.put(2_000_000_000, "pending")
        pair.put(2_000_000_001, "failed", NOW + 1)
        pair.put(4_000_000_000, "pending")
        assert size(pair.index) < 2_000_000
        assert pair.drain(NOW) == [3, 2_000_000_000, 4_000_000_000]
        assert pair.drain(NOW + 1) == [5, 2_000_000_001]
        pair.put(3, "pending")
        pair.put(2_000_000_000, "failed", NOW + 2)
        assert pair.drain(NOW + 2) == [3, 2_000_000_000]

    def test_what_is_finished_before_the_first_that_waits_costs_nothing(self) -> None:
        index = Index()
        for seq in range(1, 100_000):
            index.put(seq, b"completed", None, seq * 300)
        assert size(index) < 10_000
        index.put(100_000, b"pending", None, 1)
        assert index.next(NOW, HORIZON) == 1


@pytest.mark.slow
def test_a_million_jobs_take_less_than_20_bytes_each() -> None:
    index, number = Index(), 1_000_000
    for seq in range(1, number + 1):
        index.put(seq, b"pending", None, seq * 300)
    assert size(index) < 20 * number
    for seq in range(1, 1001):
        assert index.next(NOW, HORIZON) == seq * 300
        index.put(seq, b"processing", None, seq)
        index.put(seq, b"completed", None, seq)
    assert size(index) < 20 * number


def size(index: Index) -> int:
    """How many bytes an index takes, with all that is in it."""
    total = 0
    for part in vars(index).values():
        total += sys.getsizeof(part)
        if isinstance(part, dict):
            total += sum(map(sys.getsizeof, part.values()))
        elif isinstance(part, list):
            total += sum(map(sys.getsizeof, part))
    return total
