"""The job: its record, its states, and the rules by which it passes from one to the next.

    (none) ----- enqueue -----> pending
    pending ---- claim -------> processing ---- complete ------------> completed
    failed ----- claim, due --> processing ---- fail, attempts left -> failed
                                processing ---- fail, none left -----> dead
                                processing ---- release -------------> pending
    pending, failed ---- cancel -> cancelled
    failed, dead, cancelled ---- retry -> pending

Whether a waiting job can be claimed is no state of its own: it may lie ahead in time, wait for
other jobs, or be in a queue that is paused or full.

Every rule is a pure function of a job, `now` and what the event brought; it returns the changed
job, with `rev` one higher, and never looks at a clock or a store. Invariants: `attempts` counts
what is charged against `max_retries`; `runs` counts claims and never goes down, so that (id, runs,
worker) names one claim for good; a job is `failed` only while its next attempt is scheduled, which
`run_at` then tells.

Most jobs use few of the fields. Those with a default that stands in the class cost an object
nothing until they are set to something else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from queuectl import clock
from queuectl.errors import WrongStateError
from queuectl.values import DEFAULT_QUEUE, validate_command, validate_id


class JobState:
    """The names of the states, as they stand in the job file, the JSON and the terminal's lists."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"

    ALL = (PENDING, PROCESSING, COMPLETED, FAILED, DEAD, CANCELLED)


WORKER_DIED = "Worker died"
"""The `last_error` of a job that was taken from a dead worker."""


# Without methods that dataclass would compile, which costs each enqueue a millisecond.
@dataclass(frozen=True, repr=False, eq=False)
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
        priority: higher ones are claimed first; set at enqueue.
        queue: the queue it is in; set at enqueue.
        run_at: the earliest start of a pending or failed job; none means now.
        timeout: seconds that one attempt may run; none means no limit; set at enqueue.
        cwd: the folder in which it was enqueued and runs; set at enqueue.
        worker: the id of the worker that holds it; none unless it is processing.
        started_at: when it was claimed last.
        finished_at: when it completed, died or was cancelled.
        exit_code: of the last run that ended, if its shell did by itself.
        signal: the number of the signal that ended the shell of that run, if one did.
        timed_out: whether that run was ended because its time was over.
        interruptions: how often a shutdown ended a run before its time; up at release.
        cancel_requested: a cancel waits for the current run to end.
        after: the ids of the jobs that must complete before it; set at enqueue.
        after_any: the ids of the jobs that must end before it, however; set at enqueue.
        dependents: how many jobs were made to wait for it.
        unique: its unique key: of the jobs with one that are not over there is one at most.
        labels: words by which to find it; set at enqueue.
        env: what it finds in its environment besides, as `NAME=VALUE`; set at enqueue.
        shell: the program that runs the command; none for the setting's; set at enqueue.
        backoff_base: its own base of the delays between attempts; set at enqueue together with
            `backoff_max`; none for the settings' both.
        backoff_max: its own longest delay, in seconds; infinity is written as a century.
        success_codes: the exit codes that complete it; set at enqueue.
        no_retry_on: the exit codes after which it is not tried again; set at enqueue.
        seq: its place in the order of enqueueing; given by the store, not shown.
        parents: the `seq` of each job of `after`, and the negative one of each of `after_any`, that
            had not completed when it was enqueued; given by the store, not shown.
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
    priority: int = 0
    queue: str = DEFAULT_QUEUE
    run_at: Optional[str] = None
    timeout: Optional[float] = None
    cwd: str = "/"
    worker: Optional[str] = None
    started_at: Optional[str] = None
    finished_at: Optional[str] = None
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    timed_out: bool = False
    interruptions: int = 0
    cancel_requested: bool = False
    after: Tuple[str, ...] = ()
    after_any: Tuple[str, ...] = ()
    dependents: int = 0
    unique: Optional[str] = None
    labels: Tuple[str, ...] = ()
    env: Tuple[str, ...] = ()
    shell: Optional[str] = None
    backoff_base: Optional[float] = None
    backoff_max: Optional[float] = None
    success_codes: Tuple[int, ...] = (0,)
    no_retry_on: Tuple[int, ...] = ()
    seq: int = 0
    parents: Tuple[int, ...] = ()

    def __repr__(self) -> str:
        said = {k: v for k, v in self.__dict__.items() if v != DEFAULTS[k]}
        return f"Job({', '.join(f'{name}={value!r}' for name, value in said.items())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Job):
            return NotImplemented
        return {**DEFAULTS, **self.__dict__} == {**DEFAULTS, **other.__dict__}

    def __hash__(self) -> int:
        return hash((self.id, self.seq, self.rev))

    def to_dict(self, reveal: bool = False) -> Dict[str, Any]:
        """The record as the CLI and the API show it: every field but the store's own, in order.

        Args:
            reveal: whether the values of its environment are told; else there is null for each.
        """
        shown = {name: getattr(self, name) for name in SHOWN_FIELDS}
        shown.update((name, list(shown[name])) for name in _LISTS)
        shown["env"] = {
            name: value if reveal else None for name, _, value in map(_parted, self.env)
        }
        return shown

    @property
    def waits(self) -> bool:
        """Whether it waits for a claim, now or later."""
        return self.state in WAITING

    @property
    def is_over(self) -> bool:
        """Whether it ended: only a retry by hand can begin it anew."""
        return self.state in OVER

    @property
    def attempts_in_all(self) -> int:
        """How many attempts it gets: `max_retries`, but at least one."""
        return max(self.max_retries, 1)


WAITING = (JobState.PENDING, JobState.FAILED)
OVER = (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED)
SHOWN_FIELDS = tuple(field.name for field in fields(Job) if field.name not in ("seq", "parents"))
OPTIONAL_FIELDS = (
    "priority",
    "queue",
    "signal",
    "timed_out",
    "after",
    "after_any",
    "dependents",
    "unique",
    "labels",
    "env",
    "shell",
    "backoff_base",
    "backoff_max",
    "success_codes",
    "no_retry_on",
    "parents",
)
"""The fields that an object need not have: where they are missing they have their default."""

_LISTS = ("after", "after_any", "labels", "success_codes", "no_retry_on")
DEFAULTS: Dict[str, Any] = {field.name: field.default for field in fields(Job)}
FIRST_FIELDS = ("id", "seq", "state", "run_at")
"""The fields that come first where a job is written down: what scheduling needs."""

_BLANK = Job("", "", JobState.PENDING, 0, 0, "", "")
# In the order in which a job is written down, so that nobody has to put that right.
_NEW = {
    name: getattr(_BLANK, name)
    for name in dict.fromkeys((*FIRST_FIELDS, *DEFAULTS))
    if name not in OPTIONAL_FIELDS
}


def _parted(assignment: str) -> Tuple[str, str, str]:
    return assignment.partition("=")


def enqueue(
    job_id: str,
    command: str,
    now: float,
    *,
    max_retries: int,
    timeout: Optional[float] = None,
    cwd: str = "/",
    run_at: Optional[float] = None,
    **options: Any,
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
        **options: fields of `Job` that are set at enqueue, already checked.

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
        **options,
    )


def another(job: Job, job_id: str, command: str) -> Job:
    """Make a new job that is like another new one but for its id, which is valid, and command.

    Raises:
        InvalidValueError: the command can never be right.
    """
    return _made(job.__dict__, id=job_id, command=validate_command(command))


def placed(job: Job, seq: int, seq_of: Mapping[str, int]) -> Job:
    """Give a new job its place in the order of enqueueing.

    Args:
        job: the job.
        seq: its place.
        seq_of: by id, the places of the jobs for which one may have to wait; those that completed
            need not be among them.
    """
    if not (job.after or job.after_any):
        return _made(job.__dict__, seq=seq)
    must_complete = [seq_of[parent] for parent in job.after if parent in seq_of]
    must_end = [-seq_of[parent] for parent in job.after_any if parent in seq_of]
    return _made(job.__dict__, seq=seq, parents=(*must_complete, *must_end))


def related(job: Job, after: Sequence[str], after_any: Sequence[str], dependents: int) -> Job:
    """Give a new job its parents, and the number of those for which it is one itself."""
    changes = {"after": tuple(after), "after_any": tuple(after_any), "dependents": dependents}
    return _made(job.__dict__, **{k: v for k, v in changes.items() if v != getattr(job, k)})


def awaited(job: Job, now: float, dependents: int) -> Job:
    """Note that so many more jobs wait for this one, which has not completed."""
    return _changed(job, now, dependents=job.dependents + dependents)


def is_due(job: Job, now: float, horizon: float) -> bool:
    """Whether the time of a waiting job has come.

    A retry that lies further ahead than any can is due: the clock stepped back.

    Args:
        job: the job.
        now: the time, in seconds since the epoch.
        horizon: how far ahead a retry without a backoff of its own can lie at the most, in seconds.
    """
    due = now if job.run_at is None else clock.from_iso(job.run_at)
    reach = horizon if job.backoff_max is None else 2 * job.backoff_max
    return due <= now or (job.state == JobState.FAILED and due > now + reach)


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


def complete(job: Job, now: float, exit_code: int = 0) -> Job:
    """End a run that succeeded; it came before any cancel that is still waiting."""
    _require_processing(job, "completed")
    return _changed(
        job,
        now,
        state=JobState.COMPLETED,
        worker=None,
        finished_at=clock.to_iso(now),
        exit_code=exit_code,
        last_error=None,
        cancel_requested=False,
        **_ending(job),
    )


def fail(
    job: Job,
    now: float,
    error: str,
    delay: float,
    exit_code: Optional[int] = None,
    *,
    signal: Optional[int] = None,
    timed_out: bool = False,
) -> Job:
    """End a run that failed: schedule the next attempt, or give the job up if none is left.

    Args:
        job: the job that ran.
        now: the time, in seconds since the epoch.
        error: what went wrong, in words.
        delay: seconds until the next attempt, if there is one.
        exit_code: what the shell ended with, if it ended by itself.
        signal: the number of the signal that ended the shell, if one did.
        timed_out: whether the run was ended because its time was over.
    """
    _require_processing(job, "failed")
    how = {"last_error": error, "exit_code": exit_code, **_ending(job, signal, timed_out)}
    if job.cancel_requested:
        return _cancelled(job, now, **how)
    is_final = exit_code is not None and exit_code in job.no_retry_on
    if job.attempts < job.attempts_in_all and not is_final:
        return _changed(
            job,
            now,
            state=JobState.FAILED,
            worker=None,
            run_at=clock.to_iso(now + delay),
            **how,
        )
    return _changed(
        job, now, state=JobState.DEAD, worker=None, finished_at=clock.to_iso(now), **how
    )


def rescue(job: Job, now: float, delay: float) -> Job:
    """Take a job from a dead worker.

    It is a failed attempt, so that a job which kills its worker cannot loop.
    """
    return fail(job, now, WORKER_DIED, delay)


def release(job: Job, now: float) -> Job:
    """Give a job back whose run was ended by a shutdown.

    The attempt is not charged, the interruption is counted.
    """
    _require_processing(job, "released")
    count = job.interruptions + 1
    error = "Interrupted at shutdown" + (f" ({count} times)" if count > 1 else "")
    if job.cancel_requested:
        return _cancelled(
            job, now, last_error=error, interruptions=count, exit_code=None, **_ending(job)
        )
    return _changed(
        job,
        now,
        state=JobState.PENDING,
        worker=None,
        attempts=job.attempts - 1,
        interruptions=count,
        last_error=error,
        exit_code=None,
        **_ending(job),
    )


def cancel(job: Job, now: float, reason: Optional[str] = None) -> Job:
    """End a waiting job, or ask for the end of a running one.

    Args:
        job: the job.
        now: the time, in seconds since the epoch.
        reason: in words, why a waiting job is cancelled, if nobody asked for that.
    """
    if job.state == JobState.PROCESSING:
        return _changed(job, now, cancel_requested=True)
    if not job.waits:
        raise _wrong_state(job, "cancelled")
    return _cancelled(job, now) if reason is None else _cancelled(job, now, last_error=reason)


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


def edit(job: Job, now: float, run_at: Optional[float] = None, **changes: Any) -> Job:
    """Change what a job was enqueued with, while it waits or is dead.

    Args:
        job: the job.
        now: the time, in seconds since the epoch; so is `run_at`.
        run_at: the earliest start of a job that waits; one that has passed means now.
        **changes: new values of `command`, `priority`, `queue` or `max_retries`, already checked.

    Raises:
        WrongStateError: it neither waits nor is dead, or what is asked for does not go with how far
            it is.
    """
    if not (job.waits or job.state == JobState.DEAD):
        raise _wrong_state(job, "edited")
    if "max_retries" in changes and job.waits and max(changes["max_retries"], 1) <= job.attempts:
        raise WrongStateError(
            f"job {job.id!r} has used {job.attempts} attempts: give it more of them, or cancel it"
        )
    if run_at is not None:
        if not job.waits:
            raise WrongStateError(f"job {job.id!r} is {job.state}: only what waits has a run-at")
        # It is no retry any more: of one far ahead a claim believes that the clock stepped back.
        changes["state"] = JobState.PENDING
        changes["run_at"] = clock.to_iso(run_at) if run_at > now else None
    return _changed(job, now, **changes)


def _ending(job: Job, signal: Optional[int] = None, timed_out: bool = False) -> Dict[str, Any]:
    """The fields that tell how a run ended, as far as they change."""
    ending = {"signal": signal, "timed_out": timed_out}
    return {name: value for name, value in ending.items() if value != getattr(job, name)}


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
