"""A job that is to be enqueued, as a command line, a line of a file or a program asks for it."""

from __future__ import annotations

import math
import os
import uuid
from typing import Any, Dict, NamedTuple, Optional, Sequence

from queuectl import job as rules
from queuectl.clock import MAX_DURATION
from queuectl.config import Settings
from queuectl.errors import InvalidValueError, RequestError
from queuectl.job import DEFAULTS, Job
from queuectl.text import as_utf8
from queuectl.values import (
    MAX_BACKOFF_BASE,
    is_shell,
    validate_attempts,
    validate_codes,
    validate_key,
    validate_label,
    validate_priority,
    validate_queue,
    validate_variables,
)

NO_LIMIT = math.inf
"""The timeout, or the longest delay, of a new job that has no limit, whatever the setting says."""

SKIP, ERROR, REPLACE = "skip", "error", "replace"
"""What to do if the unique key of a new job is taken: nothing; refuse; take its place."""


class NewJob(NamedTuple):
    """A job to enqueue; what is not given comes from the settings.

    Attributes:
        command: the shell line.
        id: its id; a random UUID if none is given.
        max_retries: attempts in all.
        timeout: seconds that an attempt may run, or `NO_LIMIT`; none for the setting's value.
        cwd: the folder to run in; the current one if none is given.
        priority: higher ones run first.
        queue: the queue to put it in.
        run_at: the earliest start, in seconds since the epoch.
        delay: the seconds before its earliest start, in place of `run_at`; 0 means now.
        after: ids of jobs that must complete before it.
        after_any: ids of jobs that must end before it, however.
        unique: a key that at most one job may have that is not over.
        on_conflict: what to do if the key is taken: `skip`, `error` or `replace`.
        labels: words by which to find it.
        env: `NAME=VALUE`s for its environment.
        shell: the program that runs it; none for the setting's.
        backoff_base: the base of its delays, in seconds; none for the setting's.
        backoff_max: its longest delay, in seconds, or `NO_LIMIT`; none for the setting's.
        success_codes: the exit codes that complete it.
        no_retry_on: the exit codes after which it is not tried again.
    """

    command: str
    id: Optional[str] = None
    max_retries: Optional[int] = None
    timeout: Optional[float] = None
    cwd: Optional[str] = None
    priority: Optional[int] = None
    queue: Optional[str] = None
    run_at: Optional[float] = None
    delay: Optional[float] = None
    after: Sequence[str] = ()
    after_any: Sequence[str] = ()
    unique: Optional[str] = None
    on_conflict: Optional[str] = None
    labels: Sequence[str] = ()
    env: Sequence[str] = ()
    shell: Optional[str] = None
    backoff_base: Optional[float] = None
    backoff_max: Optional[float] = None
    success_codes: Optional[Sequence[int]] = None
    no_retry_on: Optional[Sequence[int]] = None


def make_job(request: NewJob, settings: Settings, now: float, cwd: str) -> Job:
    """Make the job that is asked for.

    Args:
        request: what is asked for.
        settings: for what is not.
        now: the time as the store sees it, in seconds since the epoch.
        cwd: the folder where nothing is asked for.

    Raises:
        InvalidValueError: it can never be right.
    """
    if request.run_at is not None and request.delay is not None:
        raise InvalidValueError("choose one of run_at and delay")
    timeout = settings["job_timeout"] if request.timeout is None else request.timeout
    return rules.enqueue(
        request.id if request.id is not None else str(uuid.uuid4()),
        request.command,
        now,
        max_retries=(
            settings["max_retries"]
            if request.max_retries is None
            else validate_attempts(request.max_retries)
        ),
        timeout=None if timeout == NO_LIMIT else timeout,
        cwd=request.cwd or cwd,
        run_at=request.run_at if request.delay is None else now + request.delay,
        **_options(request, settings),
    )


def make_like(request: NewJob, other: NewJob, job: Job) -> Optional[Job]:
    """Make the job that is asked for from the one of another request, if all but commands is equal.

    It takes half the time, which the lines of a long file need not pay each.

    Raises:
        InvalidValueError: it can never be right.
    """
    if request.id is not None or request[1:] != other[1:]:
        return None
    return rules.another(job, str(uuid.uuid4()), request.command)


def _options(request: NewJob, settings: Settings) -> Dict[str, Any]:
    """The fields of a job that most do not have."""
    if request[_FIRST_OPTION:] == _USUAL:
        # As those of a long file mostly are.
        return {}
    options: Dict[str, Any] = {
        "priority": None if request.priority is None else validate_priority(request.priority),
        "queue": None if request.queue is None else validate_queue(request.queue),
        "after": tuple(dict.fromkeys(request.after)),
        "after_any": tuple(dict.fromkeys(request.after_any)),
        "unique": None if request.unique is None else validate_key(request.unique),
        "labels": tuple(dict.fromkeys(map(validate_label, request.labels))),
        "env": validate_variables(request.env),
        "shell": _checked_shell(request.shell),
        "success_codes": _codes(request.success_codes),
        "no_retry_on": _codes(request.no_retry_on),
    }
    if request.backoff_base is not None or request.backoff_max is not None:
        options.update(_backoff(request, settings))
    return {
        name: value
        for name, value in options.items()
        if value is not None and value != DEFAULTS[name]
    }


def _backoff(request: NewJob, settings: Settings) -> Dict[str, float]:
    """Its own backoff, whole: so that how far ahead a retry can lie is known for good."""
    policy = settings.retry_policy
    base = policy.base if request.backoff_base is None else request.backoff_base
    longest = policy.maximum if request.backoff_max is None else request.backoff_max
    if not 0 <= base <= MAX_BACKOFF_BASE:
        raise InvalidValueError(f"backoff base {base:g} is not between 0 and {MAX_BACKOFF_BASE:g}")
    if longest <= 0:
        raise InvalidValueError(f"longest delay {longest:g} is not above 0")
    return {"backoff_base": float(base), "backoff_max": float(min(longest, MAX_DURATION))}


def _codes(codes: Optional[Sequence[int]]) -> Optional[Sequence[int]]:
    return None if codes is None else validate_codes(codes)


def _checked_shell(shell: Optional[str]) -> Optional[str]:
    if shell is not None and not is_shell(shell):
        raise InvalidValueError(f"{shell!r} is not the absolute path of a shell, such as /bin/bash")
    return shell


def current_folder() -> str:
    """Return the current folder as the user calls it: `$PWD` where it is the same one.

    Raises:
        RequestError: it was deleted.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise RequestError("the current folder was deleted: change to one that exists") from error
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, here):
            return as_utf8(named)
    except OSError:
        pass
    return as_utf8(here)


_FIRST_OPTION = NewJob._fields.index("priority")
_USUAL = NewJob("")[_FIRST_OPTION:]
