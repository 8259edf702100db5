"""When somebody else meddles with the store: removes it, makes it anew, spoils it, locks it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Dict

import pytest

import support
from queuectl.job import JobState
from starting import (
    HOLD,
    SLACK,
    STUBBORN,
    Queue,
    children_of,
    kill,
    stop_newborn,
    wait_until_gone,
)
from support import Cli, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


def remove(folder: Path) -> float:
    """Do what `rm -rf` does, also while others make files there; return when."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    return time.monotonic()


def test_a_removed_store_ends_jobs_and_start(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.4s")
    queue.add(STUBBORN, id="stubborn")
    queue.add("sleep 1000", id="sleeps")
    start = queue.start("--count", "3")
    queue.wait_for_runner("stubborn")
    queue.wait_for_runner("sleeps")
    stubborn, sleeps = list(queue.runs_of("stubborn")), list(queue.runs_of("sleeps"))
    removed = remove(cli.store)
    assert wait_until_gone(sleeps, timeout=10) - removed < 1 + SLACK
    assert wait_until_gone(stubborn, timeout=10) - removed < 1 + 0.4 + SLACK
    start.finish(3)
    assert time.monotonic() - removed < 1 + 0.4 + SLACK
    assert start.err.count("\n") == 1
    assert f"store {cli.store} was removed while in use" in start.err
    assert not cli.store.exists()


def snapshot(folder: Path) -> Dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def test_a_store_that_was_made_anew_is_not_touched(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("sleep 1000", id="old")
    start = queue.start("--count", "2")
    worker = queue.wait_for_runner("old")
    idle = next(one for one in queue.wait_for_workers(2) if one.id != worker.id)
    os.kill(start.pid, signal.SIGSTOP)
    remove(cli.store)
    queue.add("true", id="new")
    # A worker that would be replaced just now.
    kill(idle.pid)
    before = snapshot(cli.store)
    os.kill(start.pid, signal.SIGCONT)
    start.finish(3)
    assert start.err.count("\n") == 1
    assert queue.runs_of("old") == {}
    assert snapshot(cli.store) == before
    assert queue.job("new").runs == 0


def test_a_worker_that_is_born_meanwhile_does_not_join_it(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start()
    kill(queue.wait_for_workers(1)[0].pid)
    newborn = stop_newborn(start, set(children_of(start.pid)))
    os.kill(start.pid, signal.SIGSTOP)
    remove(cli.store)
    queue.add("true", id="new")
    before = snapshot(cli.store)
    os.kill(newborn, signal.SIGCONT)
    wait_until_gone([newborn], timeout=5)
    assert snapshot(cli.store) == before
    os.kill(start.pid, signal.SIGCONT)
    start.finish(3)
    assert snapshot(cli.store) == before
    assert start.err.count("\n") == 1


def test_a_removed_store_ends_what_dead_workers_left(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.6s")
    # The end of the one that heeds TERM must not keep the other one from being killed.
    queue.add("trap 'sleep 0.2; exit' TERM; sleep 1000 & wait", id="polite")
    queue.add(STUBBORN, id="stubborn")
    start = queue.start("--count", "2")
    workers = [queue.wait_for_runner("polite"), queue.wait_for_runner("stubborn")]
    running = queue.wait_for_processes("stubborn", 3) + queue.wait_for_processes("polite", 2)
    kill(*[worker.pid for worker in workers])
    old = {worker.id for worker in workers}
    wait_until(
        lambda: len({member.id for member in queue.members()} - old) == 2, what="the next workers"
    )
    removed = remove(cli.store)
    start.finish(3)
    assert wait_until_gone(running, timeout=0.1) - removed < 1 + 0.6 + SLACK


@pytest.mark.parametrize(("content", "code"), [("{", 4), ('{"backoff_base": "x"}', 2)])
@pytest.mark.parametrize(("count", "command"), [(1, "true"), (1, "exit 3"), (2, "exit 3")])
def test_settings_that_are_spoiled_end_it_when_what_runs_is_done(
    cli: Cli, count: int, command: str, content: str, code: int
) -> None:
    queue = Queue(cli, shutdown_grace="20s")
    queue.add(f"{HOLD}; {command}", id="held")
    start = queue.start("--count", str(count))
    queue.wait_for_runner("held")
    queue.wait_for_workers(count)
    (cli.store / "settings.json").write_text(content)
    if count > 1:
        # The idle one finds out at once.
        start.expect_err("settings.json at byte 1|bad value for backoff_base")
    queue.let_go()
    start.finish(code)
    assert start.err.count("\n") == 1
    (cli.store / "settings.json").unlink()
    job = queue.job("held")
    assert (job.state, job.attempts) == ("completed" if command == "true" else "failed", 1)


def test_a_lock_that_is_held_delays_and_loses_nothing(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    start = queue.start("--count", "2")
    queue.wait_for_runner("held")
    victim = next(member for member in queue.wait_for_workers(2) if member.job is None)
    with open(cli.store / "jobs.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kill(victim.pid)
        queue.let_go()
        wait_until(lambda: queue.runs_of("held") == {}, what="the job to end")
        assert queue.job("held").state == JobState.PROCESSING
    job = queue.wait_for("held", JobState.COMPLETED)
    assert (job.attempts, job.runs) == (1, 1)
    queue.wait_for_workers(2)
    start.terminate()
    start.finish(0)
    assert start.err == ""


def test_workers_that_wait_for_the_lock_while_they_enrol_are_not_taken_for_dead(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add_many({f"job-{number}": "true" for number in range(4)})
    with open(cli.store / "jobs.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = queue.start("--count", "4")
        start.expect("Starting 4 workers")
        # The supervisor has to enrol too: let it in, and then no one else.
        fcntl.flock(lock, fcntl.LOCK_UN)
        wait_until(lambda: queue.members("supervisor"), what="the supervisor")
        fcntl.flock(lock, fcntl.LOCK_EX)
        wait_until(lambda: len(children_of(start.pid)) == 4, what="all to be there")
    wait_until(lambda: queue.counts().completed == 4, what="all jobs")
    queue.wait_for_workers(4)
    start.terminate()
    start.finish(0)
    assert start.out.count(" started") == 4
    assert [job.attempts for job in queue.jobs()] == [1] * 4
    assert start.err == ""
