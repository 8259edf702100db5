"""Rescuing what a dead worker left: first its job's processes are ended, then the job goes back to the queue.

While any process of the run lives the job stays processing, so that it never runs twice at once. The rescuer holds
the dead worker's lock, so nobody else rescues the same one; if the rescuer dies, another begins anew.
"""

from __future__ import annotations

import signal
from time import monotonic
from typing import List, Optional

from queuectl import machine
from queuectl.events import Event, EventKind, Report
from queuectl.manager import QueueManager
from queuectl.store.base import Lost


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

    def step(self) -> bool:
        """Do what can be done now without waiting; tell whether the rescue is over."""
        groups = self._groups()
        if groups:
            self._end(groups)
            return False
        job = self._manager.rescue(self._lost)
        if job is not None:
            self._report(Event(EventKind.RESCUED, "start", job, self._lost.member.name))
        self._manager.store.bury(self._lost)
        return True

    def _groups(self) -> List[int]:
        """The process groups of the run that are alive; a group that a worker left behind earlier is none of them."""
        member, job = self._lost
        if job is None:
            return []
        variables = {
            "QUEUECTL_JOB_ID": job.id,
            "QUEUECTL_JOB_RUN": str(job.runs),
            "QUEUECTL_STORE": self._manager.store.url,
        }
        noted = member.group if (member.job, member.run) == (job.id, job.runs) else None
        return machine.groups_of_run(noted, member.born, member.boot, variables)

    def _end(self, groups: List[int]) -> None:
        now = monotonic()
        if self._kill_at is None:
            self._kill_at = now + self._manager.settings["kill_grace"]
            for group in groups:
                machine.signal_group(group, signal.SIGTERM)
                machine.signal_group(group, signal.SIGCONT)
        elif now >= self._kill_at:
            for group in groups:
                machine.signal_group(group, signal.SIGKILL)
