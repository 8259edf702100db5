"""Many jobs, many workers: each runs exactly once, whatever else is done to the store meanwhile."""

from __future__ import annotations

import os
import time
from typing import List

import pytest

import support
from queuectl.job import JobState
from queuectl.store.base import Counts
from queuectl.store.file import FileStore
from queuectl.store.journal import Journal
from queuectl.store.record import to_line
from starting import HOLD, Queue
from support import Cli, Process, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

COUNT = 300


def start_all_at_once(queue: Queue, starts: int, count: int) -> List[Process]:
    """Have so many `start` with so many workers each wait for jobs, and give them many."""
    queue.add(HOLD, id="held")
    processes = [queue.start("--count", str(count), "--drain") for _ in range(starts)]
    queue.wait_for_runner("held")
    queue.wait_for_workers(starts * count)
    queue.add_many({f"job-{number}": "echo $QUEUECTL_JOB_ID >> ran" for number in range(COUNT)})
    queue.let_go()
    return processes


def each_ran_once(queue: Queue) -> None:
    ids = [f"job-{number}" for number in range(COUNT)]
    assert sorted(queue.read("ran").split()) == sorted(ids)
    jobs = queue.jobs()
    assert [job.id for job in jobs] == ["held", *ids]
    for job in jobs:
        assert (job.state, job.attempts, job.runs) == ("completed", 1, 1)
    assert queue.counts() == Counts(completed=COUNT + 1)


def test_two_starts_at_once_run_each_job_exactly_once(cli: Cli) -> None:
    queue = Queue(cli)
    processes = start_all_at_once(queue, starts=2, count=4)
    for process in processes:
        process.finish(0)
    each_ran_once(queue)
    shares = [process.out.count("Job completed: echo") for process in processes]
    assert sum(shares) == COUNT
    assert min(shares) > 0
    assert os.listdir(cli.store / "workers") == []


def test_rewriting_the_store_under_load_loses_nothing(cli: Cli) -> None:
    queue = Queue(cli)
    [start] = start_all_at_once(queue, starts=1, count=4)
    store = FileStore(str(cli.store))
    rewritten = 0
    while start.poll() is None:
        rewritten += store.rewrite()
    store.close()
    start.finish(0)
    assert rewritten > 3
    each_ran_once(queue)
    assert start.err == ""
    assert list(cli.store.glob("history-*.jsonl"))


def test_jobs_that_come_and_fail_while_the_store_is_rewritten_are_retried(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0.2")
    start = queue.start("--count", "4")
    queue.wait_for_workers(4)
    flaky = "echo $QUEUECTL_JOB_ID.$QUEUECTL_JOB_RUN >> ran; [ $QUEUECTL_JOB_RUN = 2 ]"
    with queue.opened() as manager:
        for number in range(40):
            manager.enqueue(flaky, id=f"job-{number}", cwd=str(queue.folder))
            manager.store.rewrite()
        deadline = time.monotonic() + 20
        while manager.counts().completed < 40:
            manager.store.rewrite()
            assert time.monotonic() < deadline
    start.terminate()
    start.finish(0)
    expected = [f"job-{number}.{run}" for number in range(40) for run in (1, 2)]
    assert sorted(queue.read("ran").split()) == sorted(expected)
    assert start.err == ""


@pytest.mark.slow
def test_start_rewrites_the_store_itself_once_that_is_worth_its_while(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="first")
    queue.add(HOLD, id="held")
    job_file = cli.store / "jobs.jsonl"
    journal = Journal(str(job_file))
    journal.follow()
    lines = [to_line(queue.job("held"))] * 110_000
    journal.append(lines, {**journal.meta, "lines": journal.meta["lines"] + len(lines)})
    journal.close()
    size = job_file.stat().st_size
    start = queue.start("--count", "2")
    wait_until(lambda: job_file.stat().st_size < size / 1000, what="the rewrite")
    queue.wait_for("first", JobState.COMPLETED)
    queue.add("true", id="last")
    queue.wait_for("last", JobState.COMPLETED)
    queue.let_go()
    queue.wait_for("held", JobState.COMPLETED)
    assert [job.runs for job in queue.jobs()] == [1, 1, 1]
    start.terminate()
    start.finish(0)
    assert start.err == ""
