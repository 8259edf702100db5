"""Whether what several processes saw of one store can be explained by one order.

Each process writes down its operations: what it called, what came of it, and when that began and
ended. A commit has its place in the order by the number that the job file gave it. So the history
is linear if, done again in this order on the reference in memory,

- each commit has the same result, and none that began after another had ended comes before it;
- each look, and whatever was refused, has the result that one state in between would have given, of
  those there were while it lasted, and never an older one than a look that had ended before saw.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from itertools import accumulate
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from queuectl.errors import RequestError
from queuectl.job import Job
from queuectl.store.base import Store
from queuectl.store.file import FileStore
from queuectl.testing import MemoryStore
from queuectl.testing.common import HORIZON

CALLS: Dict[str, Callable[..., Any]] = {
    "add": lambda store, jobs, also=(): store.add(jobs, [job.id for job in jobs], also),
    "claim": lambda store, worker, now, done, queues=None: store.claim(
        worker, now, HORIZON, done, queues=queues
    ),
    "save": lambda store, jobs: store.save(jobs, durable=False),
    "remove": lambda store, jobs, also=(): store.remove(jobs, also),
    "list": lambda store, states: list(store.select(states)),
    "counts": lambda store: store.counts(),
    "running": lambda store: store.running(),
    "tally": lambda store: store.tally(),
    "holder": lambda store, key: store.holder(key),
    "get": lambda store, job_id: store.get(job_id),
}
_CHANGES = ("add", "claim", "save", "remove")


class Op(NamedTuple):
    """One operation of one process.

    Attributes:
        call: which one, of `CALLS`.
        args: what it was given.
        result: what it returned, or the class of the error that it was refused with.
        number: that of its commit, if it made one.
        begin: when it was called, in nanoseconds of a clock that all processes share.
        end: when it returned.
    """

    call: str
    args: Tuple[Any, ...]
    result: Any
    number: Optional[int]
    begin: int
    end: int

    def __str__(self) -> str:
        return f"commit {self.number}: {self.call}{self.args} gave {self.result!r}"


class Recorder:
    """Does things to a store, and writes them down.

    Args:
        store: the store, which nobody else in this process uses.
    """

    def __init__(self, store: FileStore) -> None:
        self.history: List[Op] = []
        self._store = store

    def do(self, call: str, *args: Any) -> Any:
        """Do one thing; return what it returned, or the class of the error."""
        begin = time.monotonic_ns()
        result = _result(self._store, call, args)
        number = None
        refused = isinstance(result, type) or (call == "claim" and result is None and not args[2])
        if call in _CHANGES and not refused:
            # It appended last under the lock, and has read nothing since.
            number = self._store._file.journal.number
        self.history.append(Op(call, args, result, number, begin, time.monotonic_ns()))
        return result


def check(history: Sequence[Op], last: int, rewrites: int = 0) -> None:
    """Fail unless the history is linear.

    Args:
        history: the operations of all processes on a store that was empty before, in any order.
        last: the number of the last commit.
        rewrites: how many rewrites there were, each of which is a commit that changes nothing.
    """
    commits = sorted((op for op in history if op.number is not None), key=lambda op: op.number or 0)
    numbers = [op.number or 0 for op in commits]
    assert len(set(numbers)) == len(numbers), "two commits have one number"
    assert last == len(numbers) + rewrites, "a commit is missing, or one too many"
    latest = 0
    for op in commits:
        assert op.end >= latest, f"one that began later comes before {op}"
        latest = max(latest, op.begin)
    states = _states(commits)
    _check_looks([op for op in history if op.number is None], commits, states)


class _State(NamedTuple):
    jobs: Dict[str, Job]
    last_seq: int

    def store(self) -> MemoryStore:
        store = MemoryStore("/nonexistent")
        store._shared.jobs = dict(self.jobs)
        store._shared.last_seq = self.last_seq
        return store


def _result(store: Store, call: str, args: Tuple[Any, ...]) -> Any:
    try:
        return CALLS[call](store, *args)
    except RequestError as error:
        return type(error)


def _states(commits: Sequence[Op]) -> List[_State]:
    """The state before each commit, and after the last."""
    states = [_State({}, 0)]
    for op in commits:
        store = states[-1].store()
        expected = _result(store, op.call, op.args)
        assert op.result == expected, f"{op}, not {expected!r}"
        states.append(_State(store._shared.jobs, store._shared.last_seq))
    return states


def _check_looks(looks: Sequence[Op], commits: Sequence[Op], states: Sequence[_State]) -> None:
    # That a commit may be seen from its beginning on, and must be from its end on, holds for all
    # that come before it too.
    may = list(accumulate((op.begin for op in commits), max))
    must = list(accumulate((op.end for op in reversed(commits)), min))[::-1]
    ended: List[Tuple[int, int]] = []
    for look in sorted(looks, key=lambda op: op.begin):
        oldest = max(
            [bisect_left(must, look.begin), *(at for end, at in ended if end < look.begin)]
        )
        newest = bisect_left(may, look.end)
        for at in range(oldest, newest + 1):
            if _result(states[at].store(), look.call, look.args) == look.result:
                ended.append((look.end, at))
                break
        else:
            raise AssertionError(f"no state from {oldest} to {newest} explains: {look}")
