"""The setting `keep_finished`: `start` purges what ended long ago, or all but the newest."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import List, Sequence

import pytest

from queuectl import changes, clock
from queuectl import job as rules
from queuectl.job import Job
from queuectl.manager import QueueManager
from queuectl.testing import MemoryStore
from starting import Queue
from support import Cli

DAY = 86400.0

QUICK = """
import os
from queuectl.cli import main
from queuectl.pool import Pool

fill = Pool.fill

def fill_and_await(pool):
    fill(pool)
    if not pool.is_over:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)

Pool.fill = fill_and_await
main()
"""
"""`queuectl`, with a worker that has ended before the supervisor looks at anything."""


def end(manager: QueueManager, job_id: str, state: str, age: float) -> None:
    """Add a job that ended so many seconds ago."""
    then = clock.now() - age
    job = rules.enqueue(job_id, "true", then, max_retries=1)
    if state == "cancelled":
        job = rules.cancel(job, then)
    else:
        job = rules.claim(job, "w", then)
        ended = rules.complete(job, then) if state == "completed" else None
        job = ended or rules.fail(job, then, "Exit code 1", 0, 1)
    manager.store.add([job], [job_id])


def ids(queue: Queue) -> List[str]:
    return [job.id for job in queue.jobs()]


@pytest.fixture
def queue(cli: Cli) -> Queue:
    queue = Queue(cli)
    with queue.opened() as manager:
        for age in (9, 4, 1):
            for state in ("completed", "cancelled", "dead"):
                end(manager, f"{state}-{age}", state, age * DAY)
    return queue


def is_older_than_it_is(queue: Queue, monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    monkeypatch.setattr("queuectl.store.file.FileStore.age", lambda store: days * DAY)


def test_what_is_too_old_goes_and_the_dead_stay(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.configure(keep_finished="5d")
    is_older_than_it_is(queue, monkeypatch, 9)
    with queue.opened() as manager:
        assert manager.purge_is_due()
        manager.purge_old()
        # The next look is another hour's.
        assert not manager.purge_is_due()
    left = [
        "dead-9",
        "completed-4",
        "cancelled-4",
        "dead-4",
        "completed-1",
        "cancelled-1",
        "dead-1",
    ]
    assert ids(queue) == left


def test_in_a_store_that_is_younger_nothing_is_looked_for(queue: Queue) -> None:
    with queue.opened() as manager:
        assert not manager.purge_is_due()


def test_but_so_many_that_ended_last_go(queue: Queue) -> None:
    queue.configure(keep_finished="3")
    queue.add("true", id="waits", run_at=clock.now() + DAY)
    with queue.opened() as manager:
        totals = manager.store.enqueued(), manager.store.totals()
    queue.drain()
    # Of those that ended at once, the younger one stays.
    assert ids(queue) == [
        "dead-9", "cancelled-4", "dead-4", "completed-1", "cancelled-1", "dead-1", "waits",
    ]  # fmt: skip
    with queue.opened() as manager:
        assert manager.counts().total == 7
        assert (manager.store.enqueued(), manager.store.totals()) == totals
        assert not manager.purge_is_due()


def test_also_if_the_worker_ends_before_the_first_look(queue: Queue) -> None:
    queue.configure(keep_finished="3")
    queue.cli.command = [sys.executable, "-W", "error", "-c", QUICK]
    queue.drain()
    assert len(queue.jobs()) == 6


def test_none_keeps_all(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.configure(keep_finished="none")
    is_older_than_it_is(queue, monkeypatch, 1000)
    with queue.opened() as manager:
        assert not manager.purge_is_due()
        manager.purge_old()
    assert len(ids(queue)) == 9


def test_a_turn_that_was_just_taken_is_not_taken_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with queue.opened() as manager:
        assert manager.store.take_turn(60)
        taken = os.stat(queue.cli.store / "jobs.turn").st_mtime
        # Two looks within a millisecond, which is all that the clock tells.
        os.utime(queue.cli.store / "jobs.turn", (taken, math.floor(taken) + 0.0009))
        monkeypatch.setattr(clock, "now", lambda: float(math.floor(taken)))
        assert not manager.store.take_turn(60)
        monkeypatch.setattr(clock, "now", lambda: taken - 100)
        assert manager.store.take_turn(60)


def test_no_more_go_at_once_than_the_store_can_take(tmp_path: Path) -> None:
    class Recording(MemoryStore):
        removes_at_once = 2

        def remove(self, jobs: Sequence[Job], also: Sequence[Job] = ()) -> None:
            removed.append(len(jobs))
            super().remove(jobs, also)

    removed: List[int] = []
    store = Recording(str(tmp_path))
    manager = QueueManager(store, {})
    for number in range(5):
        end(manager, f"j{number}", "completed", DAY)
    assert len(changes.purge_old(store, "0").jobs) == 5
    assert removed == [2, 2, 1]
