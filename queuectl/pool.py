"""The pool: the worker processes of one supervisor, their pipes, and who replaces the dead.

Each worker holds the reading end of a pipe of which the supervisor alone holds the writing end: it
brings orders, and its end tells of the supervisor's death, however that came. So every child that
is forked closes the writing ends that it inherited, its own among them. It closes whatever else the
supervisor holds for a worker too: each job that is spawned would have to.
"""

from __future__ import annotations

import contextlib
import math
import os
from mmap import mmap
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Callable, Dict, List, Optional, Set, Tuple

from queuectl import machine
from queuectl.events import Event, EventKind, Report
from queuectl.hot import Hot
from queuectl.worker import WAKE

_QUICK_DEATH = 1.0  # a worker that lived no longer than this many seconds is not replaced at once
_FIRST_PAUSE = 0.1  # seconds before it is then; doubled with every quick death that follows
_LONGEST_PAUSE = 5.0

Work = Callable[[int, str, int], int]
"""What a worker's process does: given its slot, its name and where its orders come from, it returns
the exit code."""


class Child:
    """A worker's process, as its supervisor sees it."""

    def __init__(self, process: BaseProcess, orders: int, slot: int, descriptors: Set[int]) -> None:
        self.process = process
        self.orders = orders
        self.slot = slot
        self.descriptors = descriptors
        self.born = monotonic()

    def order(self, what: bytes) -> None:
        """Give it orders, which it may be too dead or too busy to take."""
        try:
            os.write(self.orders, what)
        except (BrokenPipeError, BlockingIOError):
            # Nobody reads them, or more of them are waiting than anybody needs.
            pass


class Pool:
    """Worker processes, each in a slot of its own.

    Args:
        count: how many.
        work: what each does.
        report: told of a worker that cannot be started.
        most_hot: how many may be hot at a time, see `hot`; none for all.

    Raises:
        OSError: the system has no descriptors to spare.

    Attributes:
        hot: shared with the workers: which of them are hot.
        resting: shared with the workers: for each slot a byte that says whether its worker may be
            woken for a job; and two more, `AWAY` and `ENDING` of `worker`.
    """

    def __init__(
        self, count: int, work: Work, report: Report, most_hot: Optional[int] = None
    ) -> None:
        self.resting = mmap(-1, count + 2)
        self.hot = Hot(count, count if most_hot is None else most_hot)
        self._work = work
        self._report = report
        self._context = get_context("fork")
        self._children: Dict[int, Child] = {}
        self._vacant: Dict[int, float] = dict.fromkeys(range(count), 0.0)
        self._quick_deaths: Dict[int, int] = {}

    @property
    def is_over(self) -> bool:
        """Whether nobody is left, and nobody will come."""
        return not self._children and not self._vacant

    @property
    def fill_at(self) -> float:
        """When a worker is to be started next, by the monotonic clock."""
        return min(self._vacant.values(), default=math.inf)

    def fill(self) -> None:
        """Start workers in the slots whose time has come."""
        for slot, moment in list(self._vacant.items()):
            if monotonic() >= moment:
                self._spawn(slot)

    def leave_vacant(self) -> None:
        """Start no more workers."""
        self._vacant.clear()

    def take_ended(self) -> List[Tuple[Child, int]]:
        """Return the workers that ended since, each with its exit code; they are no longer ours."""
        ended: List[Tuple[Child, int]] = []
        for child in list(self._children.values()):
            code = child.process.exitcode
            if code is not None:
                child.process.join()
                os.close(child.orders)
                del self._children[child.slot]
                self.resting[child.slot] = 0
                self.hot.hand_on(child.slot)
                ended.append((child, code))
        return ended

    def replace(self, dead: Child) -> None:
        """Have another worker started in the place of one that died; later if many die."""
        pause = 0.0
        deaths = 0
        if monotonic() - dead.born <= _QUICK_DEATH:
            deaths = self._quick_deaths.get(dead.slot, 0) + 1
            pause = min(_FIRST_PAUSE * 2.0 ** min(deaths - 1, 10), _LONGEST_PAUSE)
        self._quick_deaths[dead.slot] = deaths
        self._vacant[dead.slot] = monotonic() + pause

    def wake(self, jobs: int) -> None:
        """Wake a resting worker for each new job; who is at work looks for himself."""
        for slot, child in self._children.items():
            if jobs <= 0:
                return
            if self.resting[slot]:
                self.resting[slot] = 0
                child.order(WAKE)
                jobs -= 1

    def let_in(self) -> None:
        """Wake as many who stand by as there are calls for."""
        for slot in self.hot.hear():
            if slot in self._children:
                self._children[slot].order(WAKE)

    def order(self, what: bytes) -> None:
        """Give all of them orders."""
        for child in self._children.values():
            child.order(what)

    def kill(self) -> None:
        """Kill all of them."""
        for child in self._children.values():
            child.process.kill()

    def let_go(self) -> None:
        """In a forked child: close what is the supervisor's."""
        for child in self._children.values():
            _close(child.descriptors)
        self.hot.let_go()

    def _spawn(self, slot: int) -> None:
        name = f"Worker-{slot + 1}"
        # With the number that the listing had, which is the lowest free: the pipe has it next.
        before = machine.listed_descriptors()
        reading = -1
        try:
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            process = self._context.Process(
                target=self._be_worker, args=(slot, name, reading, writing), name=name
            )
            process.start()
        except OSError as error:
            # The system has no process, or no descriptor, to spare just now. Not only our pipe is
            # left then, but also those that multiprocessing made for itself.
            _close({reading} | machine.open_descriptors(but=before))
            detail = f"cannot be started: {error.strerror}"
            self._report(Event(EventKind.WARNING, name, detail=detail))
            self._vacant[slot] = monotonic() + _LONGEST_PAUSE
        else:
            os.close(reading)
            del self._vacant[slot]
            held = machine.open_descriptors(but=before)
            self._children[slot] = Child(process, writing, slot, held)

    def _be_worker(self, slot: int, name: str, orders: int, writing: int) -> None:
        self.let_go()
        # Else this very process would keep its pipe from ending.
        os.close(writing)
        os._exit(self._work(slot, name, orders))


def _close(descriptors: Set[int]) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
