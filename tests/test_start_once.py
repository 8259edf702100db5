"""Many jobs, many workers: each runs exactly once, whatever else is done to the store meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import time
from typing import List

import pytest

import support
from queuectl.job import JobState
from queuectl.store.base import Counts
from queuectl.store.file import FileStore
from queuectl.store.journal import Journal
from queuectl.store.record import to_line
from starting import HOLD, Queue, kill, wait_until_gone
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
    assert rewritten
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


def supersede_many(queue: Queue, job_id: str) -> int:
    """Write a job's line so often that a rewrite is worth its while; return the file's size."""
    job_file = queue.cli.store / "jobs.jsonl"
    journal = Journal(str(job_file))
    journal.follow()
    lines = [to_line(queue.job(job_id))] * 110_000
    journal.append(lines, {**journal.meta, "lines": journal.meta["lines"] + len(lines)})
    journal.close()
    return job_file.stat().st_size


@pytest.mark.slow
def test_start_rewrites_the_store_itself_once_that_is_worth_its_while(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="first")
    queue.add(HOLD, id="held")
    job_file = cli.store / "jobs.jsonl"
    size = supersede_many(queue, "held")
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


@pytest.mark.slow
def test_a_drain_lets_the_rewrite_that_it_began_end(cli: Cli) -> None:
    """A cron line that starts nothing longer would else never get it done."""
    queue = Queue(cli)
    queue.add("true", id="first")
    size = supersede_many(queue, "first")
    queue.drain()
    assert queue.job("first").state == JobState.COMPLETED
    assert (cli.store / "jobs.jsonl").stat().st_size < size / 1000


@pytest.mark.slow
def test_processes_that_are_killed_at_random_lose_nothing_and_double_nothing(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0", kill_grace="0.3s")
    # Whatever is left of a run holds the lock that the next one finds taken.
    script = (
        "exec 9>>lock-$QUEUECTL_JOB_ID; flock -n 9 || echo $QUEUECTL_JOB_ID >> overlaps;"
        " echo $QUEUECTL_JOB_ID.$QUEUECTL_JOB_RUN >> ran; sleep 0.05"
    )
    queue.add_many({f"job-{number}": script for number in range(60)}, max_retries=1000)
    chance = random.Random(7)  # What it hits depends on the time that everything takes.
    starts: List[Process] = []
    for completed in range(40):
        starts = [start for start in starts if start.poll() is None]
        while len(starts) < 2:
            starts.append(queue.start("--count", "3"))
        wait_until(lambda wanted=completed: queue.counts().completed > wanted, what="progress")
        victims = wait_until(lambda: queue.members() + queue.members("supervisor"))
        victim = chance.choice(victims).pid
        with contextlib.suppress(ProcessLookupError):
            kill(victim)
        wait_until_gone([victim], timeout=5)
    # One start is left at least.
    wait_until(lambda: queue.counts().completed == 60, timeout=30, what="the rest")
    assert not (queue.folder / "overlaps").exists()
    ran = queue.read("ran").split()
    assert len(ran) == len(set(ran))
    for job in queue.jobs():
        assert job.attempts == job.runs
        assert f"{job.id}.{job.runs}" in ran
    assert [start.err for start in starts] == [""] * len(starts)
    cli.end_all()
