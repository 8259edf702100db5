"""What a user does to jobs that are there: retry, cancel, edit and purge them, all or none.

Each reads the jobs, decides by the rules in `job`, and has the store save the result; if one moved
on meanwhile, it is done over again.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, TypeVar

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import ConflictError, KeyTakenError, WrongStateError
from queuectl.family import doomed
from queuectl.filter import JobFilter
from queuectl.job import OVER, Job, JobState
from queuectl.store.base import Store
from queuectl.values import (
    validate_attempts,
    validate_command,
    validate_priority,
    validate_queue,
)

T = TypeVar("T")

_CHECKS: Dict[str, Callable[[Any], object]] = {
    "command": validate_command,
    "priority": validate_priority,
    "queue": validate_queue,
    "max_retries": validate_attempts,
}

Read = Callable[[], List[Job]]
"""Reads, each time anew, the jobs that are meant."""


class Cancelled(NamedTuple):
    """What a cancel did.

    Attributes:
        jobs: those that were meant, as they are now; one that runs is ended soon.
        followers: those that are cancelled too, for they were to follow one of them.
    """

    jobs: List[Job]
    followers: List[Job]


class Retried(NamedTuple):
    """What a retry did.

    Attributes:
        jobs: those that are pending now.
        refused: why others are not, by id.
    """

    jobs: List[Job]
    refused: Dict[str, KeyTakenError]


def retry(store: Store, read: Read, lenient: bool = False) -> Retried:
    """Make failed, dead and cancelled jobs pending again.

    Args:
        store: where they are.
        read: gives them.
        lenient: whether to pass over those whose unique key another job has.

    Raises:
        WrongStateError: one is in another state.
        KeyTakenError: another job has the unique key of one.
    """
    refused: Dict[str, KeyTakenError] = {}

    def attempt() -> Optional[Retried]:
        now = store.now()
        retried = [rules.retry(job, now) for job in read() if job.id not in refused]
        try:
            if retried:
                store.save(retried)
        except KeyTakenError as taken:
            if not lenient:
                raise
            rivals = [job.id for job in retried if job.unique == taken.key]
            refused.update((each, taken) for each in rivals if each != taken.holder)
            return None
        return Retried(retried, refused)

    return _until_done(attempt)


def cancel(store: Store, read: Read) -> Cancelled:
    """End jobs that wait, with all that were to follow them; ask for the end of those that run.

    Args:
        store: where they are.
        read: gives them.

    Raises:
        WrongStateError: one is over.
    """

    def attempt() -> Cancelled:
        now = store.now()
        meant = read()
        changed = [job if job.cancel_requested else rules.cancel(job, now) for job in meant]
        ended = [job for job in changed if job.is_over]
        followers = doomed(store, ended, now, "cancelled")
        asked = [job for was, job in zip(meant, changed) if job is not was]
        if asked:
            store.save([*asked, *followers])
        return Cancelled(changed, followers)

    return _until_done(attempt)


def edit(store: Store, read: Callable[[], Job], changes: Dict[str, Any]) -> Job:
    """Change what a job was enqueued with; see `job.edit`.

    Args:
        store: where it is.
        read: gives it.
        changes: the arguments of `job.edit`.

    Raises:
        InvalidValueError: one can never be right.
    """
    for name, value in changes.items():
        if name in _CHECKS:
            _CHECKS[name](value)

    def attempt() -> Job:
        edited = rules.edit(read(), store.now(), **changes)
        store.save([edited])
        return edited

    return _until_done(attempt)


def purge(store: Store, jobs: Sequence[Job]) -> Cancelled:
    """Delete jobs that are over and their output, all or none, and cancel those they leave behind.

    What was to follow a job that completed may run; what was to follow another never could.

    Raises:
        WrongStateError: one is not over.
        ConflictError: one has changed.
    """
    for job in jobs:
        if not job.is_over:
            raise WrongStateError(f"job {job.id!r} is {job.state}: it cannot be purged")
    given_up = [job for job in jobs if job.state != JobState.COMPLETED]
    followers = doomed(store, given_up, store.now(), "purged")
    store.remove(jobs, followers)
    return Cancelled(list(jobs), followers)


def purge_in_parts(store: Store, jobs: Sequence[Job]) -> Cancelled:
    """Delete many jobs that are over, some at a time, passing over those that change meanwhile."""
    purged: List[Job] = []
    followers: List[Job] = []
    at_once = store.removes_at_once
    for start in range(0, len(jobs), at_once):
        part = list(jobs[start : start + at_once])
        while part:
            try:
                done = purge(store, part)
            except ConflictError:
                left = {job.seq: job for job in store.select(OVER)}
                part = [job for job in part if left.get(job.seq) == job]
            else:
                purged += done.jobs
                followers += done.followers
                break
    return Cancelled(purged, followers)


def purge_old(store: Store, keep: str) -> Cancelled:
    """Delete what completed or was cancelled, but what is to be kept.

    Args:
        store: where it is.
        keep: what the setting `keep_finished` says: so many that ended last, or those that ended in
            so long.
    """
    wanted = JobFilter((JobState.COMPLETED, JobState.CANCELLED))
    if not keep.isdigit():
        wanted = wanted._replace(ended_before=store.now() - clock.parse_duration(keep))
        return purge_in_parts(store, [j for j in store.select(wanted.states) if wanted.takes(j)])
    ends = ((job.finished_at or "", job.seq) for job in store.select(wanted.states))
    old = {seq for _, seq in sorted(ends, reverse=True)[int(keep) :]}
    return purge_in_parts(store, [job for job in store.select(wanted.states) if job.seq in old])


def _until_done(attempt: Callable[[], Optional[T]]) -> T:
    while True:
        try:
            done = attempt()
        except ConflictError:
            continue
        if done is not None:
            return done
