"""The retry policy of a job: which exit codes complete it, which end it, and its own backoff."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest

import support
from queuectl import clock
from queuectl.job import JobState
from starting import Queue
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


def delay_of(queue: Queue, job_id: str) -> float:
    job = queue.job(job_id)
    assert job.state == JobState.FAILED
    assert job.run_at is not None
    return round(clock.from_iso(job.run_at) - clock.from_iso(job.updated_at), 3)


def test_exit_codes_that_complete_a_job(cli: Cli) -> None:
    queue = Queue(cli)
    words = ["--success-codes", "3,1", "--max-retries", "1"]
    for code in (0, 1, 2, 3):
        cli.run("enqueue", f"exit {code}", "--id", f"job-{code}", *words, check=0)
    queue.drain()
    assert [(job.state, job.exit_code) for job in queue.jobs()] == [
        *(("dead", 0), ("completed", 1), ("dead", 2), ("completed", 3))
    ]
    assert queue.job("job-0").last_error == "Exit code 0"
    assert queue.job("job-3").last_error is None
    assert queue.job("job-1").success_codes == (1, 3)
    # Whatever its code was, a job that completed is waited for with 0.
    cli.run("wait", "job-3", check=0)
    cli.run("wait", "job-0", check=1)


def test_a_signal_or_a_timeout_is_no_exit_code(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.1")
    words = ["--success-codes", "0,137,143,124", "--max-retries", "1"]
    cli.run("enqueue", "kill -9 $$", "--id", "killed", *words, check=0)
    cli.run("enqueue", "sleep 9", "--id", "slow", "--timeout", "0.1", *words, check=0)
    queue.drain(2, timeout=10)
    assert [job.state for job in queue.jobs()] == ["dead", "dead"]


def test_exit_codes_that_are_not_tried_again(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1000")
    words = ["--no-retry-on", "2,64", "--max-retries", "5"]
    for code in (1, 2, 64):
        cli.run("enqueue", f"exit {code}", "--id", f"job-{code}", *words, check=0)
    start = queue.start()
    assert queue.wait_for("job-64", JobState.DEAD, JobState.FAILED).state == JobState.DEAD
    assert [(job.state, job.attempts) for job in queue.jobs()] == [
        *(("failed", 1), ("dead", 1), ("dead", 1))
    ]
    assert queue.job("job-2").last_error == "Exit code 2"
    start.terminate()
    start.finish(0)


def test_a_code_that_is_in_both_completes(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("enqueue", "exit 2", "--success-codes", "2", "--no-retry-on", "2", check=0)
    queue.drain()
    assert queue.counts().completed == 1


def test_a_job_has_its_own_backoff(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1000", backoff_max="5000")
    line = json.dumps({"id": "json", "command": "exit 1", "backoff_base": 60, "backoff_max": 90})
    cli.run("enqueue", line, check=0)
    cli.run("enqueue", "exit 1", "--id", "base", "--backoff-base", "70", check=0)
    cli.run("enqueue", "exit 1", "--id", "max", "--backoff-max", "80", check=0)
    cli.run("enqueue", "exit 1", "--id", "none", "--backoff-max", "none", check=0)
    cli.run("enqueue", "exit 1", "--id", "usual", check=0)
    cli.run("config", "set", "backoff_base", "2000", check=0)
    start = queue.start()
    ids = ("json", "base", "max", "none", "usual")
    for job_id in ids:
        queue.wait_for(job_id, JobState.FAILED)
    assert [delay_of(queue, job_id) for job_id in ids] == [60, 70, 80, 1000, 2000]
    for job_id in ids:
        cli.run("retry", job_id, check=0)
        queue.wait_for(job_id, JobState.FAILED, run=2)
    assert [delay_of(queue, job_id) for job_id in ids] == [90, 4900, 80, 1e6, 5000]
    start.terminate()
    start.finish(0)


def test_a_backoff_of_nought_tries_again_at_once(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run(
        "enqueue", "exit 1", "--id", "job", "--backoff-base", "0", "--max-retries", "4", check=0
    )
    queue.drain(timeout=10)
    assert (queue.job("job").attempts, queue.job("job").state) == (4, JobState.DEAD)


@pytest.mark.parametrize(
    "words",
    [
        ["--success-codes", "256"],
        ["--success-codes", "-1"],
        ["--success-codes", ""],
        ["--success-codes", "0,"],
        ["--success-codes", "0;1"],
        ["--no-retry-on", "1.5"],
        ["--no-retry-on", "1 2"],
        ["--backoff-base", "-1"],
        ["--backoff-base", "nan"],
        ["--backoff-base", "inf"],
        ["--backoff-base", "1e7"],
        ["--backoff-max", "0"],
        ["--backoff-max", "-5"],
        ["--backoff-max", "x"],
        ["--max-retries", "1.5"],
    ],
)
def test_bad_options_make_no_job(words: List[str], cli: Cli) -> None:
    code, line = cli.refusal("enqueue", "true", *words)
    assert code == 2
    assert line.startswith(f"bad value for {words[0]}: ")
    assert not cli.store.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"success_codes": "0"},
        {"success_codes": 0},
        {"success_codes": [True]},
        {"success_codes": [256]},
        {"no_retry_on": [1.5]},
        {"no_retry_on": None},
        {"backoff_base": "2"},
        {"backoff_base": -1},
        {"backoff_base": True},
        {"backoff_max": 0},
        {"backoff_max": "5m"},
        {"backoff_max": 1e300},
    ],
)
def test_bad_keys_make_no_job(values: Dict[str, Any], cli: Cli) -> None:
    code, line = cli.refusal("enqueue", json.dumps({"command": "true", **values}))
    assert code == 2
    assert next(iter(values)) in line
    assert not cli.store.exists()
