"""What a queue does, as Prometheus reads it: the text format, version 0.0.4.

The library writes it. Nothing is counted in this process, where its own counters would live: what
is told was measured in the store, and goes into a registry that is there for one text.
"""

from __future__ import annotations

from typing import Iterator, List, Mapping, Optional, Tuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from queuectl import __version__
from queuectl.job import JobState
from queuectl.metrics import Measures
from queuectl.totals import BOUNDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = (
    ("queuectl_jobs_completed", "completed", "Jobs that completed."),
    ("queuectl_jobs_dead", "dead", "Jobs that landed in the dead letter queue."),
    ("queuectl_jobs_cancelled", "cancelled", "Jobs that were cancelled."),
    (
        "queuectl_jobs_retried",
        "retried",
        "Further attempts after a failure, automatic or by hand.",
    ),
    ("queuectl_jobs_rescued", "rescued", "Jobs that were taken from a dead worker."),
    ("queuectl_attempts_failed", "failed", "Attempts that failed."),
)
_HISTOGRAMS = (
    (
        "queuectl_job_waiting_seconds",
        "waited",
        "How long jobs waited for a worker once their time came.",
    ),
    ("queuectl_job_running_seconds", "ran", "How long runs took, however they ended."),
)


def exposition(measures: Measures) -> str:
    """Write it as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Measured(measures))
    return generate_latest(registry).decode("utf-8")


class _Measured(Collector):
    """What was measured, as the metrics of a registry.

    Args:
        told: what was measured.
    """

    def __init__(self, told: Measures) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        told = self._told
        build = GaugeMetricFamily(
            "queuectl_build_info", "The version of QueueCTL that tells this.", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build
        jobs = GaugeMetricFamily(
            "queuectl_jobs", "Jobs in the store, by queue and state.", labels=["queue", "state"]
        )
        for queue in sorted(told.queues):
            for state in JobState.ALL:
                jobs.add_metric([queue, state], getattr(told.queues[queue], state))
        yield jobs
        yield CounterMetricFamily("queuectl_jobs_enqueued", "Jobs that were added.", told.enqueued)
        for name, total, text in _COUNTERS:
            yield CounterMetricFamily(name, text, told.totals.get(total, 0))
        for name, total, text in _HISTOGRAMS:
            buckets, seconds = _histogram(total, told.totals)
            yield HistogramMetricFamily(name, text, buckets, seconds)
        yield GaugeMetricFamily(
            "queuectl_oldest_waiting_job_age_seconds",
            "How long the oldest job that nothing but a worker is missing for has waited.",
            told.oldest,
        )
        yield GaugeMetricFamily("queuectl_workers", "Workers that are alive.", told.workers)
        yield GaugeMetricFamily("queuectl_workers_busy", "Workers that run a job.", told.busy)
        if told.size is not None:
            text = "What the jobs take, without their output."
            yield GaugeMetricFamily("queuectl_store_size_bytes", text, told.size)


def _histogram(total: str, totals: Mapping[str, int]) -> Tuple[List[Tuple[str, float]], float]:
    """How many are in each bucket and those before it, and how many seconds all took."""
    buckets: List[Tuple[str, float]] = []
    below = 0
    for number, bound in enumerate((*BOUNDS, None)):
        below += totals.get(f"{total}:{number}", 0)
        buckets.append((_limit(bound), below))
    return buckets, totals.get(f"{total}_ms", 0) / 1000


def _limit(bound: Optional[int]) -> str:
    return "+Inf" if bound is None else f"{bound / 1000:g}"
