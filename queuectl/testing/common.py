"""What the parts of the suite share: fixtures, a fixed time, and short ways to make jobs."""

from __future__ import annotations

from typing import Any, Callable, Collection, Iterator, List, Optional, Sequence

import pytest

from queuectl import job as rules
from queuectl.job import Job, JobState
from queuectl.store.base import Store
from queuectl.store.opening import open_store

NOW = 1_762_707_697.0
"""The time of everything that happens; rules are given the time, so no test waits for it."""
HORIZON = 3600.0
"""The longest delay of a retry."""
WAITING = (JobState.PENDING, JobState.FAILED)


class Fixtures:
    """What a store's own test class provides: `url`, or `store` and `reopen`."""

    @pytest.fixture
    def url(self) -> str:
        """Where a new store can be made; another place in each test."""
        raise NotImplementedError("override the fixture `url`, or both `store` and `reopen`")

    @pytest.fixture
    def reopen(self, url: str) -> Iterator[Callable[[], Store]]:
        """Opens the store of the fixture `store` once more, as another process would."""
        opened: List[Store] = []

        def reopen() -> Store:
            opened.append(open_store(url, True, lambda text: None))
            return opened[-1]

        yield reopen
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, reopen: Callable[[], Store]) -> Store:
        """A new, empty store."""
        return reopen()


def new_job(job_id: str, command: str = "true", **values: Any) -> Job:
    """Make a job that was enqueued at `NOW` and has three attempts."""
    return rules.enqueue(job_id, command, NOW, **{"max_retries": 3, **values})


def add(store: Store, *job_ids: str, **values: Any) -> List[Job]:
    """Add jobs with these ids."""
    return store.add([new_job(job_id, **values) for job_id in job_ids], job_ids)


def claim(
    store: Store,
    now: float = NOW,
    worker: str = "w1",
    done: Optional[Job] = None,
    queues: Optional[Collection[str]] = None,
) -> Optional[Job]:
    """Claim a job at this time."""
    return store.claim(worker, now, HORIZON, done, queues=queues)


def claim_one(
    store: Store,
    now: float = NOW,
    worker: str = "w1",
    done: Optional[Job] = None,
    queues: Optional[Collection[str]] = None,
) -> Job:
    """Claim a job that must be there."""
    job = claim(store, now, worker, done, queues)
    assert job is not None
    return job


def run_and_fail(store: Store, due: float, now: float = NOW) -> Job:
    """Claim the next job and fail it, so that it is retried at `due`."""
    failed = rules.fail(claim_one(store, now), now, "Exit code 1", due - now, 1)
    store.save([failed])
    return failed


def run_and_complete(store: Store, now: float = NOW) -> Job:
    """Claim the next job and complete it."""
    completed = rules.complete(claim_one(store, now), now)
    store.save([completed])
    return completed


def claim_all(store: Store, now: float = NOW) -> List[str]:
    """Claim whatever can be claimed; return the ids in that order."""
    claimed: List[str] = []
    while True:
        job = claim(store, now)
        if job is None:
            return claimed
        claimed.append(job.id)


def current(store: Store, job_id: str) -> Job:
    """A job that must be there, as it stands now."""
    job = store.get(job_id)
    assert job is not None
    return job


def everything(store: Store) -> List[Job]:
    """All jobs, newest first."""
    return list(store.select(JobState.ALL))


def ids(jobs: Sequence[Optional[Job]]) -> List[Optional[str]]:
    """The ids of jobs."""
    return [None if job is None else job.id for job in jobs]
