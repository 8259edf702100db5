"""Every error that QueueCTL raises on purpose, each with the exit code that the CLI gives it.

    QueueError
    ├── RequestError             1   the request could not be met
    │   ├── NotFoundError            no job has this id
    │   ├── AmbiguousIdError         several jobs begin with this prefix
    │   ├── DuplicateIdError         a job with this id exists
    │   ├── KeyTakenError            another job has this unique key
    │   ├── WrongStateError          the job's state does not allow it
    │   └── ConflictError            the job changed since it was read
    │       └── ClaimLostError       the claim under which it was run is over
    ├── InvalidValueError        2   a value that can never be right
    ├── StoreError               3   the store cannot be opened or written
    │   ├── NoStoreError             there is none at this place
    │   ├── StoreGoneError           the store was removed while in use
    │   ├── StoreAwayError           its server does not answer just now
    │   ├── StoreFullError           no room on the disk (or over a limit of size)
    │   └── OutcomeUnknownError      written, but the disk did not confirm it
    ├── DamagedError             4   the store holds bytes that nobody wrote
    ├── StoreLockedError        75   another process holds the lock for too long
    └── WaitTimeoutError       124   the time to wait for jobs is over

Anything else that escapes is a bug: the CLI lets its traceback through and exits with 70.
"""

from __future__ import annotations

from typing import Optional, Sequence


class QueueError(Exception):
    """The root of the tree; `str()` of it is one line, fit for a terminal.

    Attributes:
        exit_code: what a command ends with.
        request: of several jobs to be enqueued, the number of the one that is to blame, from 0.
    """

    exit_code = 1
    request: Optional[int] = None


class RequestError(QueueError):
    """The request could not be met: no such job, wrong state, duplicate id."""


class NotFoundError(RequestError):
    """No job has this id, nor begins with it.

    Args:
        job_id: the id or prefix that was asked for.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r} not found")
        self.job_id = job_id


class AmbiguousIdError(RequestError):
    """Several ids begin with the prefix that was given.

    Args:
        prefix: what was asked for.
        candidates: up to five of the ids that begin with it.
    """

    def __init__(self, prefix: str, candidates: Sequence[str]) -> None:
        super().__init__(f"job {prefix!r} is ambiguous: {', '.join(candidates)}")
        self.candidates = tuple(candidates)


class DuplicateIdError(RequestError):
    """A job with this id exists already, finished or not.

    Args:
        job_id: the id that is taken.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r} exists already: choose another --id")
        self.job_id = job_id


class KeyTakenError(RequestError):
    """Another job that is not over has the unique key.

    Args:
        key: the key.
        holder: the id of the job that has it.
    """

    def __init__(self, key: str, holder: str) -> None:
        super().__init__(f"unique key {key!r} is held by job {holder!r}")
        self.key = key
        self.holder = holder


class WrongStateError(RequestError):
    """The job's state does not allow what was asked."""


class ConflictError(RequestError):
    """The job changed between reading and saving it: read it and decide again.

    Args:
        job_id: the job that moved on.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r} changed meanwhile: try again")
        self.job_id = job_id


class ClaimLostError(ConflictError):
    """The claim under which a result was reported is no longer the job's current one."""


class InvalidValueError(QueueError):
    """A value that can never be right, whatever the store holds."""

    exit_code = 2


class StoreError(QueueError):
    """The store cannot be opened or written."""

    exit_code = 3


class NoStoreError(StoreError):
    """There is no store at this place, and the command at hand does not make one.

    Args:
        path: where it would be.
    """

    def __init__(self, path: str) -> None:
        super().__init__(f"no store at {path}: queuectl enqueue makes one")
        self.path = path


class StoreGoneError(StoreError):
    """The store's folder was removed, or made anew, while this process used it."""


class StoreAwayError(StoreError):
    """The server that keeps the store does not answer, or not yet: it may be back before long."""


class StoreFullError(StoreError):
    """The disk is full, or a limit of size was reached: nothing was changed."""


class OutcomeUnknownError(StoreError):
    """The change was written, but the disk did not confirm that it holds it."""


class DamagedError(QueueError):
    """The store holds bytes that no QueueCTL wrote.

    Args:
        path: the damaged file.
        offset: bytes from its beginning at which the damage starts at the earliest.
        reason: what is wrong there, in a few words.
    """

    exit_code = 4

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(f"store damaged: {path} at byte {offset}: {reason}; see queuectl doctor")
        self.path = path
        self.offset = offset
        self.reason = reason


class StoreLockedError(QueueError):
    """Another process has held the store's lock for longer than anybody should wait."""

    exit_code = 75


class WaitTimeoutError(QueueError):
    """The time to wait for jobs is over, and they are not.

    Args:
        left: how many have not ended.
        timeout: how long they were waited for, in seconds.
    """

    exit_code = 124

    def __init__(self, left: int, timeout: float) -> None:
        jobs = "1 job has" if left == 1 else f"{left} jobs have"
        super().__init__(f"{jobs} not ended after {timeout:g} seconds")
        self.left = left
