"""What makes a store fit to be shared by machines: its own time, which all of them go by."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, List

import pytest

from queuectl import clock
from queuectl.errors import InvalidValueError
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.newjob import NewJob
from queuectl.store.base import Lost, Member
from queuectl.store.file import FileStore

DAY = 86400.0


class OtherClockStore(FileStore):
    """A store whose clock is hours ahead of that of this machine, or behind it."""

    ahead = 0.0

    def now(self) -> float:
        return clock.now() + self.ahead


@pytest.fixture(params=[5 * 3600.0, -5 * 3600.0])
def queue(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[QueueManager]:
    store = OtherClockStore(str(tmp_path / "store"))
    store.ahead = request.param
    yield QueueManager(store, {})
    store.close()


def claim(queue: QueueManager) -> Job:
    job = queue.claim("w1")
    assert job is not None
    return job


def from_now(queue: QueueManager, text: object) -> int:
    """How many minutes a moment lies ahead as the store sees it."""
    return round((clock.from_iso(str(text)) - queue.store.now()) / 60)


def test_what_happens_to_a_job_is_dated_by_the_clock_of_the_store(queue: QueueManager) -> None:
    jobs: List[Job] = []
    jobs.append(queue.enqueue("true", id="a", cwd="/"))
    claimed = claim(queue)
    jobs += [claimed, queue.conclude(claimed, "Exit code 1", 1)]
    queue.finish(jobs[-1])
    jobs += queue.retry(["a"])
    claimed = claim(queue)
    rescued = queue.rescue(Lost(Member("w1", "worker", "w1", 1, "", "", ""), claimed))
    assert rescued is not None
    jobs += [rescued, queue.edit("a", priority=1)]
    jobs += [queue.enqueue("true", id="b", after=["a"], cwd="/"), queue.find("a")]
    jobs += queue.followers([queue.find("a")])
    done = queue.cancel(["a"])
    jobs += [*done.jobs, *done.followers]
    jobs.append(queue.enqueue("true", id="c", cwd="/"))
    claim(queue)
    queue.enqueue("true", id="d", after=["c"], cwd="/")
    queue.cancel(["c"])
    queue.finish(queue.conclude(queue.find("c"), "Ended by cancel"))
    jobs += [queue.find("c"), queue.find("d")]
    assert [job.state for job in jobs[-2:]] == [JobState.CANCELLED] * 2
    queue.enqueue("true", id="e", max_retries=1, cwd="/")
    queue.finish(queue.conclude(claim(queue), "Exit code 1", 1))
    queue.enqueue("true", id="f", after=["e"], cwd="/")
    jobs += queue.purge_dead(["e"]).followers
    assert {from_now(queue, job.updated_at) for job in jobs} == {0}


def test_what_is_due_is_told_by_the_clock_of_the_store(queue: QueueManager) -> None:
    ago = queue.enqueue("true", id="ago", run_at=queue.store.now() - 60, cwd="/")
    assert ago.run_at is None
    later = queue.enqueue("true", id="later", delay=60, cwd="/")
    assert from_now(queue, later.run_at) == 1
    assert queue.scheduled(queue.counts()) == 1
    assert queue.waiting_for(later)[0].kind == "scheduled"
    assert claim(queue).id == "ago"
    assert queue.claim("w2") is None
    assert not queue.is_drained()
    queue.finish(queue.conclude(queue.find("ago"), None, 0))
    assert queue.is_drained()
    edited = queue.edit("later", run_at=queue.store.now() - 60)
    assert edited.run_at is None
    assert not queue.is_drained()
    assert claim(queue).id == "later"


def test_what_is_old_is_told_by_the_clock_of_the_store(queue: QueueManager) -> None:
    queue.configure("keep_finished", "1h")
    for job_id in ("a", "b"):
        queue.enqueue("true", id=job_id, cwd="/")
        queue.finish(queue.conclude(claim(queue), None, 0))
    queue.purge_old()
    assert queue.counts().completed == 2


def test_a_delay_begins_when_the_store_has_the_job(queue: QueueManager) -> None:
    """It is no moment before that; both at once are refused."""
    first, second = queue.enqueue_many(
        [NewJob("true", delay=0, cwd="/"), NewJob("true", delay=DAY, cwd="/")]
    )
    assert first.run_at is None
    assert second.run_at is not None
    assert clock.from_iso(second.run_at) == clock.from_iso(second.created_at) + DAY
    with pytest.raises(InvalidValueError, match="choose one of run_at and delay"):
        queue.enqueue("true", run_at=1, delay=1, cwd="/")
