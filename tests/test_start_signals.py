"""Signals to `start`: to it alone, to the whole group as a terminal sends them, once and twice."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from pathlib import Path
from typing import IO, Callable

import pytest

import support
from queuectl.job import JobState
from starting import (
    HOLD,
    SLACK,
    STUBBORN,
    Queue,
    children_of,
    cpu_seconds,
    wait_until_gone,
)
from support import Cli, Terminal, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

SIGNALS = [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
Send = Callable[[int, int], None]
each_signal = pytest.mark.parametrize(("signum", "code"), SIGNALS, ids=["TERM", "HUP", "INT"])
each_way = pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["alone", "group"])


@each_signal
@each_way
def test_at_the_first_signal_nothing_is_claimed_and_running_jobs_may_finish(
    cli: Cli, signum: int, code: int, send: Send
) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    start = queue.start("--count", "2")
    queue.wait_for_runner("held")
    queue.wait_for_workers(2)
    send(start.pid, signum)
    start.expect("Stopping: 1 job has up to 30s; Ctrl-C again ends it")
    wait_until(lambda: len(queue.members()) == 1, what="the idle worker to end")
    queue.add("true", id="late")
    queue.let_go()
    start.finish(code)
    job = queue.job("held")
    assert (job.state, job.attempts, job.runs, job.interruptions) == ("completed", 1, 1, 0)
    assert queue.job("late").runs == 0
    assert start.out.splitlines()[-1].endswith("Workers stopped")
    assert start.err == ""


@each_signal
def test_one_that_comes_before_the_first_worker_ends_it_at_once(
    cli: Cli, signum: int, code: int
) -> None:
    queue = Queue(cli)
    queue.add("true", id="job")
    with open(cli.store / "jobs.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = queue.start()
        wait_until(lambda: catches(start.pid, signal.SIGHUP), what="the last handler")
        os.kill(start.pid, signum)
        start.finish(code, timeout=5.0)
    assert start.out.splitlines()[-1].endswith("Workers stopped")
    assert queue.job("job").runs == 0
    assert (start.err, queue.members(), queue.members("supervisor")) == ("", [], [])
    queue.drain()


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal."""
    (mask,) = re.findall(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) >> (signum - 1) & 1)


def test_a_worker_that_waits_for_the_store_claims_nothing_once_it_was_told_to_stop(
    cli: Cli,
) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    queue.add("true", id="next")
    start = queue.start()
    queue.wait_for_runner("held")
    with open(cli.store / "jobs.lock", "rb") as lock:
        wait_until(lambda: try_lock(lock), what="the lock")
        queue.let_go()
        wait_until(lambda: not queue.runs_of("held"), what="the end of the job")
        start.terminate()
        start.expect("Stopping: 1 job")
    start.finish(0)
    assert queue.job("held").state == JobState.COMPLETED
    assert queue.job("next").runs == 0


def try_lock(file: IO[bytes]) -> bool:
    """Take a lock that others hold for moments only."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@each_signal
def test_without_a_job_the_first_signal_ends_it_at_once(cli: Cli, signum: int, code: int) -> None:
    queue = Queue(cli)
    start = queue.start("--count", "2")
    queue.wait_for_workers(2)
    sent = time.monotonic()
    os.killpg(start.pid, signum)
    start.finish(code)
    assert time.monotonic() - sent < SLACK
    assert "Stopping" not in start.out
    assert queue.members() == queue.members("supervisor") == []


def test_a_job_that_outlives_the_grace_is_ended_and_put_back(cli: Cli) -> None:
    queue = Queue(cli, shutdown_grace="0.4s", kill_grace="0.4s")
    queue.add(STUBBORN, id="job", max_retries=1)
    for times in (1, 2):
        start = queue.start()
        queue.wait_for_runner("job", run=times)
        running = list(queue.runs_of("job"))
        sent = time.monotonic()
        start.terminate()
        gone = wait_until_gone(running, timeout=10)
        assert 0.4 < gone - sent < 0.4 + 0.4 + SLACK
        start.finish(0)
        job = queue.job("job")
        assert (job.state, job.attempts, job.runs) == ("pending", 0, times)
        assert job.interruptions == times
        assert ("outlives the runs of start" in start.err) == (times > 1)
    assert job.last_error == "Interrupted at shutdown (2 times)"


def test_the_grace_ends_in_time_though_nothing_else_is_looked_at(cli: Cli) -> None:
    queue = Queue(cli, shutdown_grace="0.4s", max_output="none")
    queue.add("sleep 1000", id="job")
    start = queue.start()
    queue.wait_for_runner("job")
    sent = time.monotonic()
    start.terminate()
    start.finish(0)
    assert time.monotonic() - sent < 0.4 + SLACK
    assert queue.job("job").interruptions == 1


@each_signal
@each_way
def test_at_the_second_signal_running_jobs_are_ended_and_put_back(
    cli: Cli, signum: int, code: int, send: Send
) -> None:
    queue = Queue(cli)
    queue.add("sleep 1000", id="job")
    start = queue.start()
    queue.wait_for_runner("job")
    send(start.pid, signum)
    start.expect("Stopping")
    sent = time.monotonic()
    send(start.pid, signum)
    start.finish(128 + signum)
    assert time.monotonic() - sent < SLACK
    job = queue.job("job")
    assert (job.state, job.attempts, job.runs, job.interruptions) == ("pending", 0, 1, 1)
    assert queue.runs_of("job") == {}


def test_what_ignores_term_is_killed_after_the_second_signal(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.4s")
    queue.add(STUBBORN, id="job")
    start = queue.start()
    queue.wait_for_runner("job")
    running = list(queue.runs_of("job"))
    os.kill(start.pid, signal.SIGTERM)
    start.expect("Stopping")
    sent = time.monotonic()
    os.kill(start.pid, signal.SIGINT)
    gone = wait_until_gone(running, timeout=10)
    assert 0.4 <= gone - sent + 0.05 < 0.4 + 1 + SLACK
    start.finish(130)


def test_a_drain_that_is_ended_early_says_so_by_its_exit_code(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    start = queue.start("--drain")
    queue.wait_for_runner("held")
    start.terminate()
    start.expect("Stopping")
    queue.let_go()
    start.finish(1)


@pytest.mark.slow
def test_a_worker_that_cannot_end_is_killed_when_its_time_is_over(cli: Cli) -> None:
    queue = Queue(cli, shutdown_grace="0.1s", kill_grace="0.1s", backoff_base="0")
    queue.add("sleep 1000", id="job")
    start = queue.start()
    worker = queue.wait_for_runner("job")
    os.kill(worker.pid, signal.SIGSTOP)
    start.terminate()
    # Both graces, and five seconds more.
    start.finish(0, timeout=0.2 + 5 + 5)
    assert queue.runs_of("job") == {}
    assert queue.job("job").last_error == "Worker died"


def test_while_it_stops_it_waits_without_using_the_processor(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("sleep 1.5", id="job")
    start = queue.start("--count", "2")
    worker = queue.wait_for_runner("job")
    # Workers that die at once are replaced after a while, which is still to come when it stops.
    dead = {worker.pid}
    for _ in range(3):
        newborn = wait_until(lambda: [one for one in queue.members() if one.pid not in dead])[0]
        dead.add(newborn.pid)
        os.kill(newborn.pid, signal.SIGKILL)
    wait_until(lambda: children_of(start.pid) == [worker.pid], what="the dead to be reaped")
    start.terminate()
    start.expect("Stopping")
    used, since = cpu_seconds(start.pid), time.monotonic()
    queue.wait_for("job", JobState.COMPLETED)
    assert cpu_seconds(start.pid) - used < (time.monotonic() - since) / 3
    start.finish(0)


def at_terminal(queue: Queue, terminal: Callable[..., Terminal], command: str) -> Terminal:
    queue.add(command, id="job")
    start = terminal("start", "--count", "2")
    queue.wait_for_runner("job")
    queue.wait_for_workers(2)
    start.send("\x03")
    start.expect("Stopping: 1 job has up to 30s; Ctrl-C again ends it")
    return start


def test_the_first_ctrl_c_lets_jobs_finish(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    queue = Queue(cli)
    start = at_terminal(queue, terminal, HOLD)
    queue.let_go()
    start.expect("Job completed")
    start.expect("Workers stopped")
    assert start.wait() == 130
    assert queue.job("job").state == JobState.COMPLETED
    assert "Traceback" not in start.text


def test_the_second_ctrl_c_ends_jobs(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    queue = Queue(cli)
    start = at_terminal(queue, terminal, "sleep 1000")
    start.send("\x03")
    start.expect("Job interrupted")
    assert start.wait() == 130
    job = queue.job("job")
    assert (job.state, job.attempts, job.interruptions) == ("pending", 0, 1)
    assert "Traceback" not in start.text


def test_a_terminal_that_is_closed_ends_it(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    start = terminal("start")
    queue.wait_for_runner("held")
    start.hang_up()
    queue.add("true", id="late")
    queue.let_go()
    assert start.wait() == 0
    assert queue.job("held").state == JobState.COMPLETED
    assert queue.job("late").runs == 0


def test_the_second_signal_of_a_terminal_that_is_closed_is_none(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    # What a shell does: it hands the HUP on, and when it ends the kernel sends another one.
    shell = (
        'trap "kill -HUP \\$!; until [ -e second ]; do sleep 0.01; done; exit" HUP;'
        ' "$@" & while :; do wait; done'
    )
    window = terminal("start", "--count", "2", program=["sh", "-c", shell, "sh", *cli.command])
    queue.wait_for_runner("held")
    queue.wait_for_workers(2)
    window.hang_up()
    wait_until(lambda: len(queue.members()) == 1, what="the idle worker to end")
    (queue.folder / "second").touch()
    window.wait()
    queue.let_go()
    job = queue.wait_for("held", JobState.COMPLETED)
    assert (job.attempts, job.interruptions) == (1, 0)
    wait_until(lambda: queue.members("supervisor") == [], what="the end of start")


def ignoring(cli: Cli, names: str) -> None:
    """Have commands started as by a parent that ignores these signals."""
    cli.command = ["/bin/sh", "-c", f"trap '' {names}; exec \"$@\"", "sh", *cli.command]


def test_started_with_sigchld_ignored_jobs_end_as_ever(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0")
    queue.add("exit 3", id="fails", max_retries=1)
    queue.add("grep -q '^SigIgn:.*0000$' /proc/self/status", id="ignores-nothing")
    queue.add('[ "$QUEUECTL_JOB_RUN" = 2 ] || kill -9 $PPID', id="kills")
    ignoring(cli, "CHLD")
    queue.drain(count=2)
    assert queue.job("fails").last_error == "Exit code 3"
    assert queue.job("ignores-nothing").state == JobState.COMPLETED
    assert (queue.job("kills").state, queue.job("kills").runs) == ("completed", 2)


def test_started_with_term_ignored_it_heeds_term_and_so_do_its_jobs(cli: Cli) -> None:
    queue = Queue(cli, shutdown_grace="0.1s", kill_grace="20s")
    queue.add("sleep 1000", id="job")
    ignoring(cli, "TERM")
    start = queue.start()
    queue.wait_for_runner("job")
    sent = time.monotonic()
    start.terminate()
    start.finish(0)
    assert time.monotonic() - sent < 0.1 + SLACK
    assert queue.job("job").interruptions == 1


@pytest.mark.parametrize(("name", "signum"), [("HUP", signal.SIGHUP), ("INT", signal.SIGINT)])
def test_started_with_hup_or_int_ignored_as_nohup_does_it_goes_on(
    cli: Cli, name: str, signum: int
) -> None:
    queue = Queue(cli)
    ignoring(cli, name)
    start = queue.start("--count", "2")
    workers = {member.id for member in queue.wait_for_workers(2)}
    os.killpg(start.pid, signum)
    queue.add("grep -q '^SigIgn:.*0000$' /proc/self/status; sleep 0.5", id="job")
    queue.wait_for("job", JobState.COMPLETED)
    assert {member.id for member in queue.members()} == workers
    start.terminate()
    start.finish(0)
