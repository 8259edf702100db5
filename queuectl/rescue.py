"""Rescuing what a dead worker left: its job's processes are ended, then the job is queued again.

While any process of the run lives the job stays processing, so that it never runs twice at once.
The rescuer holds the dead worker's lock, so nobody else rescues the same one; if the rescuer dies,
another begins anew.
"""

from __future__ import annotations

import signal
from time import monotonic
from typing import List, Optional, Tuple

from queuectl import machine
from queuectl.errors import (
    QueueError,
    StoreAwayError,
    StoreFullError,
    StoreGoneError,
    StoreLockedError,
)
from queuectl.events import Event, EventKind, Report
from queuectl.manager import QueueManager
from queuectl.store.base import Lost

_RETRY_PAUSE = 1.0  # seconds before what a full disk, a lock or an absence prevented is tried again
_LOOK_FOR_DEAD = 0.5  # seconds between two looks whether anybody is there to rescue


class Rescues:
    """All rescues that one supervisor has under way.

    Args:
        manager: the queue.
        report: told of each rescue.
    """

    def __init__(self, manager: QueueManager, report: Report) -> None:
        self._manager = manager
        self._report = report
        self._rescues: List[Rescue] = []
        self._next_step = 0.0
        self._look_at = 0.0
        self._warned = False

    @property
    def under_way(self) -> bool:
        """Whether there are any."""
        return bool(self._rescues)

    def begin(self, found: List[Lost]) -> None:
        """Begin the rescue of each of these."""
        self._rescues.extend(Rescue(self._manager, lost, self._report) for lost in found)

    def step(self) -> None:
        """Do what can be done now without waiting; what is prevented is put off."""
        if monotonic() < self._next_step:
            return
        for rescue in self._rescues[:]:
            try:
                over = rescue.step()
            except StoreAwayError:
                # The supervisor tells of it, who asks for more than we do.
                self._next_step = monotonic() + _RETRY_PAUSE
            except (StoreFullError, StoreLockedError) as error:
                self.put_off(error)
            else:
                self._warned = self._warned and not over
                if over:
                    self._rescues.remove(rescue)

    def stand_in(self) -> None:
        """Rescue what the dead left, as `step` does, while no supervisor lives that would."""
        if monotonic() >= self._look_at and not self._manager.members("supervisor"):
            self.begin(self._manager.store.lost(thorough=True))
            self._look_at = monotonic() + _LOOK_FOR_DEAD
        self.step()

    def put_off(self, error: QueueError) -> None:
        """Wait a while because of what will pass, and say so unless it is known already."""
        self._next_step = monotonic() + _RETRY_PAUSE
        if not self._warned:
            self._warned = True
            detail = f"{error}; trying again each second"
            self._report(Event(EventKind.WARNING, "start", detail=detail))


class Rescue:
    """The rescue of one dead worker's job.

    Args:
        manager: the queue.
        lost: who died, and with which job.
        report: told of the rescue.
    """

    def __init__(self, manager: QueueManager, lost: Lost, report: Report) -> None:
        self._manager = manager
        self._lost = lost
        self._report = report
        self._kill_at: Optional[float] = None
        self._looked = False

    def step(self) -> bool:
        """Do what can be done now without waiting; tell whether the rescue is over."""
        groups = self._groups()
        if groups:
            self._end(groups)
        elif self._looked or self._run() is None:
            self._give_back()
            return True
        # Looked for twice: until a child has become the shell, its environment tells nothing.
        self._looked = True
        return False

    def _give_back(self) -> None:
        try:
            job = self._manager.rescue(self._lost)
            if job is not None:
                self._report(Event(EventKind.RESCUED, "start", job, self._lost.member.name))
            self._manager.store.bury(self._lost)
        except StoreGoneError:
            # There is nothing to give it back to; the store's end is noticed elsewhere.
            pass

    def _run(self) -> Optional[Tuple[str, int]]:
        """Which run of which job it left; what it noted, where nobody knows what it held."""
        member, job = self._lost
        if job is not None:
            return job.id, job.runs
        return None if member.job is None else (member.job, member.run)

    def _groups(self) -> List[int]:
        """The living process groups of the run; what the worker left behind earlier is no part."""
        run = self._run()
        if run is None:
            return []
        variables = {
            "QUEUECTL_JOB_ID": run[0],
            "QUEUECTL_JOB_RUN": str(run[1]),
            "QUEUECTL_STORE": self._manager.store.url,
        }
        member = self._lost.member
        noted = member.group if (member.job, member.run) == run else None
        return machine.groups_of_run(noted, member.born, member.boot, variables)

    def _end(self, groups: List[int]) -> None:
        now = monotonic()
        if self._kill_at is None:
            self._kill_at = now + self._manager.last_settings["kill_grace"]
            for group in groups:
                machine.signal_group(group, signal.SIGTERM)
                machine.signal_group(group, signal.SIGCONT)
        elif now >= self._kill_at:
            for group in groups:
                machine.signal_group(group, signal.SIGKILL)
