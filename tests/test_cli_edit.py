"""`queuectl edit`: what can be changed of a job, and when."""

from __future__ import annotations

from typing import Any, List

import pytest

import support
from queuectl import clock
from queuectl.job import JobState
from starting import HOLD, Queue
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NOTE = "echo $QUEUECTL_JOB_ID >> ran"


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--command", "echo {new}"], "command", "echo {new}"),
        (["--priority", "high"], "priority", 10),
        (["--priority", "-3"], "priority", -3),
        (["--queue", "mail"], "queue", "mail"),
        (["--max-retries", "9"], "max_retries", 9),
        (["--run-at", "2099-01-01T00:00:00Z"], "run_at", "2099-01-01T00:00:00.000Z"),
        (["--run-at", "2001-01-01T00:00:00Z"], "run_at", None),
    ],
)
def test_one_field_is_changed_and_nothing_else(
    words: List[str], field: str, value: Any, cli: Cli
) -> None:
    queue = Queue(cli)
    queue.add("true", id="job", unique="k", labels=["l"], run_at=clock.now() + 3600)
    before = queue.job("job").to_dict(reveal=True)
    [after] = cli.json("edit", "job", *words)
    changed = {name for name in before if before[name] != after[name]}
    assert after[field] == value
    assert changed == {"rev", "updated_at", field}
    assert queue.job("job").to_dict() == after


def test_several_fields_at_once_and_how_it_is_told(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="nightly-1")
    words = ["--command", "false", "--priority", "low", "--queue", "q", "--max-retries", "1"]
    row = cli.run("edit", "nigh", *words, check=0).stdout
    assert row.split("\t")[:4] == ["nightly-1", "pending", "0", "1"]
    job = queue.job("nightly-1")
    assert (job.command, job.priority, job.queue) == ("false", -10, "q")
    screen = cli.terminal("edit", "nightly-1", "--priority", "1")
    assert screen.wait() == 0
    assert "Job nightly-1 changed" in screen.text


def test_the_new_priority_decides_the_order(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add_many(dict.fromkeys(("one", "two", "three"), NOTE))
    cli.run("edit", "three", "--priority", "high", check=0)
    cli.run("edit", "one", "--priority", "low", check=0)
    queue.drain()
    assert queue.read("ran").split() == ["three", "two", "one"]


def test_one_that_is_moved_to_a_queue_that_is_served_runs_at_once(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(NOTE, id="job", queue="emial")
    start = queue.start("--queue", "email")
    queue.wait_for_workers(1)
    cli.run("edit", "job", "--queue", "email", check=0)
    assert queue.wait_for("job", JobState.COMPLETED).queue == "email"
    start.terminate()
    start.finish(0)
    rows = cli.run("queue", "list", check=0).stdout.splitlines()
    assert [row.split("\t")[0] for row in rows] == ["default", "email"]


def test_a_dead_one_is_corrected_and_retried(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0")
    queue.add("exit 1", id="job", max_retries=2)
    queue.drain()
    cli.run("edit", "job", "--command", NOTE, "--queue", "q", "--max-retries", "1", check=0)
    job = queue.job("job")
    assert (job.state, job.attempts, job.last_error) == (JobState.DEAD, 2, "Exit code 1")
    queue.drain()
    assert not (queue.folder / "ran").exists()
    cli.run("dlq", "retry", "job", check=0)
    queue.drain()
    assert queue.read("ran").split() == ["job"]
    assert queue.job("job").state == JobState.COMPLETED


def test_a_failed_one_gets_more_attempts_or_another_time(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1000")
    queue.add(f"{NOTE}; exit 1", id="job", max_retries=2)
    start = queue.start()
    queue.wait_for("job", JobState.FAILED)
    for attempts in ("1", "0"):
        done = cli.run("edit", "job", "--max-retries", attempts, check=1)
        assert "has used 1 attempts" in done.stderr
    cli.run("edit", "job", "--max-retries", "3", check=0)
    cli.run("edit", "job", "--run-at", "2001-01-01T00:00Z", check=0)
    job = queue.wait_for("job", JobState.FAILED, run=2)
    assert (job.attempts, job.max_retries) == (2, 3)
    start.terminate()
    start.finish(0)


def test_one_that_runs_or_is_over_is_refused(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="completed")
    queue.add("exit 1", id="dead", max_retries=1)
    queue.add("true", id="cancelled", queue="other")
    queue.drain()
    cli.run("retry", "completed", check=1)
    queue.add("true", id="late", queue="other")
    cli.run("cancel", "late", check=0)
    queue.add(HOLD, id="held")
    start = queue.start()
    queue.wait_for_runner("held")
    before = (cli.store / "jobs.jsonl").read_bytes()
    for job_id in ("completed", "late", "held"):
        done = cli.run("edit", job_id, "--priority", "1", check=1)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert "cannot be edited" in done.stderr
    done = cli.run("edit", "dead", "--run-at", "12:00", check=1)
    assert "only what waits has a run-at" in done.stderr
    assert (cli.store / "jobs.jsonl").read_bytes() == before
    queue.let_go()
    queue.wait_for("held", JobState.COMPLETED)
    start.terminate()
    start.finish(0)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["job"], 2),
        (["job", "--command", " "], 2),
        (["job", "--priority", "urgent"], 2),
        (["job", "--priority", "1000001"], 2),
        (["job", "--queue", "a b"], 2),
        (["job", "--run-at", "soon"], 2),
        (["job", "--max-retries", "-1"], 2),
        (["job", "other", "--priority", "1"], 2),
        (["nobody", "--priority", "1"], 1),
        (["", "--priority", "1"], 1),
    ],
)
def test_bad_input_changes_nothing(words: List[str], code: int, cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="job")
    before = (cli.store / "jobs.jsonl").read_bytes()
    assert cli.refusal("edit", *words)[0] == code
    assert (cli.store / "jobs.jsonl").read_bytes() == before


def test_what_to_give_is_named(cli: Cli) -> None:
    Queue(cli).add("true", id="job")
    assert cli.run("edit", "job", check=2).stderr == (
        "queuectl: give what to change, such as --command or --priority; see queuectl edit --help\n"
    )
