"""What a queue does, in numbers.

All of it is kept by the store, so it is the same whoever tells it, and survives restarts.
"""

from __future__ import annotations

from typing import Mapping, NamedTuple, Optional

from queuectl import clock
from queuectl.manager import QueueManager
from queuectl.store.base import Counts
from queuectl.totals import waits_since
from queuectl.values import DEFAULT_QUEUE


class Measures(NamedTuple):
    """What is told of a queue.

    Attributes:
        queues: by name, how many jobs there are in each state.
        enqueued: how many jobs were ever added.
        totals: what else is counted for good, see `queuectl.totals`.
        oldest: how many seconds the job that could be claimed and was enqueued first has waited;
            0 if there is none.
        workers: how many live.
        busy: how many of them run a job.
        size: of the store, in bytes, if it can tell.
    """

    queues: Mapping[str, Counts]
    enqueued: int
    totals: Mapping[str, int]
    oldest: float
    workers: int
    busy: int
    size: Optional[int]


def measure(manager: QueueManager) -> Measures:
    """Ask a queue for all that is told of it."""
    store = manager.store
    now = store.now()
    oldest = store.oldest(now, manager.settings.retry_policy.horizon)
    workers = manager.members("worker")
    return Measures(
        queues={DEFAULT_QUEUE: Counts(), **store.tally()},
        enqueued=store.enqueued(),
        totals=store.totals(),
        oldest=0.0 if oldest is None else max(now - clock.from_iso(waits_since(oldest)), 0.0),
        workers=len(workers),
        busy=sum(worker.job is not None for worker in workers),
        size=store.size(),
    )
