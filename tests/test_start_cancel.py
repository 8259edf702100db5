"""Cancelling through real workers: the job's processes are gone when the command returns."""

from __future__ import annotations

import os
import signal
import time
from typing import List

import pytest

import support
from queuectl.job import JobState
from starting import HOLD, SLACK, STUBBORN, Queue, is_running, kill, wait_until_gone
from support import Cli, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NOTE = "echo $QUEUECTL_JOB_ID >> ran"


def state_of_row(text: str) -> List[str]:
    return [row.split("\t")[1] for row in text.splitlines()]


def test_a_running_job_gets_term_within_a_second_and_its_group_is_gone(cli: Cli) -> None:
    queue = Queue(cli)
    command = "trap 'date +%s%N > term; exit 0' TERM; sleep 1000 & sleep 1000 & touch up; wait"
    queue.add(command, id="job")
    start = queue.start()
    queue.wait_for_processes("job", 3)
    wait_until(lambda: (queue.folder / "up").exists())
    pids = list(queue.runs_of("job"))
    asked = time.time()
    done = cli.run("cancel", "job", check=0)
    assert state_of_row(done.stdout) == ["cancelled"]
    assert not any(map(is_running, pids))
    assert int(queue.read("term")) / 1e9 < asked + 1 + SLACK
    job = queue.job("job")
    assert (job.state, job.cancel_requested, job.worker) == (JobState.CANCELLED, False, None)
    queue.add(NOTE, id="next")
    queue.wait_for("next", JobState.COMPLETED)
    start.terminate()
    start.finish(0)


def test_one_that_does_not_end_at_term_is_killed_after_kill_grace(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.5")
    queue.add(STUBBORN, id="job")
    start = queue.start()
    pids = queue.wait_for_processes("job", 3)
    began = time.monotonic()
    done = cli.run("--json", "cancel", "job", check=0)
    assert '"cancelled"' in done.stdout
    assert not any(map(is_running, pids))
    assert 0.5 <= time.monotonic() - began < 0.5 + 1 + 2 * SLACK
    assert queue.job("job").signal == signal.SIGKILL
    start.terminate()
    start.finish(0)


def test_waiting_and_running_jobs_are_cancelled_at_once(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1000")
    queue.add("exit 1", id="failed")
    queue.add("sleep 1000", id="running")
    start = queue.start()
    queue.wait_for_runner("running")
    queue.add_many({"pending": NOTE, "other": NOTE})
    done = cli.run("cancel", "pending", "failed", "running", "pending", check=0)
    assert state_of_row(done.stdout) == ["cancelled"] * 3
    queue.wait_for("other", JobState.COMPLETED)
    assert queue.read("ran").split() == ["other"]
    start.terminate()
    start.finish(0)


def test_jobs_of_a_queue_or_with_a_label_that_are_not_over(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(NOTE, id="over", queue="q", labels=["l"])
    queue.drain()
    queue.add(NOTE, id="q1", queue="q")
    queue.add("true", id="both", queue="q", labels=["l", "m"])
    queue.add("true", id="l1", labels=["l"])
    queue.add("true", id="ll", labels=["ll"])
    done = cli.run("cancel", "--queue", "q", "--label", "l", check=0)
    assert [row.split("\t")[0] for row in done.stdout.splitlines()] == ["both"]
    assert [job["id"] for job in cli.json("cancel", "--queue", "q")] == ["q1"]
    assert [job["id"] for job in cli.json("cancel", "--label", "l")] == ["l1"]
    assert cli.run("cancel", "--label", "nobody", check=0).stdout == ""
    assert queue.counts().pending == 1


def test_what_is_over_already_is_refused_and_nothing_else_cancelled(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="completed")
    queue.add("exit 1", id="dead", max_retries=1)
    queue.drain()
    queue.add("true", id="waits")
    for other in ("completed", "dead", "nobody"):
        done = cli.run("cancel", "waits", other, check=1)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert repr(other) in done.stderr
    assert queue.job("waits").state == JobState.PENDING


def test_one_that_completes_before_it_can_be_ended(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="job")
    start = queue.start()
    runner = queue.wait_for_runner("job")
    # Its worker is held, and so does not see the cancel until the job has ended by itself.
    os.kill(runner.pid, signal.SIGSTOP)
    cancel = cli.spawn("cancel", "job")
    wait_until(lambda: queue.job("job").cancel_requested, what="the cancel")
    assert "yes" in cli.run("show", "job", check=0).stdout.partition("Cancel requested:")[2][:20]
    pids = list(queue.runs_of("job"))
    queue.let_go()
    wait_until_gone(pids, timeout=10)
    os.kill(runner.pid, signal.SIGCONT)
    cancel.finish(1)
    assert "job 'job' completed before it could be cancelled" in cancel.err
    assert state_of_row(cancel.out) == ["completed"]
    assert queue.job("job").state == JobState.COMPLETED
    start.terminate()
    start.finish(0)


@pytest.mark.parametrize("command", ["sleep 1000", STUBBORN])
def test_with_no_start_alive_cancel_rescues_and_ends_the_job_itself(command: str, cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.3")
    queue.add(command, id="job")
    queue.add(NOTE, id="child", after=["job"])
    queue.add(NOTE, id="next")
    start = queue.start()
    runner = queue.wait_for_runner("job")
    pids = list(queue.runs_of("job"))
    kill(start.pid, runner.pid)
    start.finish(-signal.SIGKILL)
    assert any(map(is_running, pids))
    done = cli.run("cancel", "job", check=0)
    assert state_of_row(done.stdout) == ["cancelled"]
    assert not queue.runs_of("job")
    assert queue.job("job").state == JobState.CANCELLED
    assert queue.job("child").state == JobState.CANCELLED
    queue.drain()
    assert queue.read("ran").split() == ["next"]


def test_one_whose_worker_dies_with_the_cancel_asked_for_is_cancelled(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.3")
    queue.add(STUBBORN, id="job")
    start = queue.start()
    runner = queue.wait_for_runner("job")
    pids = queue.wait_for_processes("job", 3)
    os.kill(runner.pid, signal.SIGSTOP)
    cancel = cli.spawn("cancel", "job")
    wait_until(lambda: queue.job("job").cancel_requested, what="the cancel")
    kill(runner.pid)
    cancel.finish(0)
    assert not any(map(is_running, pids))
    assert (queue.job("job").state, queue.job("job").attempts) == (JobState.CANCELLED, 1)
    start.terminate()
    start.finish(0)


def test_a_cancel_while_its_worker_stops(cli: Cli) -> None:
    queue = Queue(cli, shutdown_grace="30", kill_grace="0.3")
    queue.add(STUBBORN, id="job")
    start = queue.start()
    queue.wait_for_runner("job")
    queue.wait_for_processes("job", 3)
    start.terminate()
    start.expect("Stopping: 1 job")
    done = cli.run("cancel", "job", check=0)
    assert state_of_row(done.stdout) == ["cancelled"]
    start.finish(0, timeout=5)
    assert queue.job("job").state == JobState.CANCELLED


def test_a_cancel_that_a_forced_shutdown_overtakes_still_holds(cli: Cli) -> None:
    queue = Queue(cli, shutdown_grace="0.1", kill_grace="1")
    queue.add(STUBBORN, id="job")
    start = queue.start()
    queue.wait_for_processes("job", 3)
    start.terminate()
    start.expect("Stopping: 1 job")
    cli.run("cancel", "job", check=0)
    start.finish()
    assert queue.job("job").state == JobState.CANCELLED
    assert not queue.runs_of("job")


def test_a_job_can_cancel_itself(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("queuectl cancel $QUEUECTL_JOB_ID; touch after; sleep 1000", id="job")
    queue.drain()
    assert queue.job("job").state == JobState.CANCELLED
    assert not (queue.folder / "after").exists()


def test_ctrl_c_at_a_cancel_leaves_it_asked_for(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="1")
    queue.add(STUBBORN, id="job")
    start = queue.start()
    queue.wait_for_processes("job", 3)
    cancel = cli.spawn("cancel", "job")
    wait_until(lambda: queue.job("job").cancel_requested, what="the cancel")
    cancel.send_signal(signal.SIGINT)
    cancel.finish(130)
    queue.wait_for("job", JobState.CANCELLED)
    start.terminate()
    start.finish(0)


def test_a_second_cancel_waits_as_well(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.5")
    queue.add(STUBBORN, id="job")
    start = queue.start()
    queue.wait_for_processes("job", 3)
    cancels = [cli.spawn("cancel", "job") for _ in range(2)]
    for cancel in cancels:
        # The later one may come when all is over.
        assert cancel.finish() == 0 or "is cancelled" in cancel.err
    assert not queue.runs_of("job")
    start.terminate()
    start.finish(0)


def test_a_cancelled_job_can_be_retried_and_has_all_its_attempts(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0")
    queue.add(f"{NOTE}; sleep 1000", id="job", max_retries=2)
    start = queue.start()
    queue.wait_for_runner("job")
    cli.run("cancel", "job", check=0)
    cli.run("retry", "job", check=0)
    queue.wait_for_runner("job", run=2)
    assert queue.job("job").attempts == 1
    cli.run("cancel", "job", check=0)
    start.terminate()
    start.finish(0)


def test_a_person_is_told(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add_many({"one": "true", "two": "true", "three": "true"})
    screen = cli.terminal("cancel", "one")
    assert screen.wait() == 0
    assert "Job cancelled" in screen.text
    screen = cli.terminal("cancel", "two", "three")
    assert screen.wait() == 0
    assert "2 jobs cancelled" in screen.text
    screen = cli.terminal("retry", "two", "three")
    assert screen.wait() == 0
    assert "2 jobs moved to pending queue" in screen.text


def test_a_failed_job_is_retried_at_once_with_the_attempts_that_are_left(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1000")
    queue.add("exit 1", id="job", max_retries=2, labels=["l"])
    start = queue.start()
    queue.wait_for("job", JobState.FAILED)
    done = cli.run("retry", "job", check=0)
    assert state_of_row(done.stdout) == ["pending"]
    job = queue.wait_for("job", JobState.DEAD)
    assert (job.attempts, job.runs) == (2, 2)
    assert [each["id"] for each in cli.json("retry", "--label", "l")] == ["job"]
    assert queue.wait_for("job", JobState.FAILED).attempts == 1
    start.terminate()
    start.finish(0)


@pytest.mark.parametrize(
    "words",
    [
        ["cancel"],
        ["cancel", "waits", "--label", "l"],
        ["cancel", "waits", "--queue", "default"],
        ["cancel", "--queue", "a b"],
        ["cancel", "--label", ""],
        ["retry"],
        ["retry", "waits", "--label", "l"],
        ["retry", "--label", "a b"],
        ["retry", "waits"],
        ["retry", "nobody"],
        ["retry", "dead", "waits"],
        ["dlq", "retry", "--all", "--label", "l"],
    ],
)
def test_what_is_refused_changes_nothing(words: List[str], cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("exit 1", id="dead", max_retries=1)
    queue.drain()
    queue.add("true", id="waits", labels=["l"])
    before = (cli.store / "jobs.jsonl").read_bytes()
    code, _ = cli.refusal(*words)
    is_request = words[0] == "retry" and words[-1] in ("waits", "nobody")
    assert code == (1 if is_request else 2)
    assert (cli.store / "jobs.jsonl").read_bytes() == before
