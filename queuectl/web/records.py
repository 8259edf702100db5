"""What is told of jobs, queues and the rest, as JSON."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from queuectl.config import SETTINGS
from queuectl.job import Job
from queuectl.manager import QueueManager
from queuectl.metrics import Measures
from queuectl.queues import QueueRule
from queuectl.store.base import Counts
from queuectl.text import as_utf8
from queuectl.values import DEFAULT_QUEUE

_OF_WORKER = ("id", "name", "pid", "host", "supervisor", "started_at", "job", "run")


def jobs(found: Sequence[Job]) -> List[Dict[str, Any]]:
    """Jobs, without the values of their environments."""
    return [job.to_dict() for job in found]


def stats(told: Measures) -> Dict[str, Any]:
    """What the queue does."""
    queues = {name: counts._asdict() for name, counts in told.queues.items()}
    return {**told._asdict(), "queues": queues, "oldest": round(told.oldest, 3)}


def queues(told: Measures, rules: Dict[str, QueueRule]) -> List[Dict[str, Any]]:
    """The queues, the usual one first."""
    names = sorted({*told.queues, *rules} - {DEFAULT_QUEUE})
    return [
        queue(name, rules.get(name, QueueRule()), told.queues.get(name, Counts()))
        for name in (DEFAULT_QUEUE, *names)
    ]


def queue(name: str, rule: QueueRule, counts: Counts) -> Dict[str, Any]:
    """A queue."""
    return {
        "name": name,
        "paused": rule.paused,
        "concurrency": rule.concurrency,
        "counts": counts._asdict(),
    }


def workers(manager: QueueManager) -> List[Dict[str, Any]]:
    """The workers that are alive."""
    found = manager.members("worker")
    return [{name: getattr(worker, name) for name in _OF_WORKER} for worker in found]


def settings(manager: QueueManager) -> List[Dict[str, str]]:
    """The settings in force."""
    told = manager.settings
    return [
        {"name": name, "value": entry.write(told[name]), "source": as_utf8(told.source(name))}
        for name, entry in SETTINGS.items()
    ]
