"""What a store counts for good: neither a purge nor a restart takes from it.

What a change adds to the totals follows from the job as it was and as it is, so every store counts
the same. A total has a name, and is a whole number:

    completed, dead, cancelled   how often a job came to be that
    failed                       attempts that failed
    retried                      attempts that were begun, or asked for by hand, after such an end
    rescued                      jobs that were taken from a dead worker
    waited:N, waited_ms          a histogram: waits that lasted up to `BOUNDS[N]`, but longer than
                                 the bound before; and how long they lasted together
    ran:N, ran_ms                the same of runs

What is missing is 0, as in a store that was made before there was such a total.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Dict, Iterable, Optional, Tuple

from queuectl import clock
from queuectl.job import OVER, WORKER_DIED, Job, JobState

BOUNDS = (100, 500, 1000, 5000, 15_000, 60_000, 300_000, 1_800_000, 7_200_000, 43_200_000)
"""Up to how many milliseconds the buckets of both histograms go; behind them is one without end."""

_GIVEN_UP = (JobState.FAILED, JobState.DEAD, JobState.CANCELLED)
_UNSUCCESSFUL = (JobState.FAILED, JobState.DEAD)

Change = Tuple[Optional[Job], Optional[Job]]
"""A job as it was, nothing if it is new; and as it is, nothing if it is purged."""


def add_changes(totals: Dict[str, int], changes: Iterable[Change]) -> None:
    """Add to totals what changes come to."""
    for was, job in changes:
        state = None if was is None else was.state
        if job is None or job.state == state:
            continue
        if job.state in OVER:
            _add(totals, job.state)
        if was is None:
            continue
        if state in _GIVEN_UP and job.state not in OVER:
            _add(totals, "retried")
        if job.state == JobState.PROCESSING:
            _measure(totals, "waited", clock.between(waits_since(was), str(job.started_at)))
        elif state == JobState.PROCESSING:
            if job.state in _UNSUCCESSFUL:
                _add(totals, "failed")
            if job.last_error == WORKER_DIED:
                _add(totals, "rescued")
            _measure(totals, "ran", run_took(job))


def waits_since(job: Job) -> str:
    """Since when a job that waits has waited for nothing but a worker, or for other jobs."""
    return job.updated_at if job.run_at is None else max(job.updated_at, job.run_at)


def run_took(job: Job) -> int:
    """How long the run took, in milliseconds, with whose end a job has just changed."""
    return clock.between(str(job.started_at), job.updated_at)


def _measure(totals: Dict[str, int], name: str, milliseconds: int) -> None:
    _add(totals, f"{name}:{bisect_left(BOUNDS, milliseconds)}")
    _add(totals, f"{name}_ms", milliseconds)


def _add(totals: Dict[str, int], name: str, by: int = 1) -> None:
    totals[name] = totals.get(name, 0) + by
