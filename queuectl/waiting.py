"""Waiting until jobs have ended, whoever runs them."""

from __future__ import annotations

import time
from typing import Callable, Iterator, Mapping, Optional, Tuple

from queuectl.errors import WaitTimeoutError
from queuectl.job import Job, JobState
from queuectl.store.base import Store

PAUSE = 0.05
"""Seconds between two looks: so late is noticed what happened."""

TIMED_OUT = 124
_SIGNALLED = 128
_FAILED = 1


def until_over(
    store: Store,
    seqs: Mapping[str, int],
    timeout: Optional[float] = None,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Tuple[str, Optional[Job]]]:
    """Yield each of some jobs once it has ended, with its id; nothing for one that was purged.

    Args:
        store: where they are.
        seqs: by id, the places of the jobs, by which one is told from another that got its id.
        timeout: after how many seconds to give up; none for never.
        tick: called between two looks.

    Raises:
        WaitTimeoutError: the time is over.
    """
    left = dict(seqs)
    began = time.monotonic()
    with store.watch(seqs) as watch:
        while True:
            for job_id, job in watch.look():
                is_gone = job is None or job.seq != seqs[job_id]
                if job_id in left and (is_gone or (job is not None and job.is_over)):
                    del left[job_id]
                    yield job_id, None if is_gone else job
            if not left:
                return
            pause = PAUSE
            if timeout is not None:
                pause = min(pause, began + timeout - time.monotonic())
                if pause <= 0:
                    raise WaitTimeoutError(len(left), timeout)
            tick()
            time.sleep(pause)


def exit_code(job: Optional[Job]) -> int:
    """Return what a command ends with that ran a job elsewhere, as if it had run it itself.

    Args:
        job: a job that has ended; nothing for one that was purged.

    Returns:
        0 if it completed, with whatever exit code; else its shell's exit code, 128 plus the number
        of the signal that ended it, or 124 if its time was over; else, as if it was cancelled, its
        worker died or it never started, 1.
    """
    if job is None or job.state == JobState.CANCELLED:
        return _FAILED
    if job.state == JobState.COMPLETED:
        return 0
    if job.timed_out:
        return TIMED_OUT
    if job.signal is not None:
        return _SIGNALLED + job.signal
    # One whose success codes leave 0 out has failed with that too.
    return job.exit_code or _FAILED
