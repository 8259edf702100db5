"""The job: its record, its states, and the rules by which it passes from one to the next.

    (none) ----- enqueue -----> pending
    pending ---- claim -------> processing ---- complete ------------> completed
    failed ----- claim, due --> processing ---- fail, attempts left -> failed
                                processing ---- fail, none left -----> dead
                                processing ---- release -------------> pending
    pending, failed ---- cancel -> cancelled
    failed, dead, cancelled ---- retry -> pending

Every rule is a pure function of a job, `now` and what the event brought; it returns the changed
job, with `rev` one higher, and never looks at a clock or a store. Invariants: `attempts` counts
what is charged against `max_retries`; `runs` counts claims and never goes down, so that (id, runs,
worker) names one claim for good; a job is `failed` only while its next attempt is scheduled, which
`run_at` then tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Dict, Mapping, Optional

from queuectl import clock
from queuectl.errors import InvalidValueError, WrongStateError


class JobState:
    """The names of the states, as they stand in the job file, the JSON and the terminal's lists."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"

    ALL = (PENDING, PROCESSING, COMPLETED, FAILED, DEAD, CANCELLED)


# Linux takes at most 32 pages, the closing NUL included, for one argument of a new program
# (MAX_ARG_STRLEN).
MAX_COMMAND_BYTES = 131071
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_WORKER_DIED = "Worker died"


@dataclass(frozen=True)
class Job:
    """One job as it stands after a change. Times are UTC text as `clock.to_iso` writes it.

    Attributes:
        id: letters, digits, `.`, `_` and `-`, 64 at most; set at enqueue.
        command: the shell line; bytes that are not UTF-8 are lone surrogates.
        state: one of `JobState`.
        attempts: attempts charged so far, up at claim, down at release, 0 after a retry from dead
            or cancelled.
        max_retries: attempts in all; 0 counts as 1; set at enqueue.
        created_at: when it was enqueued.
        updated_at: when it last changed.
        last_error: what went wrong last, in words; none again once it completed.
        runs: claims so far; never goes down.
        rev: changes so far; a save is refused if it moved on.
        run_at: the earliest start of a pending or failed job; none means now.
        timeout: seconds that one attempt may run; none means no limit; set at enqueue.
        cwd: the folder in which it was enqueued and runs; set at enqueue.
        worker: the id of the worker that holds it; none unless it is processing.
        started_at: when it was claimed last.
        finished_at: when it completed, died or was cancelled.
        exit_code: of the last run that ended, if its shell did by itself.
        interruptions: how often a shutdown ended a run before its time; up at release.
        cancel_requested: a cancel waits for the current run to end.
        seq: its place in the order of enqueueing; given by the store, not shown.
    """

    id: str
    command: str
    state: str
    attempts: int
    max_retries: int
    created_at: str
    updated_at: str
    last_error: Optional[str] = None
    runs: int = 0
    rev: int = 0
    run_at: Optional[str] = None
    timeout: Optional[float] = None
    cwd: str = "/"
    worker: Optional[str] = None
    started_at: Optional[str] = None
    finished_at: Optional[str] = None
    exit_code: Optional[int] = None
    interruptions: int = 0
    cancel_requested: bool = False
    seq: int = 0

    def to_dict(self) -> Dict[str, Any]:
        """The record as the CLI and the API show it: every field but `seq`, in order."""
        return {name: getattr(self, name) for name in SHOWN_FIELDS}

    @property
    def waits(self) -> bool:
        """Whether it waits for a claim, now or later."""
        return self.state in (JobState.PENDING, JobState.FAILED)

    @property
    def attempts_in_all(self) -> int:
        """How many attempts it gets: `max_retries`, but at least one."""
        return max(self.max_retries, 1)


_NEW = Job("", "", JobState.PENDING, 0, 0, "", "").__dict__
SHOWN_FIELDS = tuple(field.name for field in fields(Job) if field.name != "seq")


def validate_id(job_id: str) -> str:
    """Return an id, or raise InvalidValueError unless it is 1 to 64 of A-Z, a-z, 0-9, `._-`."""
    if _ID.fullmatch(job_id) is None:
        raise InvalidValueError(f"bad id {job_id!r}: use 1 to 64 letters, digits, '.', '_' and '-'")
    return job_id


def validate_command(command: str) -> str:
    """Return the command, or raise InvalidValueError if no shell could be given it."""
    if not command.strip():
        raise InvalidValueError("the command is empty")
    if "\0" in command:
        raise InvalidValueError("the command holds a NUL byte, which no shell can be given")
    try:
        size = len(command.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise InvalidValueError(
            "the command holds a lone surrogate that stands for no byte"
        ) from error
    if size > MAX_COMMAND_BYTES:
        raise InvalidValueError(
            f"the command has {size} bytes, more than the {MAX_COMMAND_BYTES} that a shell can be "
            "given: put it in a script"
        )
    return command


def enqueue(
    job_id: str,
    command: str,
    now: float,
    *,
    max_retries: int,
    timeout: Optional[float] = None,
    cwd: str = "/",
    run_at: Optional[float] = None,
) -> Job:
    """Make a new pending job.

    Args:
        job_id: its id.
        command: its shell line.
        now: the time, in seconds since the epoch; so is `run_at`.
        max_retries: attempts in all.
        timeout: seconds that an attempt may run; none means no limit.
        cwd: the folder to run in.
        run_at: the earliest start; one that has passed means now.

    Raises:
        InvalidValueError: the id or the command can never be right.
    """
    at = clock.to_iso(now)
    return _made(
        _NEW,
        id=validate_id(job_id),
        command=validate_command(command),
        max_retries=max_retries,
        created_at=at,
        updated_at=at,
        run_at=clock.to_iso(run_at) if run_at is not None and run_at > now else None,
        timeout=timeout,
        cwd=cwd,
    )


def placed(job: Job, seq: int) -> Job:
    """Give a new job its place in the order of enqueueing."""
    return _made(job.__dict__, seq=seq)


def claim(job: Job, worker: str, now: float) -> Job:
    """Give a waiting job to a worker; whether it is due is the caller's to know."""
    if not job.waits:
        raise _wrong_state(job, "claimed")
    return _changed(
        job,
        now,
        state=JobState.PROCESSING,
        attempts=job.attempts + 1,
        runs=job.runs + 1,
        run_at=None,
        worker=worker,
        started_at=clock.to_iso(now),
    )


def complete(job: Job, now: float) -> Job:
    """End a run that exited 0; it came before any cancel that is still waiting."""
    _require_processing(job, "completed")
    return _changed(
        job,
        now,
        state=JobState.COMPLETED,
        worker=None,
        finished_at=clock.to_iso(now),
        exit_code=0,
        last_error=None,
        cancel_requested=False,
    )


def fail(job: Job, now: float, error: str, delay: float, exit_code: Optional[int] = None) -> Job:
    """End a run that failed: schedule the next attempt, or give the job up if none is left.

    Args:
        job: the job that ran.
        now: the time, in seconds since the epoch.
        error: what went wrong, in words.
        delay: seconds until the next attempt, if there is one.
        exit_code: what the shell ended with, if it ended by itself.
    """
    _require_processing(job, "failed")
    if job.cancel_requested:
        return _cancelled(job, now, last_error=error, exit_code=exit_code)
    if job.attempts < job.attempts_in_all:
        return _changed(
            job,
            now,
            state=JobState.FAILED,
            worker=None,
            run_at=clock.to_iso(now + delay),
            last_error=error,
            exit_code=exit_code,
        )
    return _changed(
        job,
        now,
        state=JobState.DEAD,
        worker=None,
        finished_at=clock.to_iso(now),
        last_error=error,
        exit_code=exit_code,
    )


def rescue(job: Job, now: float, delay: float) -> Job:
    """Take a job from a dead worker.

    It is a failed attempt, so that a job which kills its worker cannot loop.
    """
    return fail(job, now, _WORKER_DIED, delay)


def release(job: Job, now: float) -> Job:
    """Give a job back whose run was ended by a shutdown.

    The attempt is not charged, the interruption is counted.
    """
    _require_processing(job, "released")
    count = job.interruptions + 1
    error = "Interrupted at shutdown" + (f" ({count} times)" if count > 1 else "")
    if job.cancel_requested:
        return _cancelled(job, now, last_error=error, interruptions=count, exit_code=None)
    return _changed(
        job,
        now,
        state=JobState.PENDING,
        worker=None,
        attempts=job.attempts - 1,
        interruptions=count,
        last_error=error,
        exit_code=None,
    )


def cancel(job: Job, now: float) -> Job:
    """End a waiting job, or ask for the end of a running one."""
    if job.state == JobState.PROCESSING:
        return _changed(job, now, cancel_requested=True)
    if not job.waits:
        raise _wrong_state(job, "cancelled")
    return _cancelled(job, now)


def retry(job: Job, now: float) -> Job:
    """Make a failed, dead or cancelled job pending at once.

    What was given up starts to count anew.
    """
    if job.state not in (JobState.FAILED, JobState.DEAD, JobState.CANCELLED):
        raise _wrong_state(job, "retried")
    return _changed(
        job,
        now,
        state=JobState.PENDING,
        attempts=job.attempts if job.state == JobState.FAILED else 0,
        run_at=None,
        finished_at=None,
    )


def _changed(job: Job, now: float, **changes: Any) -> Job:
    return _made(job.__dict__, rev=job.rev + 1, updated_at=clock.to_iso(now), **changes)


def _made(values: Mapping[str, Any], **changes: Any) -> Job:
    # What the constructor and dataclasses.replace do, in a fifth of the time: each run of a job
    # takes two of these, and a file with many jobs two for each.
    made = object.__new__(Job)
    made.__dict__.update(values, **changes)
    return made


def _cancelled(job: Job, now: float, **changes: Any) -> Job:
    return _changed(
        job,
        now,
        state=JobState.CANCELLED,
        worker=None,
        run_at=None,
        finished_at=clock.to_iso(now),
        cancel_requested=False,
        **changes,
    )


def _require_processing(job: Job, event: str) -> None:
    if job.state != JobState.PROCESSING:
        raise _wrong_state(job, event)


def _wrong_state(job: Job, event: str) -> WrongStateError:
    return WrongStateError(f"job {job.id!r} is {job.state}: it cannot be {event}")
