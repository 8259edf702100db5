"""The index of waiting jobs, held against a model that looks at every job each time."""

from __future__ import annotations

import random
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl import clock
from queuectl.job import JobState
from queuectl.store.index import Index, Next

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
        assert offset_of(self.index.next(now, HORIZON)) == self.model.next(now)
        if self.model.next(now) is None:
            assert self.index.next_due() == self.model.next_due(now)

    def drain(self, now: float) -> List[int]:
        """Claim all that is due, and tell in which order."""
        claimed = []
        while True:
            self.check(now)
            chosen = self.index.next(now, HORIZON)
            if chosen is None:
                return claimed
            seqs = [seq for seq, line in self.model.lines.items() if line.offset == chosen.offset]
            claimed.extend(seqs)
            self.put(seqs[0], "processing")
            self.index.front = chosen.front or self.index.front


def offset_of(chosen: Optional[Next]) -> Optional[int]:
    return None if chosen is None else chosen.offset


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


class Commit(NamedTuple):
    """Lines, and the front after them if they need not be read."""

    lines: List[Tuple[int, Line]]
    front: Optional[int]


class Crowd:
    """Several indexes that follow one series of commits, each at its own pace, and a model."""

    def __init__(self, number: int) -> None:
        self.commits: List[Commit] = []
        self.model = Model()
        self.front, self.top, self.offset = 0, 0, 0
        self.members = [(Index(), 0) for _ in range(number)]

    def act(self, member: int, action: str, seq: int, run_at: Optional[float]) -> None:
        """Let one of them do something, having read all that was committed."""
        if action == "rejoin":
            # As after a rewrite: only the lines of jobs that are not over are left.
            self.members[member] = (Index(), -1)
        index = self.catch_up(member)
        if action == "follow":
            return
        assert offset_of(index.next(NOW, HORIZON)) == self.model.next(NOW)
        if action == "enqueue":
            self.top += 1
            self.commit(self.top, "pending", run_at)
        elif action == "claim":
            chosen = index.next(NOW, HORIZON)
            if chosen is not None:
                seqs = [s for s, line in self.model.lines.items() if line.offset == chosen.offset]
                self.commit(seqs[0], "processing", None, chosen.front)
        elif action in STATES and seq <= self.top:
            self.commit(seq, action, run_at)

    def commit(
        self, seq: int, state: str, run_at: Optional[float], front: Optional[int] = None
    ) -> None:
        self.offset += 10
        if state not in ("pending", "failed"):
            run_at = None
        elif state == "failed" and run_at is None:
            run_at = NOW
        self.front = self.front if front is None else front
        line = Line(state, run_at, self.offset)
        self.model.lines[seq] = line
        self.commits.append(Commit([(seq, line)], front))

    def catch_up(self, member: int) -> Index:
        index, read = self.members[member]
        unread = self.commits[max(read, 0) :]
        if read < 0:
            live = [item for item in self.model.lines.items() if item[1].state not in FINAL]
            unread = [Commit(sorted(live), None)]
        if all(commit.front is not None for commit in unread):
            index.pass_to(self.front)
        else:
            for commit in unread:
                for seq, line in commit.lines:
                    text = None if line.run_at is None else clock.to_iso(line.run_at).encode()
                    index.put(seq, line.state.encode(), text, line.offset)
            index.front = self.front
        self.members[member] = (index, len(self.commits))
        return index


FINAL = ("completed", "cancelled", "purged")
PUT_BACK = ("pending", "pending", "failed", "cancelled", "dead", "completed")


@pytest.mark.parametrize("gaps", ["filled", "not filled"])
def test_who_reads_no_claims_in_order_sees_the_same(
    monkeypatch: pytest.MonkeyPatch, gaps: str
) -> None:
    if gaps == "not filled":
        monkeypatch.setattr("queuectl.store.lane._SMALL_GAP", 0)
        monkeypatch.setattr("queuectl.store.lane._SPARSE_COST", 0)
    for seed in range(1500):
        dice = random.Random(seed)
        crowd, actions = Crowd(3), []
        for _ in range(dice.randrange(10, 40)):
            kinds = ("enqueue", "claim", "put", "follow", "rejoin")
            kind = dice.choices(kinds, (5, 5, 3, 2, 1))[0]
            action = (
                dice.randrange(3),
                dice.choice(PUT_BACK) if kind == "put" else kind,
                dice.randint(1, max(crowd.top, 1)),
                dice.choice((None, None, None, NOW - 1, NOW + 1)),
            )
            actions.append(action)
            try:
                crowd.act(*action)
            except AssertionError as error:
                raise AssertionError(f"after {actions}") from error
        for member in range(3):
            index = crowd.catch_up(member)
            assert offset_of(index.next(NOW + 10, HORIZON)) == crowd.model.next(NOW + 10), actions


def test_the_held_job_is_looked_out_for_wherever_its_slot_would_be() -> None:
    index = Index()
    index.put(4, b"pending", None, 100)
    index.held = 5
    for offset, state in ((200, b"processing"), (300, b"pending"), (400, b"completed")):
        index.put(5, state, None, offset)
        assert index.held_at == offset


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
        assert offset_of(index.next(NOW, HORIZON)) == 1


@pytest.mark.slow
def test_a_million_jobs_take_less_than_20_bytes_each() -> None:
    index, number = Index(), 1_000_000
    for seq in range(1, number + 1):
        index.put(seq, b"pending", None, seq * 300)
    assert size(index) < 20 * number
    for seq in range(1, 1001):
        assert index.next(NOW, HORIZON) == (seq * 300, seq + 1)
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
