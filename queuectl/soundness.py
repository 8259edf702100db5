"""Whether what claims to be a job can be one: its types, and how its fields fit together.

What is told apart here follows from the rules in `job`: no sequence of events makes a job that this
refuses.
"""

from __future__ import annotations

import functools
from dataclasses import MISSING, fields
from operator import attrgetter
from typing import Any, Dict, Mapping, Tuple

from queuectl import clock
from queuectl.config import MAX_ATTEMPTS
from queuectl.errors import InvalidValueError
from queuectl.job import Job, JobState, validate_command, validate_id

_OVER = (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED)
_TIMES = ("created_at", "updated_at", "run_at", "started_at", "finished_at")
_KINDS: Dict[str, Tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}
_TYPES: Dict[str, Tuple[type, ...]] = {
    field.name: (
        (*_KINDS[str(field.type)[len("Optional[") : -1]], type(None))
        if str(field.type).startswith("Optional[")
        else _KINDS[str(field.type)]
    )
    for field in fields(Job)
}
_NUMBERS = ("attempts", "max_retries", "runs", "rev", "interruptions")
_numbers = attrgetter(*_NUMBERS)
_REQUIRED = frozenset(field.name for field in fields(Job) if field.default is MISSING)

# Jobs that came together share their times, and reading one takes as long as all the rest.
_read_time = functools.lru_cache(maxsize=1024)(clock.from_iso)


def to_record(values: Mapping[str, Any]) -> Job:
    """Make a job of a record that can be worked with, whatever it says: known fields, right types.

    What has a default may be missing, as in a record of an older QueueCTL.

    Raises:
        InvalidValueError: it is none; the message names the field.
    """
    # Not by isinstance, for which true is a number.
    _check_shape(tuple(values), tuple(map(type, values.values())))
    if len(values) == len(_TYPES):
        # As the constructor does it, without a call for each field.
        job = object.__new__(Job)
        job.__dict__.update(values)
    else:
        job = Job(**values)
    validate_id(job.id)
    if job.state not in JobState.ALL:
        raise InvalidValueError(f"{job.state!r} is no state")
    for name in _TIMES:
        if values.get(name) is not None:
            _check_time(name, values[name])
    return job


def check_fit(job: Job) -> None:
    """Check that a job can have come about by the rules in `job`.

    Raises:
        InvalidValueError: it cannot; the message names the field.
    """
    validate_command(job.command)
    _check_values(job)
    _check_state(job)


def to_job(values: Mapping[str, Any]) -> Job:
    """Make a job of its record, as `Job.to_dict` gives it.

    Raises:
        InvalidValueError: it is none, or cannot have come about; the message names the field.
    """
    if "seq" in values:
        raise InvalidValueError("'seq' is no field of a job")
    job = to_record(values)
    check_fit(job)
    for name, number in zip(_NUMBERS, _numbers(job)):
        # It must be able to go on counting.
        if number >= 1 << 52:
            raise InvalidValueError(f"{name} is out of range")
    return job


# Of few shapes, where there are many records.
@functools.lru_cache(maxsize=1024)
def _check_shape(names: Tuple[str, ...], types: Tuple[type, ...]) -> None:
    for name, kind in zip(names, types):
        if name not in _TYPES:
            raise InvalidValueError(f"{name!r} is no field of a job")
        if kind not in _TYPES[name]:
            raise InvalidValueError(f"{name} is of the wrong type")
    missing = sorted(_REQUIRED.difference(names))
    if missing:
        raise InvalidValueError(f"{missing[0]} is missing")


def _check_time(name: str, text: str) -> None:
    try:
        _read_time(text)
    except InvalidValueError as error:
        raise InvalidValueError(f"{name}: {error}") from error


def _check_values(job: Job) -> None:
    for name, number in zip(_NUMBERS, _numbers(job)):
        if not 0 <= number < 1 << 53:
            raise InvalidValueError(f"{name} is out of range")
    if job.max_retries > MAX_ATTEMPTS:
        raise InvalidValueError(f"max_retries is not between 0 and {MAX_ATTEMPTS}")
    if job.timeout is not None and not 0 < job.timeout <= clock.MAX_DURATION:
        raise InvalidValueError("timeout is not between 0 and a century")
    try:
        is_path = job.cwd.startswith("/") and b"\0" not in job.cwd.encode(
            "utf-8", "surrogateescape"
        )
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise InvalidValueError("cwd is not an absolute path")


def _check_state(job: Job) -> None:
    runs = job.state == JobState.PROCESSING
    # A repair may have put one that was never tried with the dead.
    tried = job.state in (JobState.PROCESSING, JobState.COMPLETED, JobState.FAILED)
    most = job.attempts_in_all - (1 if job.waits else 0)
    if not tried <= job.attempts <= min(most, job.runs):
        name = "attempts"
    elif bool(job.worker) != runs:
        name = "worker"
    elif (
        job.run_at is None
        if job.state == JobState.FAILED
        else job.run_at is not None and job.state != JobState.PENDING
    ):
        name = "run_at"
    elif (job.started_at is None) != (job.runs == 0):
        name = "started_at"
    elif (job.finished_at is None) == (job.state in _OVER):
        name = "finished_at"
    elif job.cancel_requested and not runs:
        name = "cancel_requested"
    else:
        return
    raise InvalidValueError(f"{name} does not fit a {job.state} job")
