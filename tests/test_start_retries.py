"""When jobs start: retries after their delay, new jobs at once; and how settings change that."""

from __future__ import annotations

import statistics
import time
from typing import List, Tuple

import pytest

import support
from queuectl import clock
from queuectl.job import Job, JobState
from starting import SLACK, STUBBORN, Queue, kill
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

STAMP = 'echo "$(date +%s%N) $QUEUECTL_JOB_RUN" >> stamps; '
"""The beginning of a job that notes when it starts, by its own clock."""


def stamps(queue: Queue) -> List[Tuple[float, int]]:
    """When each line was written, and by which run."""
    words = [line.split() for line in queue.read("stamps").splitlines()]
    return [(int(moment) / 1e9, int(run)) for moment, run in words]


def delay_of(job: Job) -> float:
    """How long a failed job waits."""
    assert job.run_at is not None
    return round(clock.from_iso(job.run_at) - clock.from_iso(job.updated_at), 3)


def test_the_delay_grows_exponentially_and_is_never_cut_short(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1.1")
    queue.add(f"{STAMP}{STAMP}exit 3", id="job", max_retries=3)
    start = queue.start()
    delays = []
    for run in (1, 2):
        job = queue.wait_for("job", JobState.FAILED, run=run)
        delays.append(delay_of(job))
        assert job.last_error == "Exit code 3"
        assert job.attempts == run
    assert delays == [1.1, 1.21]
    job = queue.wait_for("job", JobState.DEAD)
    assert (job.attempts, job.runs, job.last_error) == (3, 3, "Exit code 3")
    assert job.finished_at is not None
    seen = stamps(queue)
    assert [run for _, run in seen] == [1, 1, 2, 2, 3, 3]
    for delay, ended, began in ((1.1, seen[1], seen[2]), (1.21, seen[3], seen[4])):
        assert delay <= began[0] - ended[0] < delay + 0.5 + SLACK
    start.terminate()
    start.finish(0)
    assert "retry in 1.1s: Exit code 3" in start.out


def test_a_job_that_failed_says_why_in_words(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.1s")
    (queue.folder / "folder").mkdir()
    jobs = {
        "invalid_command": "Command not found",
        "./folder": "Permission denied",
        "exit 3": "Exit code 3",
        "echo first; echo 'disk full' >&2; echo; exit 4": "Exit code 4: disk full",
        "kill -9 $$": "Killed by signal 9 (SIGKILL)",
        "echo bye; kill -TERM $$": "Killed by signal 15 (SIGTERM): bye",
        "kill -9 $PPID": "Worker died",
    }
    for command in jobs:
        queue.add(command, max_retries=1)
    queue.add("echo so far; sleep 1000", max_retries=1, timeout=0.2)
    queue.add("true", max_retries=1, cwd="/nowhere")
    queue.drain(count=4)
    found = {job.command: (job.state, job.last_error) for job in queue.jobs()}
    expected = {
        **jobs,
        "echo so far; sleep 1000": "Timed out after 0.2s: so far",
        "true": "Working folder /nowhere does not exist",
    }
    assert found == {command: ("dead", error) for command, error in expected.items()}


def test_dlq_retry_runs_a_job_again_with_all_its_attempts(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0")
    queue.add("[ -e good ]", id="job", max_retries=2)
    start = queue.start()
    queue.wait_for("job", JobState.DEAD)
    cli.run("dlq", "retry", "job", check=0)
    job = queue.wait_for("job", JobState.DEAD, run=4)
    assert job.attempts == 2
    (queue.folder / "good").touch()
    cli.run("dlq", "retry", "job", check=0)
    job = queue.wait_for("job", JobState.COMPLETED)
    assert (job.attempts, job.runs, job.last_error) == (1, 5, None)
    start.terminate()
    start.finish(0)


@pytest.mark.slow
def test_changes_of_settings_reach_a_start_that_runs(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="100", backoff_max="40s", kill_grace="30s", max_retries="5")
    queue.add(STUBBORN, id="old-grace", timeout=0.2)
    start = queue.start("--count", "2")
    queue.wait_for_runner("old-grace")
    queue.add("exit 1", id="old-backoff")
    assert delay_of(queue.wait_for("old-backoff", JobState.FAILED)) == 40

    cli.run("config", "--key", "backoff_base", "--value", "50", check=0)
    cli.run("config", "--key", "backoff-max", "--value", "45s", check=0)
    cli.run("config", "set", "shell", "/bin/bash", check=0)
    cli.run("config", "set", "max_output", "1KiB", check=0)
    cli.run("config", "set", "kill_grace", "0.2s", check=0)
    cli.run("config", "set", "max_retries", "1", check=0)
    cli.run("config", "set", "job_timeout", "7s", check=0)

    queue.add("exit 1", id="new-backoff", max_retries=2)
    assert delay_of(queue.wait_for("new-backoff", JobState.FAILED)) == 45
    queue.add("[[ abc == a* ]] && seq 1000", id="new-shell")
    queue.wait_for("new-shell", JobState.COMPLETED)
    assert len(queue.logs("new-shell")) <= 1024
    assert "bytes cut by queuectl" in queue.logs("new-shell")
    queue.add(STUBBORN, id="new-grace", timeout=0.2)
    began = time.monotonic()
    job = queue.wait_for("new-grace", JobState.DEAD)
    assert time.monotonic() - began < 0.2 + 0.2 + 2 * SLACK
    assert job.attempts == job.max_retries == 1
    assert queue.job("new-shell").timeout == 7

    # What was queued before keeps what it was given, and a run the grace with which it began.
    job = queue.job("old-backoff")
    assert (job.max_retries, job.timeout, delay_of(job)) == (5, None, 40)
    assert queue.job("old-grace").state == JobState.PROCESSING
    kill(*queue.runs_of("old-grace"))
    assert queue.wait_for("old-grace", JobState.FAILED).last_error == "Timed out after 0.2s"
    start.terminate()
    start.finish(0)


def test_variables_of_start_come_before_stored_settings(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="100")
    queue.add("exit 1", id="job")
    start = queue.start(env={"QUEUECTL_BACKOFF_BASE": "30"})
    assert delay_of(queue.wait_for("job", JobState.FAILED)) == 30
    start.terminate()
    start.finish(0)


def test_an_idle_worker_starts_a_new_job_at_once(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start("--count", "2")
    queue.wait_for_workers(2)
    waits = []
    for number in range(9):
        before = time.time()
        queue.add("date +%s%N > began", id=f"job-{number}")
        queue.wait_for(f"job-{number}", JobState.COMPLETED)
        waits.append(int(queue.read("began")) / 1e9 - before)
    # A worker that nobody wakes looks after half a second, on average.
    assert statistics.median(waits) < 0.2
    start.terminate()
    start.finish(0)


def test_each_of_several_new_jobs_gets_an_idle_worker(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start("--count", "4")
    queue.wait_for_workers(4)
    waits = []
    for number in range(5):
        before = time.monotonic()
        # Each waits for the other three.
        meet = f"touch {number}-$$; until set -- {number}-*; [ $# = 4 ]; do sleep 0.01; done"
        ids = [f"job-{number}-{one}" for one in range(4)]
        queue.add_many(dict.fromkeys(ids, meet))
        for job_id in ids:
            queue.wait_for(job_id, JobState.COMPLETED)
        waits.append(time.monotonic() - before)
    assert statistics.median(waits) < 0.4
    start.terminate()
    start.finish(0)


def test_a_retry_that_falls_due_finds_an_idle_worker_in_time(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0.6")
    start = queue.start("--count", "3")
    queue.wait_for_workers(3)
    waits = []
    for number in range(3):
        queue.add("[ $QUEUECTL_JOB_RUN = 2 ] && date +%s%N > began", id=f"job-{number}")
        due = queue.wait_for(f"job-{number}", JobState.FAILED).run_at
        queue.wait_for(f"job-{number}", JobState.COMPLETED)
        assert due is not None
        waits.append(int(queue.read("began")) / 1e9 - clock.from_iso(due))
    assert min(waits) >= 0
    assert statistics.median(waits) < 0.15
    start.terminate()
    start.finish(0)
