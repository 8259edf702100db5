"""What `start` reports: the steps of workers and supervisor, which the CLI puts into words."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

from queuectl.job import Job


class EventKind:
    """What happened; the detail that comes with it stands behind each."""

    STARTED = "started"
    STOPPING = "stopping"  # how many jobs are running
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    RESCUED = "rescued"  # the worker's name
    WARNING = "warning"  # in words
    BACK = "back"  # the store, which can be used again
    CLAIMED = "claimed"
    SPAWNED = "spawned"  # the process id
    COMMITTED = "committed"  # the state that was committed


class Event(NamedTuple):
    """One step.

    Attributes:
        kind: one of `EventKind`.
        who: the worker that took it, such as `Worker-1`, or `start` itself.
        job: the job as it stands after it.
        detail: what `EventKind` says.
        seconds: how long the run took, where one ended.
    """

    kind: str
    who: str
    job: Optional[Job] = None
    detail: str = ""
    seconds: float = 0.0


Report = Callable[[Event], None]
