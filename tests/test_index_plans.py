"""The index with queues, priorities and parents, held against a look at every job each time.

Three indexes follow one series of commits, each at its own pace: what is only claims in order they
do not read. Whatever any of them did, all must say the same as the model.
"""

from __future__ import annotations

import random
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

import pytest

from queuectl import clock
from queuectl.store.head import Plan
from queuectl.store.index import Index, Next
from test_index import HORIZON, NOW, offset_of

USUAL = Plan("default", 0, None, 0, ())
OVER = ("completed", "dead", "cancelled")
GONE = ("completed", "purged")
QUEUES = ("default", "q", "r")
MEMBERS = 3


class Line(NamedTuple):
    """What the newest line of a job says."""

    state: str
    run_at: Optional[float]
    offset: int
    plan: Plan

    @property
    def waits(self) -> bool:
        return self.state in ("pending", "failed")

    def is_due(self, now: float) -> bool:
        if self.run_at is None:
            return True
        reach = HORIZON if self.plan.reach is None else self.plan.reach
        return self.run_at <= now or (self.state == "failed" and self.run_at > now + reach)


class Look(NamedTuple):
    """A question: what can be claimed from which queues, and when."""

    now: float
    queues: Optional[Collection[str]]
    closed: Collection[str]


class Model:
    """Every job's newest line."""

    def __init__(self) -> None:
        self.lines: Dict[int, Line] = {}

    def next(self, look: Look) -> Optional[int]:
        """The offset of the job that comes next."""
        due = [item for item in self._open(look) if item[1].is_due(look.now)]
        first = min(due, key=lambda item: (-item[1].plan.priority, item[0]), default=None)
        return None if first is None else first[1].offset

    def next_due(self, look: Look) -> Optional[float]:
        """When the next falls due that is not due yet."""
        waiting = (line for _, line in self._open(look) if not line.is_due(look.now))
        return min((line.run_at for line in waiting if line.run_at is not None), default=None)

    def awaits_retry(self, look: Look) -> bool:
        return any(line.state == "failed" for _, line in self._open(look))

    def _open(self, look: Look) -> List[Tuple[int, Line]]:
        return [
            (seq, line)
            for seq, line in self.lines.items()
            if line.waits
            and line.plan.queue not in look.closed
            and (look.queues is None or line.plan.queue in look.queues)
            and not any(map(self._keeps, line.plan.parents))
        ]

    def _keeps(self, parent: int) -> bool:
        line = self.lines.get(abs(parent))
        if line is None or line.state in GONE:
            return False
        return parent > 0 or line.state not in OVER


class Crowd:
    """The indexes, the commits that they follow, and the model."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.model = Model()
        self.said: List[Any] = []
        self._commits: List[Tuple[Dict[int, Line], Optional[int]]] = []
        self._members = [(Index(), 0) for _ in range(MEMBERS)]
        self._front, self._offset, self._clock = 0, 0, NOW

    def act(self) -> None:
        """Let one of them do something, having read all that was committed."""
        dice = self.dice
        member = dice.randrange(MEMBERS)
        acts = {self.enqueue: 6, self.claim: 9, self.change: 4, self.edit: 1, self.look: 1}
        if dice.random() < 0.05:
            self._members[member] = (Index(), -1)
        act = dice.choices(list(acts), list(acts.values()))[0]
        self.said.append((member, act.__name__))
        act(self.catch_up(member))

    def look(self, index: Index) -> Optional[Next]:
        """Ask it what comes next; it must say what the model says."""
        dice = self.dice
        if dice.random() < 0.1:
            self._clock = NOW + dice.choice((-HORIZON - 5, -1, 0, 0, 2))
        queues = dice.choice((None, None, None, ["default"], ["q", "r"], ["r"], []))
        look = Look(self._clock, queues, dice.choice(((), (), (), ("default",), ("q",))))
        self.said.append(look)
        chosen = index.next(look.now, HORIZON, look.queues, look.closed)
        assert offset_of(chosen) == self.model.next(look)
        if chosen is None:
            assert index.next_due(look.queues, look.closed) == self.model.next_due(look)
        assert index.awaits_retry(look.queues, look.closed) == self.model.awaits_retry(look)
        return chosen

    def enqueue(self, index: Index) -> None:
        """A batch, which may wait for what is there or for each other."""
        dice, lines = self.dice, dict(self.model.lines)
        first, number = max(lines, default=0) + 1, dice.choice((1, 1, 1, 3))
        written: Dict[int, Line] = {}
        for seq in range(first, first + number):
            written[seq] = self.new_line("pending", self.some_time(), self.some_plan())
        for seq in range(first, first + number):
            if dice.random() < 0.5:
                continue
            known = [*range(max(1, first - 9), first + number)]
            chosen = [other for other in dice.sample(known, min(len(known), 2)) if other != seq]
            parents = []
            for other in chosen:
                line = {**lines, **written}.get(other)
                if line is not None and line.state not in GONE:
                    parents.append(dice.choice((other, -other)))
                    count = line.plan.dependents + 1
                    plan = line.plan._replace(dependents=count)
                    written[other] = self.new_line(line.state, line.run_at, plan)
            line = written[seq]
            plan = line.plan._replace(parents=tuple(parents))
            written[seq] = self.new_line(line.state, line.run_at, plan)
        self.commit(written)

    def claim(self, index: Index) -> None:
        """End what runs, maybe, and claim the next, in one commit."""
        running = [seq for seq, line in self.model.lines.items() if line.state == "processing"]
        written: Dict[int, Line] = {}
        front: Optional[int] = index.front
        if running and self.dice.random() < 0.7:
            seq = self.dice.choice(running)
            state = self.dice.choice(("completed", "completed", "dead", "failed", "pending"))
            written[seq] = self.next_line(seq, state)
            if written[seq].waits or written[seq].plan.dependents:
                front = None
        chosen = self.look(index)
        if chosen is not None:
            (claimed,) = (s for s, ln in self.model.lines.items() if ln.offset == chosen.offset)
            written[claimed] = self.next_line(claimed, "processing")
            front = None if front is None else chosen.front
        if written:
            self.commit(written, front)

    def change(self, index: Index) -> None:
        """Anybody may cancel, retry, give up or remove what is there."""
        if self.model.lines:
            seqs = self.dice.sample(sorted(self.model.lines), min(len(self.model.lines), 2))
            states = ("pending", "failed", "cancelled", "dead", "completed", "purged")
            self.commit(
                {
                    seq: self.next_line(seq, self.dice.choice(states))
                    for seq in seqs
                    if self.model.lines[seq].state not in GONE
                }
            )

    def edit(self, index: Index) -> None:
        """Move what waits, or is dead, elsewhere."""
        waiting = [s for s, ln in self.model.lines.items() if ln.waits or ln.state == "dead"]
        if waiting:
            seq = self.dice.choice(waiting)
            line, place = self.model.lines[seq], self.some_plan()
            plan = line.plan._replace(queue=place.queue, priority=place.priority)
            self.commit({seq: self.new_line(line.state, line.run_at, plan)})

    def next_line(self, seq: int, state: str) -> Line:
        run_at = self.some_time() if state == "pending" else None
        if state == "failed":
            run_at = self.some_time() or NOW
        return self.new_line(state, run_at, self.model.lines[seq].plan)

    def new_line(self, state: str, run_at: Optional[float], plan: Plan) -> Line:
        self._offset += 10
        return Line(state, run_at, self._offset, plan)

    def some_time(self) -> Optional[float]:
        return self.dice.choice((None, None, None, None, NOW - 1, NOW + 1, NOW + 50, NOW + HORIZON))

    def some_plan(self) -> Plan:
        queue = self.dice.choice(("default", "default", "default", "q", "r"))
        reach = self.dice.choice((None, None, None, 20.0, 3 * HORIZON))
        return Plan(queue, self.dice.choice((0, 0, 0, 0, 7, -7)), reach, 0, ())

    def commit(self, lines: Dict[int, Line], front: Optional[int] = None) -> None:
        """What `JobFile.append` notes."""
        self.said.append((lines, front))
        self._front = self._front if front is None else front
        self.model.lines.update(lines)
        self._commits.append((lines, front))

    def catch_up(self, member: int) -> Index:
        """What `JobFile` does with what was committed since."""
        index, read = self._members[member]
        unread = self._commits[max(read, 0) :]
        if read < 0:
            # After a rewrite.
            lines = self.model.lines.items()
            unread = [({seq: line for seq, line in lines if line.state not in GONE}, None)]
        if all(front is not None for _, front in unread):
            index.pass_to(self._front)
        else:
            for lines, _ in unread:
                for seq in sorted(lines) if read < 0 else lines:
                    put(index, seq, lines[seq])
            index.front = self._front
        self._members[member] = (index, len(self._commits))
        return index


def put(index: Index, seq: int, line: Line) -> None:
    text = None if line.run_at is None or not line.waits else clock.to_iso(line.run_at).encode()
    plan = None if line.plan == USUAL else line.plan
    index.put(seq, line.state.encode(), text, line.offset, plan)


@pytest.mark.parametrize("part", range(4))
def test_whoever_asks_hears_what_a_look_at_every_job_says(part: int) -> None:
    for seed in range(part * 500, part * 500 + 500):
        crowd = Crowd(random.Random(seed))
        try:
            for _ in range(crowd.dice.randrange(10, 60)):
                crowd.act()
            for member in range(MEMBERS):
                index = crowd.catch_up(member)
                for _ in range(3):
                    crowd.look(index)
        except Exception as error:
            error.args = (f"seed {seed}, after {crowd.said}: {error}",)
            raise
