"""Ending `start` by other means than signals: `stop` from elsewhere, `--timeout`, `--drain`."""

from __future__ import annotations

import time

import pytest

import support
from queuectl import clock
from queuectl import job as rules
from queuectl.job import JobState
from starting import HOLD, SLACK, STUBBORN, Queue, wait_until_gone
from support import Cli, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


def test_stop_lets_running_jobs_finish_and_waits_for_them(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    start = queue.start("--count", "2")
    queue.wait_for_runner("held")
    stop = cli.spawn("stop")
    start.expect("Stopping: 1 job")
    wait_until(lambda: len(queue.members()) == 1, what="the idle worker to end")
    queue.add("true", id="late")
    assert stop.poll() is None
    queue.let_go()
    start.finish(0)
    stop.finish(0)
    assert "Workers stopped" in stop.out
    assert queue.job("held").state == JobState.COMPLETED
    assert queue.job("late").runs == 0


def test_stop_stops_every_start_of_the_store_and_no_other(cli: Cli) -> None:
    queue = Queue(cli)
    starts = [queue.start(), queue.start("--count", "2")]
    elsewhere = {"QUEUECTL_STORE": str(queue.folder / "elsewhere")}
    other = queue.start(env=elsewhere)
    other.expect("Worker-1 started")
    queue.wait_for_workers(3)
    cli.run("stop", check=0)
    for start in starts:
        start.finish(0)
    assert other.poll() is None
    cli.run("stop", env=elsewhere, check=0)
    other.finish(0)


def test_two_stops_at_once_both_end_well(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    start = queue.start()
    queue.wait_for_runner("held")
    stops = [cli.spawn("stop"), cli.spawn("stop")]
    for stop in stops:
        stop.expect(f"Stopping process {start.pid}")
    start.expect("Stopping: 1 job")
    # The second one is no second signal.
    assert queue.job("held").state == JobState.PROCESSING
    queue.let_go()
    for process in (*stops, start):
        process.finish(0)
    job = queue.job("held")
    assert (job.state, job.interruptions) == ("completed", 0)


@pytest.mark.parametrize("asked_before", [False, True], ids=["at once", "after a stop"])
def test_stop_with_force_ends_running_jobs(cli: Cli, asked_before: bool) -> None:
    queue = Queue(cli, kill_grace="0.4s")
    queue.add(STUBBORN, id="job")
    start = queue.start()
    queue.wait_for_runner("job")
    running = list(queue.runs_of("job"))
    if asked_before:
        cli.spawn("stop")
        start.expect("Stopping")
    cli.run("stop", "--force", check=0)
    assert queue.members("supervisor") == []
    wait_until_gone(running, timeout=0.1)
    start.finish(0)
    job = queue.job("job")
    assert (job.state, job.attempts, job.interruptions) == ("pending", 0, 1)


def test_stop_with_nothing_running_says_so(cli: Cli) -> None:
    assert cli.run("stop", check=0).stdout == "no workers running\n"
    queue = Queue(cli)
    assert cli.run("stop", check=0).stdout == "no workers running\n"
    start = queue.start()
    queue.wait_for_workers(1)
    start.kill()
    start.wait()
    assert cli.run("stop", check=0).stdout == "no workers running\n"


def test_stop_reaches_a_start_that_has_only_just_begun(cli: Cli) -> None:
    queue = Queue(cli)
    for _ in range(2):
        start = queue.start("--count", "3")
        wait_until(lambda: queue.members("supervisor"), what="the start to be known")
        cli.run("stop", check=0)
        start.finish(0)


def test_the_timeout_is_for_claiming_and_not_for_jobs(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    began = time.monotonic()
    start = queue.start("--timeout", "1s", "--count", "2")
    queue.wait_for_runner("held")
    queue.add("true", id="early")
    queue.wait_for("early", JobState.COMPLETED)
    start.expect("Stopping: 1 job")
    assert 1 < time.monotonic() - began < 1 + 2 * SLACK
    wait_until(lambda: len(queue.members()) == 1, what="the idle worker to end")
    queue.add("true", id="late")
    queue.let_go()
    start.finish(0)
    assert queue.job("held").state == JobState.COMPLETED
    assert queue.job("late").runs == 0


def test_a_drain_waits_for_what_is_due_and_not_for_what_is_scheduled(cli: Cli) -> None:
    with Queue(cli).opened() as manager:
        now = clock.now()
        for delay, drained in ((1000.0, True), (0.01, False)):
            job = rules.enqueue(f"in{delay:g}", "x", now, max_retries=1, run_at=now + delay)
            manager.store.add([job])
            wait_until(lambda drained=drained: manager.is_drained() == drained)
        job = manager.claim("w")
        assert job is not None
        assert not manager.is_drained()
        manager.store.save([rules.complete(job, clock.now())])
        assert manager.is_drained()


def test_a_drain_waits_for_retries_and_ends_at_once_when_there_is_nothing_left(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0.3")
    queue.add('[ "$QUEUECTL_JOB_RUN" = 2 ]', id="fails-once")
    queue.drain()
    assert queue.job("fails-once").state == JobState.COMPLETED
    queue.add(HOLD, id="held")
    first = queue.start("--count", "2", "--drain")
    second = queue.start("--drain")
    queue.wait_for_runner("held")
    queue.wait_for_workers(3)
    queue.let_go()
    ended = queue.wait_for("held", JobState.COMPLETED).finished_at
    began = time.monotonic()
    for start in (first, second):
        start.finish(0)
    # A worker of another start looks for itself, once a second.
    assert time.monotonic() - began < 1 + SLACK
    assert ended is not None
    began = time.monotonic()
    queue.drain()
    assert time.monotonic() - began < 2 * SLACK


def test_a_drain_whose_time_is_over_before_it_is_done_ends_with_1(cli: Cli) -> None:
    queue = Queue(cli, shutdown_grace="0.1s")
    queue.add("sleep 1000", id="long")
    queue.start("--drain", "--timeout", "0.5s").finish(1)
    assert queue.job("long").interruptions == 1
    queue.cli.run("start", "--timeout", "0.1s", check=0)
