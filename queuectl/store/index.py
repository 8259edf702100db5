"""The live jobs in memory, without an object for most: which can be claimed, and when.

Each queue has a lane for each priority that waits in it (see `lane`). Of the lanes that may be
claimed from, the highest priority comes first, then the oldest job, whichever queue that is in.

Mostly jobs are claimed from the lane of the usual queue and priority, in the order of `seq`:
`front` is how far that has gone, and stands in the commits, so all processes have the same. A claim
in order takes the oldest of that lane that can be claimed whatever the time, and moves the front
behind it. So who learns that nothing else happened knows, without reading a line, that of what
waited there between the old front and the new one all was claimed.

A job with parents is in no lane while one of them keeps it: one that must complete before it and
has not, or one that must end and has not. Of the parents the states are known that are not
completed; one of which nothing is known completed, or ended and was purged. Everything is taken in
commit by commit, so nobody asks while a child is known and its parent is not.
"""

from __future__ import annotations

from typing import Collection, Dict, Iterator, NamedTuple, Optional, Set, Tuple

from queuectl import clock
from queuectl.job import OVER, JobState
from queuectl.store.head import Plan
from queuectl.store.lane import Lane
from queuectl.store.record import PURGED
from queuectl.values import DEFAULT_QUEUE

_CLAIMABLE = JobState.PENDING.encode()
_RETRYING = JobState.FAILED.encode()
_WAITING = (_CLAIMABLE, _RETRYING)
_COMPLETED = JobState.COMPLETED.encode()
_OVER = frozenset(state.encode() for state in OVER)
_PURGED = PURGED.encode()


class Next(NamedTuple):
    """The job to claim next.

    Attributes:
        offset: where its line is.
        front: the front once it is claimed, if its claim is in order.
    """

    offset: int
    front: Optional[int]


class _Line(NamedTuple):
    """What the newest line of a job that waits says."""

    state: bytes
    run_at: Optional[bytes]
    offset: int
    plan: Plan


_USUAL = Plan(DEFAULT_QUEUE, 0, None, 0, ())


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
        # No job that ever had a plan is newer: the lines of others tell of the usual lane alone.
        self._newest = -1
        self._usual = Lane()
        # By queue, the lanes by priority, the highest first.
        self._queues: Dict[str, Dict[int, Lane]] = {DEFAULT_QUEUE: {0: self._usual}}
        self._children: Dict[int, Set[int]] = {}
        self._bound: Dict[int, _Line] = {}
        self._parents: Dict[int, bytes] = {}

    def put(
        self,
        seq: int,
        state: bytes,
        run_at: Optional[bytes],
        offset: int,
        plan: Optional[Plan] = None,
    ) -> None:
        """Take in what the newest line of a job says.

        Args:
            seq: the job's place in the order.
            state: its state; anything but pending and failed means that it is not waiting.
            run_at: the earliest time it may be claimed, as UTC text.
            offset: where the line is.
            plan: what else scheduling needs, if the job is not as most are.
        """
        if seq == self.held:
            self.held_at = offset
        usual = self._usual
        if plan is not None:
            self._put_planned(seq, _Line(state, run_at, offset, plan))
        elif seq <= self._newest:
            self._put_planned(seq, _Line(state, run_at, offset, _USUAL))
        elif state == _CLAIMABLE and run_at is None and seq == usual.base + len(usual.slots):
            # A new job. A million of them take half the time without a call for each.
            usual.slots.append(offset)
        elif state in _WAITING:
            _place(usual, seq, _Line(state, run_at, offset, _USUAL))
        else:
            usual.drop(seq)

    def hold(self, seq: int, offset: int) -> None:
        """Look out for the lines of a job that this process claimed by the line at the offset."""
        self.held = seq
        self.held_at = offset

    def pass_to(self, front: int) -> None:
        """Take in that nothing happened but claims in order, and that they have gone so far."""
        self._usual.pass_by(self.front, front)
        self.front = front

    def next(
        self,
        now: float,
        horizon: float,
        queues: Optional[Collection[str]] = None,
        closed: Collection[str] = (),
    ) -> Optional[Next]:
        """Return the job that is to be claimed next, without taking it.

        Args:
            now: the time, in seconds since the epoch.
            horizon: how far ahead a retry can lie at the most, in seconds; one further ahead is
                due, for the clock stepped back.
            queues: from which queues; none for all.
            closed: from which queues not.
        """
        best: Optional[Tuple[int, int, Lane, bool]] = None
        for lanes in self._open(queues, closed):
            for priority in tuple(lanes):
                if best is not None and -priority > best[0]:
                    break
                lane = lanes[priority]
                found = lane.first(now, horizon)
                if found is None:
                    if lane.is_empty and lane is not self._usual:
                        del lanes[priority]
                    continue
                if best is None or (-priority, found[0]) < best[:2]:
                    best = (-priority, found[0], lane, found[1])
                break
        if best is None:
            return None
        _, seq, lane, is_plain = best
        # Whoever waited for others is looked out for: all must read that it was claimed.
        is_in_order = (
            is_plain and lane is self._usual and seq >= self.front and seq not in self._bound
        )
        return Next(lane.offset(seq), seq + 1 if is_in_order else None)

    def oldest(self, now: float, horizon: float) -> Optional[int]:
        """Return where the line of the job is that was enqueued first, of all that can be claimed.

        Args:
            now: as for `next`, and so is `horizon`.
            horizon: see there.
        """
        found = ((lane.first(now, horizon), lane) for lane in self._lanes())
        firsts = [(first[0], lane.offset(first[0])) for first, lane in found if first is not None]
        return min(firsts)[1] if firsts else None

    def next_due(
        self, queues: Optional[Collection[str]] = None, closed: Collection[str] = ()
    ) -> Optional[float]:
        """Return when the next job that waits for its time can be claimed."""
        dues = [lane.next_due() for lanes in self._open(queues, closed) for lane in lanes.values()]
        return min((due for due in dues if due is not None), default=None)

    def awaits_retry(
        self, queues: Optional[Collection[str]] = None, closed: Collection[str] = ()
    ) -> bool:
        """Tell whether a job that failed waits there for nothing but its time and its turn."""
        return any(
            lane.awaits_retry for lanes in self._open(queues, closed) for lane in lanes.values()
        )

    def _open(
        self, queues: Optional[Collection[str]], closed: Collection[str]
    ) -> Collection[Dict[int, Lane]]:
        if queues is None and not closed:
            return self._queues.values()
        return [
            lanes
            for queue, lanes in self._queues.items()
            if queue not in closed and (queues is None or queue in queues)
        ]

    def _put_planned(self, seq: int, line: _Line) -> None:
        plan = line.plan
        waits = line.state in _WAITING
        if plan.dependents:
            self._note_parent(seq, line.state)
        if seq in self._bound:
            self._unbind(seq)
        lane = self._lane(plan) if waits else self._find_lane(plan)
        if waits:
            # It may have been moved here.
            for other in self._lanes() if seq <= self._newest else (self._usual,):
                if other is not lane:
                    other.drop(seq)
        self._newest = max(self._newest, seq)
        if lane is None:
            return
        if waits and plan.parents:
            self._bound[seq] = line
            for parent in plan.parents:
                self._children.setdefault(abs(parent), set()).add(seq)
            if self._is_kept(line):
                lane.drop(seq)
                return
        _place(lane, seq, line)

    def _note_parent(self, seq: int, state: bytes) -> None:
        """Take in what became of a job for which others wait."""
        if state in (_COMPLETED, _PURGED):
            self._parents.pop(seq, None)
        else:
            self._parents[seq] = state
        for child in self._children.get(seq, ()):
            line = self._bound[child]
            lane = self._lane(line.plan)
            if self._is_kept(line):
                lane.drop(child)
            else:
                _place(lane, child, line)

    def _is_kept(self, line: _Line) -> bool:
        """Whether one of its parents keeps a job from being claimed."""
        for parent in line.plan.parents:
            state = self._parents.get(abs(parent))
            if state is not None and (parent > 0 or state not in _OVER):
                return True
        return False

    def _unbind(self, seq: int) -> None:
        # One may be there twice: as one that must complete, and as one that must end.
        for parent in set(map(abs, self._bound.pop(seq).plan.parents)):
            children = self._children[parent]
            children.discard(seq)
            if not children:
                del self._children[parent]

    def _lanes(self) -> Iterator[Lane]:
        for lanes in self._queues.values():
            yield from lanes.values()

    def _find_lane(self, plan: Plan) -> Optional[Lane]:
        return self._queues.get(plan.queue, {}).get(plan.priority)

    def _lane(self, plan: Plan) -> Lane:
        """The lane of a job; made if there is none."""
        lanes = self._queues.setdefault(plan.queue, {})
        lane = lanes.get(plan.priority)
        if lane is None:
            lane = lanes[plan.priority] = Lane()
            for priority in sorted(lanes, reverse=True):
                lanes[priority] = lanes.pop(priority)
        return lane


def _place(lane: Lane, seq: int, line: _Line) -> None:
    """Put a job where it can be claimed from now on, or at its time; or nowhere."""
    if line.state == _CLAIMABLE and line.run_at is None:
        lane.put(seq, line.offset)
    elif line.state in _WAITING and line.run_at is not None:
        due = clock.from_iso(line.run_at.decode("ascii"))
        lane.put_waiting(seq, line.offset, due, line.state == _RETRYING, line.plan.reach)
    else:
        lane.drop(seq)
