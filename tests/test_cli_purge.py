"""`queuectl purge`: what is deleted, what stays, and what is never counted down."""

from __future__ import annotations

import json
from typing import List, Set

import pytest

import support
from queuectl import clock
from queuectl.job import JobState
from starting import HOLD, Queue
from support import Cli, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


def ids(queue: Queue) -> Set[str]:
    return {job.id for job in queue.jobs()}


def outputs(cli: Cli) -> List[str]:
    return sorted(path.name for path in cli.store.glob("logs/*/*"))


def sample(cli: Cli) -> Queue:
    """A job of each kind, each with output."""
    queue = Queue(cli, backoff_base="1000")
    queue.add("echo a", id="completed", labels=["l"])
    queue.add("echo b", id="other")
    queue.add("echo c; exit 1", id="dead", max_retries=1, labels=["l"])
    queue.add("echo d; exit 1", id="failed", labels=["l"])
    queue.add("true", id="cancelled", labels=["l"], queue="q", after=["completed"])
    start = queue.start("--queue", "default")
    queue.wait_for("failed", JobState.FAILED)
    start.terminate()
    start.finish(0)
    cli.run("cancel", "cancelled", check=0)
    queue.add("true", id="pending", labels=["l"])
    return queue


ALL = {"completed", "other", "dead", "failed", "cancelled", "pending"}


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (["--all"], {"completed", "other", "cancelled"}),
        (["--state", "completed"], {"completed", "other"}),
        (["--state", "completed,cancelled"], {"completed", "other", "cancelled"}),
        (["--state", "dlq"], {"dead"}),
        (["--label", "l"], {"completed", "cancelled"}),
        (["--label", "l", "--state", "dead,completed"], {"completed", "dead"}),
        (["--label", "nobody"], set()),
        (["--older-than", "1d"], set()),
        (["--older-than", "0"], {"completed", "other", "cancelled"}),
        (["--older-than", "1d", "--state", "dead"], set()),
    ],
)
def test_what_goes_and_what_stays(words: List[str], gone: Set[str], cli: Cli) -> None:
    queue = sample(cli)
    before = cli.json("status")
    done = cli.run("purge", *words, check=0)
    assert {row.split("\t")[0] for row in done.stdout.splitlines()} == gone
    assert ids(queue) == ALL - gone
    kept = {"completed", "other", "dead", "failed"} - gone
    assert outputs(cli) == sorted(f"{job_id}.1.log" for job_id in kept)
    after = cli.json("status")
    assert sum(after[state] for state in JobState.ALL) == len(ALL - gone)
    for name, total in before.items():
        if name not in (*JobState.ALL, "total", "store"):
            assert after[name] == total, name


def test_age_is_by_the_end_and_not_by_the_creation(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="late")
    queue.add("true", id="early", priority=1)
    start = queue.start("--drain")
    finished_at = queue.wait_for("early", JobState.COMPLETED).finished_at
    assert finished_at is not None
    # Not by when it was made: on a busy machine it ends long after that.
    wait_until(lambda: clock.now() - clock.from_iso(finished_at) > 0.5, what="one to be old")
    queue.let_go()
    start.finish(0)
    done = cli.run("purge", "--older-than", "0.4", check=0)
    assert done.stdout.split("\t")[0] == "early"
    assert "early" not in ids(queue)


def test_lifetime_totals_never_go_down(cli: Cli) -> None:
    queue = sample(cli)

    def lifetime() -> List[int]:
        with queue.opened() as manager:
            return [manager.store.totals()["completed"]]

    assert lifetime() == [2]
    cli.run("purge", "--all", check=0)
    assert lifetime() == [2]
    with queue.opened() as manager:
        assert manager.store.rewrite()
    assert lifetime() == [2]
    cli.run("purge", "--state", "dead", check=0)
    queue.add("true", id="more", queue="more")
    queue.start("--queue", "more", "--drain").finish(0)
    assert lifetime() == [3]


def test_ids_that_were_purged_may_be_used_again(cli: Cli) -> None:
    queue = sample(cli)
    cli.run("purge", "--all", check=0)
    cli.run("enqueue", "echo again", "--id", "completed", check=0)
    assert cli.run("list", "--label", "l", "--state", "completed", check=0).stdout == ""
    assert ids(queue) == {"completed", "dead", "failed", "pending"}


def test_logs_and_show_of_what_was_purged_say_that_it_is_gone(cli: Cli) -> None:
    sample(cli)
    cli.run("purge", "--all", check=0)
    for words in (["show", "other"], ["logs", "other"], ["wait", "other"], ["cancel", "other"]):
        done = cli.run(*words, check=1)
        assert done.stderr == "queuectl: job 'other' not found\n"


def test_a_job_that_is_retried_while_others_are_purged_stays(cli: Cli) -> None:
    queue = sample(cli)
    cli.run("dlq", "retry", "dead", check=0)
    cli.run("purge", "--state", "dead,completed,cancelled", check=0)
    assert ids(queue) == {"dead", "failed", "pending"}


def test_a_person_is_told(cli: Cli) -> None:
    sample(cli)
    screen = cli.terminal("purge", "--state", "completed")
    assert screen.wait() == 0
    assert "2 jobs deleted" in screen.text
    screen = cli.terminal("purge", "--all")
    assert screen.wait() == 0
    assert "Job deleted" in screen.text


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--all", "--state", "completed"],
        ["--all", "--label", "l"],
        ["--all", "--older-than", "1d"],
        ["--state", "pending"],
        ["--state", "completed,processing"],
        ["--state", "failed"],
        ["--state", "gone"],
        ["--state", ""],
        ["--older-than", "-1d"],
        ["--older-than", "soon"],
        ["--older-than", ""],
        ["--label", "a b"],
        ["job"],
    ],
)
def test_what_is_refused_changes_nothing(words: List[str], cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("echo x", id="job")
    queue.drain()
    before = (cli.store / "jobs.jsonl").read_bytes()
    assert cli.refusal("purge", *words)[0] == 2
    assert (cli.store / "jobs.jsonl").read_bytes() == before
    assert outputs(cli) == ["job.1.log"]


def test_purging_while_workers_run_ends_nothing_that_waits_or_runs(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    start = queue.start("--count", "2")
    queue.wait_for_runner("held")
    names = [f"job-{number}" for number in range(60)]
    queue.add_many(dict.fromkeys(names, "echo $QUEUECTL_JOB_ID >> ran"))
    while len(ids(queue)) > 1:
        cli.run("purge", "--all", check=0)
    queue.let_go()
    queue.wait_for("held", JobState.COMPLETED)
    start.terminate()
    start.finish(0)
    assert sorted(queue.read("ran").split()) == sorted(names)
    assert start.err == ""
    assert outputs(cli) == ["held.1.log"]


def test_json_tells_the_jobs_that_went(cli: Cli) -> None:
    sample(cli)
    done = cli.run("--json", "purge", "--label", "l", check=0)
    assert {job["id"] for job in json.loads(done.stdout)} == {"completed", "cancelled"}
