"""Whether what claims to be a job can be one: its types, and how its fields fit together.

What is told apart here follows from the rules in `job`: no sequence of events makes a job that this
refuses.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Dict, Mapping, Tuple

from queuectl import clock
from queuectl.config import MAX_ATTEMPTS
from queuectl.errors import InvalidValueError
from queuectl.job import SHOWN_FIELDS, Job, JobState, validate_command, validate_id

_OVER = (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED)
_KINDS: Dict[str, Tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}


def to_job(values: Mapping[str, Any]) -> Job:
    """Make a job of its record, as `Job.to_dict` gives it.

    Raises:
        InvalidValueError: it is none; the message names the field.
    """
    for name in SHOWN_FIELDS:
        if name not in values:
            raise InvalidValueError(f"{name} is missing")
    for name in values:
        if name not in SHOWN_FIELDS:
            raise InvalidValueError(f"{name!r} is no field of a job")
    _check_types(values)
    job = Job(**values)
    validate_id(job.id)
    validate_command(job.command)
    _check_values(job)
    _check_state(job)
    return job


def _check_types(values: Mapping[str, Any]) -> None:
    for field in fields(Job):
        if field.name not in values:
            continue
        value, kind = values[field.name], str(field.type)
        if kind.startswith("Optional["):
            if value is None:
                continue
            kind = kind[len("Optional[") : -1]
        if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise InvalidValueError(f"{field.name} is of the wrong type")


def _check_values(job: Job) -> None:
    if job.state not in JobState.ALL:
        raise InvalidValueError(f"{job.state!r} is no state")
    for name in ("created_at", "updated_at", "run_at", "started_at", "finished_at"):
        text = getattr(job, name)
        if text is not None:
            try:
                clock.from_iso(text)
            except InvalidValueError as error:
                raise InvalidValueError(f"{name}: {error}") from error
    for name in ("attempts", "max_retries", "runs", "rev", "interruptions"):
        if not 0 <= getattr(job, name) < 1 << 53:
            raise InvalidValueError(f"{name} is out of range")
    if job.max_retries > MAX_ATTEMPTS:
        raise InvalidValueError(f"max_retries is not between 0 and {MAX_ATTEMPTS}")
    if job.timeout is not None and not 0 < job.timeout <= clock.MAX_DURATION:
        raise InvalidValueError("timeout is not between 0 and a century")
    if not job.cwd.startswith("/") or "\0" in job.cwd:
        raise InvalidValueError("cwd is not an absolute path")


def _check_state(job: Job) -> None:
    runs = job.state == JobState.PROCESSING
    tried = job.state in (JobState.PROCESSING, JobState.COMPLETED, JobState.FAILED, JobState.DEAD)
    most = job.attempts_in_all - (1 if job.waits else 0)
    wrong: Dict[str, bool] = {
        "attempts": not tried <= job.attempts <= min(most, job.runs),
        "worker": bool(job.worker) != runs,
        "run_at": (
            job.run_at is None
            if job.state == JobState.FAILED
            else job.run_at is not None and job.state != JobState.PENDING
        ),
        "started_at": (job.started_at is None) != (job.runs == 0),
        "finished_at": (job.finished_at is None) == (job.state in _OVER),
        "cancel_requested": job.cancel_requested and not runs,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise InvalidValueError(f"{name} does not fit a {job.state} job")
