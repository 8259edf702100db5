"""What a queue does, as Prometheus reads it: the text format, version 0.0.4.

All of it is kept by the store, so it is the same whoever tells it, and survives restarts. It is
written here, as it takes no library: a client's counters would live in one process.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from queuectl import __version__, clock
from queuectl.job import JobState
from queuectl.manager import QueueManager
from queuectl.store.base import Counts
from queuectl.totals import BOUNDS, waits_since
from queuectl.values import DEFAULT_QUEUE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_COUNTERS = (
    ("jobs_completed", "completed", "Jobs that completed."),
    ("jobs_dead", "dead", "Jobs that landed in the dead letter queue."),
    ("jobs_cancelled", "cancelled", "Jobs that were cancelled."),
    ("jobs_retried", "retried", "Further attempts after a failure, automatic or by hand."),
    ("jobs_rescued", "rescued", "Jobs that were taken from a dead worker."),
    ("attempts_failed", "failed", "Attempts that failed."),
)
_HISTOGRAMS = (
    ("job_waiting_seconds", "waited", "How long jobs waited for a worker once their time came."),
    ("job_running_seconds", "ran", "How long runs took, however they ended."),
)


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


def exposition(measures: Measures) -> str:
    """Write it as Prometheus reads it."""
    lines: List[str] = []
    for name, kind, text, samples in _families(measures):
        lines += [f"# HELP queuectl_{name} {text}", f"# TYPE queuectl_{name} {kind}"]
        lines += [f"queuectl_{name}{rest}" for rest in samples]
    return "\n".join(lines) + "\n"


_Family = Tuple[str, str, str, List[str]]


def _families(told: Measures) -> Iterator[_Family]:
    """Yield the name, type and help of each metric, and what follows the name in each sample."""
    version = _labels(version=__version__)
    yield "build_info", "gauge", "The version of QueueCTL that tells this.", [f"{version} 1"]
    by_state = [
        f"{_labels(queue=queue, state=state)} {getattr(told.queues[queue], state)}"
        for queue in sorted(told.queues)
        for state in JobState.ALL
    ]
    yield "jobs", "gauge", "Jobs in the store, by queue and state.", by_state
    yield _counter("jobs_enqueued", "Jobs that were added.", told.enqueued)
    for name, total, text in _COUNTERS:
        yield _counter(name, text, told.totals.get(total, 0))
    for name, total, text in _HISTOGRAMS:
        yield name, "histogram", text, _histogram(total, told.totals)
    oldest = "How long the oldest job that nothing but a worker is missing for has waited."
    yield _gauge("oldest_waiting_job_age_seconds", oldest, told.oldest)
    yield _gauge("workers", "Workers that are alive.", told.workers)
    yield _gauge("workers_busy", "Workers that run a job.", told.busy)
    if told.size is not None:
        yield _gauge("store_size_bytes", "What the jobs take, without their output.", told.size)


def _counter(name: str, text: str, value: int) -> _Family:
    return f"{name}_total", "counter", text, [f" {value}"]


def _gauge(name: str, text: str, value: float) -> _Family:
    return name, "gauge", text, [f" {_number(value)}"]


def _histogram(total: str, totals: Mapping[str, int]) -> List[str]:
    samples: List[str] = []
    below = 0
    for number, bound in enumerate((*BOUNDS, None)):
        below += totals.get(f"{total}:{number}", 0)
        limit = "+Inf" if bound is None else _number(bound / 1000)
        samples.append(f"_bucket{_labels(le=limit)} {below}")
    seconds = _number(totals.get(f"{total}_ms", 0) / 1000)
    return [*samples, f"_sum {seconds}", f"_count {below}"]


def _labels(**values: str) -> str:
    said: Dict[str, str] = {name: text.translate(_ESCAPES) for name, text in values.items()}
    return "{" + ",".join(f'{name}="{text}"' for name, text in said.items()) + "}"


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
