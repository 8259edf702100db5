"""Whether what claims to be a job can be one: its types, and how its fields fit together.

What is told apart here follows from the rules in `job`: no sequence of events makes a job that this
refuses.
"""

from __future__ import annotations

import functools
from dataclasses import MISSING, fields
from operator import attrgetter
from typing import Any, Dict, Mapping, Optional, Tuple

from queuectl import clock
from queuectl.errors import InvalidValueError
from queuectl.job import OPTIONAL_FIELDS, OVER, Job, JobState
from queuectl.values import (
    MAX_ATTEMPTS,
    MAX_BACKOFF_BASE,
    is_shell,
    validate_codes,
    validate_command,
    validate_id,
    validate_key,
    validate_label,
    validate_priority,
    validate_queue,
    validate_variables,
)

_TIMES = ("created_at", "updated_at", "run_at", "started_at", "finished_at")
_KINDS: Dict[str, Tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}
_ELEMENTS: Dict[str, type] = {
    field.name: str if "str" in str(field.type) else int
    for field in fields(Job)
    if str(field.type).startswith("Tuple[")
}
_TYPES: Dict[str, Tuple[type, ...]] = {
    field.name: (
        (*_KINDS[str(field.type)[len("Optional[") : -1]], type(None))
        if str(field.type).startswith("Optional[")
        else _KINDS[str(field.type)]
    )
    for field in fields(Job)
    if field.name not in _ELEMENTS
}
_PLAIN = {field.name for field in fields(Job)}.difference(OPTIONAL_FIELDS)
_NUMBERS = ("attempts", "max_retries", "runs", "rev", "interruptions", "dependents")
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
    lists = {name: tuple(values[name]) for name in _ELEMENTS if name in values}
    for name, elements in lists.items():
        if any(type(element) is not _ELEMENTS[name] for element in elements):
            raise InvalidValueError(f"{name} is of the wrong type")
    if values.keys() >= _PLAIN:
        # As the constructor does it, without a call for each field.
        job = object.__new__(Job)
        job.__dict__.update(values, **lists)
    else:
        job = Job(**{**values, **lists})
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
    """Make a job of its record, as `Job.to_dict` gives it when it reveals all.

    Raises:
        InvalidValueError: it is none, or cannot have come about; the message names the field.
    """
    for name in ("seq", "parents"):
        if name in values:
            raise InvalidValueError(f"{name!r} is no field of a job")
    env = values.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise InvalidValueError("env is no object from name to text")
    job = to_record({**values, "env": [f"{name}={value}" for name, value in env.items()]})
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
        if name not in _TYPES and name not in _ELEMENTS:
            raise InvalidValueError(f"{name!r} is no field of a job")
        if kind not in _TYPES.get(name, (list,)):
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
    if len(job.__dict__) > len(_PLAIN):
        _check_options(job)
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


def _check_backoff(base: Optional[float], longest: Optional[float]) -> None:
    if base is None or longest is None:
        if base != longest:
            raise InvalidValueError("backoff_base and backoff_max do not go together")
    elif not (0 <= base <= MAX_BACKOFF_BASE and 0 < longest <= clock.MAX_DURATION):
        raise InvalidValueError("backoff_base or backoff_max is out of range")


def _check_options(job: Job) -> None:
    validate_queue(job.queue)
    validate_priority(job.priority)
    for parent in (*job.after, *job.after_any):
        validate_id(parent)
    for label in job.labels:
        validate_label(label)
    if job.unique is not None:
        validate_key(job.unique)
    if validate_variables(job.env) != job.env:
        raise InvalidValueError("env names a variable twice")
    for name in ("success_codes", "no_retry_on"):
        if validate_codes(getattr(job, name)) != getattr(job, name):
            raise InvalidValueError(f"{name} is not in order")
    if job.shell is not None and not is_shell(job.shell):
        raise InvalidValueError("shell is not the absolute path of a program")
    _check_backoff(job.backoff_base, job.backoff_max)
    if job.signal is not None and not 0 < job.signal < 128:
        raise InvalidValueError("signal is no number of a signal")
    if len(job.parents) > len(job.after) + len(job.after_any):
        raise InvalidValueError("parents are more than it was to wait for")


def _check_state(job: Job) -> None:
    runs = job.state == JobState.PROCESSING
    # A repair may have put one that was never tried with the dead.
    tried = job.state in (JobState.PROCESSING, JobState.COMPLETED, JobState.FAILED)
    # What is over keeps the attempts that it had, when it is given fewer for the next time.
    most = job.runs if job.is_over else job.attempts_in_all - (1 if job.waits else 0)
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
    elif (job.finished_at is None) == (job.state in OVER):
        name = "finished_at"
    elif job.cancel_requested and not runs:
        name = "cancel_requested"
    else:
        return
    raise InvalidValueError(f"{name} does not fit a {job.state} job")
