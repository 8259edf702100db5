"""Unique jobs: at most one of a key that is not over, whoever enqueues, and however often."""

from __future__ import annotations

import json
from typing import Any, List

import pytest

import support
from queuectl.job import JobState
from starting import HOLD, Queue
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NOTE = "echo $QUEUECTL_JOB_ID >> ran"


def commits(cli: Cli) -> int:
    return sum('"commit"' in line for line in (cli.store / "jobs.jsonl").read_text().splitlines())


def test_a_job_whose_key_is_taken_is_met_by_the_one_that_has_it(cli: Cli) -> None:
    queue = Queue(cli)
    first = cli.json("enqueue", "sync", "--unique", "sync")
    done = cli.run("enqueue", "sync again", "--unique", "sync", check=0)
    assert json.loads(done.stdout) == first
    assert done.stderr == f"queuectl: already queued: job {first['id']!r}\n"
    assert cli.run("enqueue", "x", "--unique", "sync", "--print-id").stdout == first["id"] + "\n"
    assert len(queue.jobs()) == 1


def test_a_person_is_told_that_it_is_queued_already(cli: Cli) -> None:
    Queue(cli).add("sync", id="first", unique="sync")
    screen = cli.terminal("enqueue", "sync", "--unique", "sync")
    assert screen.wait() == 0
    assert "already queued" in screen.text
    assert "ID: first" in screen.text
    assert "enqueued successfully" not in screen.text


def test_in_cron_nothing_is_printed(cli: Cli) -> None:
    queue = Queue(cli)
    for _ in range(2):
        done = cli.run("enqueue", "--quiet", "--unique", "sync", "true", check=0)
        assert (done.stdout, done.stderr) == ("", "")
    assert len(queue.jobs()) == 1


@pytest.mark.parametrize("command", ["true", "exit 1"])
def test_a_key_is_free_once_its_job_is_over(command: str, cli: Cli) -> None:
    queue = Queue(cli)
    for number in range(2):
        words = ["--unique", "k", "--id", f"job-{number}", "--max-retries", "1"]
        cli.run("enqueue", command, *words, "--on-conflict", "error", check=0)
        queue.drain()
    cli.run("enqueue", command, "--unique", "k", "--id", "third", check=0)
    cli.run("cancel", "third", check=0)
    cli.run("enqueue", command, "--unique", "k", "--on-conflict", "error", check=0)


def test_a_key_is_taken_while_its_job_runs_and_while_it_waits_for_its_retry(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1000")
    queue.add(f"{HOLD}; exit 1", id="holder", unique="k")
    start = queue.start()
    queue.wait_for_runner("holder")
    for policy in ("error", "replace"):
        done = cli.run("enqueue", "true", "--unique", "k", "--on-conflict", policy, check=1)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert "'holder'" in done.stderr
    assert cli.run("enqueue", "--unique", "k", "true", "--print-id").stdout == "holder\n"
    queue.let_go()
    queue.wait_for("holder", JobState.FAILED)
    cli.run("enqueue", "true", "--unique", "k", "--on-conflict", "error", check=1)
    assert len(queue.jobs()) == 1
    words = ["--unique", "k", "--on-conflict", "replace", "--id", "new"]
    cli.run("enqueue", "true", *words, check=0)
    queue.wait_for("new", JobState.COMPLETED)
    assert queue.job("holder").state == JobState.CANCELLED
    start.terminate()
    start.finish(0)


def test_a_waiting_one_is_replaced_in_one_commit_with_what_follows_it(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("old", id="old", unique="k")
    queue.add("true", id="child", after=["old"])
    before = commits(cli)
    done = cli.run(
        "enqueue", NOTE, "--unique", "k", "--on-conflict", "replace", "--id", "new", check=0
    )
    assert commits(cli) == before + 1
    assert json.loads(done.stdout)["id"] == "new"
    assert "job 'child' is cancelled too: Job 'old', which it was to follow, was replaced" in (
        done.stderr
    )
    assert "already queued" not in done.stderr
    assert queue.job("old").last_error == "Replaced by job 'new'"
    queue.drain()
    assert [(job.id, job.state) for job in queue.jobs()] == [
        *(("old", "cancelled"), ("child", "cancelled"), ("new", "completed"))
    ]


def test_of_twenty_at_once_one_makes_the_job(cli: Cli) -> None:
    queue = Queue(cli)
    words = ["enqueue", NOTE, "--unique", "k", "--print-id"]
    processes = [cli.spawn(*words) for _ in range(20)]
    for process in processes:
        process.finish(0)
    [job] = queue.jobs()
    assert {process.out for process in processes} == {f"{job.id}\n"}
    assert sum("already queued" in process.err for process in processes) == 19
    queue.drain()
    assert queue.read("ran").split() == [job.id]


def test_of_many_that_replace_at_once_one_is_left(cli: Cli) -> None:
    queue = Queue(cli)
    words = ["enqueue", NOTE, "--unique", "k", "--on-conflict", "replace", "--print-id"]
    processes = [cli.spawn(*words) for _ in range(8)]
    for process in processes:
        process.finish(0)
    assert len({process.out for process in processes}) == 8
    assert sorted(job.state for job in queue.jobs()) == ["cancelled"] * 7 + ["pending"]


def test_a_retry_against_a_holder_is_refused_and_names_it(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("exit 1", id="dead", max_retries=1, unique="k", labels=["l"])
    queue.add("exit 1", id="free", max_retries=1, labels=["l"])
    queue.drain()
    queue.add("true", id="holder", unique="k")
    before = [job.rev for job in queue.jobs()]
    for words in (["dlq", "retry", "dead", "free"], ["retry", "free", "dead"]):
        done = cli.run(*words, check=1)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert "'holder'" in done.stderr
        assert [job.rev for job in queue.jobs()] == before
    done = cli.run("dlq", "retry", "--all", check=1)
    assert [row.split("\t")[0] for row in done.stdout.splitlines()] == ["free"]
    assert "job 'dead' is passed over" in done.stderr
    assert "'holder'" in done.stderr
    assert [job.state for job in queue.jobs()] == ["dead", "pending", "pending"]
    cli.run("cancel", "holder", "free", check=0)
    cli.run("dlq", "retry", "--label", "l", check=0)
    assert queue.job("dead").state == JobState.PENDING


def test_of_several_dead_ones_with_a_key_one_is_retried(cli: Cli) -> None:
    queue = Queue(cli)
    for number in range(3):
        queue.add("exit 1", id=f"dead-{number}", max_retries=1, unique="k")
        queue.drain()
    done = cli.run("dlq", "retry", "dead-0", "dead-1", check=1)
    assert done.stdout == ""
    assert queue.counts().dead == 3
    done = cli.run("dlq", "retry", "--all", check=1)
    assert len(done.stdout.splitlines()) == 1
    assert (queue.counts().dead, queue.counts().pending) == (2, 1)


def lines(*jobs: Any) -> str:
    return "".join(json.dumps({"command": "true", **job}) + "\n" for job in jobs)


def test_in_a_file_the_first_of_a_key_counts(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="old", unique="o")
    text = lines(
        {"id": "a", "unique": "k"},
        {"id": "b", "unique": "k"},
        {"id": "c", "after": "b"},
        {"id": "d", "unique": "o"},
        {"id": "e", "after": "d"},
    )
    done = cli.run("enqueue", "--print-id", "--file", "-", input=text, check=0)
    assert done.stdout.split() == ["a", "a", "c", "old", "e"]
    assert sorted(job.id for job in queue.jobs()) == ["a", "c", "e", "old"]
    assert queue.job("c").after == ("a",)
    assert queue.job("e").after == ("old",)
    for policy in ("error", "replace"):
        text = lines({"unique": "n"}, {"unique": "n", "on_conflict": policy})
        done = cli.run("enqueue", "--file", "-", input=text, check=1)
        assert done.stderr.startswith("queuectl: line 2: ")
    assert len(queue.jobs()) == 4


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--unique", ""], 2),
        (["--unique", "a\nb"], 2),
        (["--unique", "k" * 201], 2),
        (["--on-conflict", "skip"], 2),
        (["--unique", "k", "--on-conflict", "ignore"], 2),
        (["--unique", "k", "--on-conflict", "error"], 1),
        (["--unique", "k", "--on-conflict", "replace", "--after", "holder"], 1),
        (["--unique", "k", "--on-conflict", "replace", "--id", "holder"], 1),
    ],
)
def test_what_is_refused_changes_nothing(words: List[str], code: int, cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="holder", unique="k")
    before = (cli.store / "jobs.jsonl").read_bytes()
    assert cli.refusal("enqueue", "true", *words)[0] == code
    assert (cli.store / "jobs.jsonl").read_bytes() == before


def test_another_job_may_not_take_a_key_by_import(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="holder", unique="k")
    exported = cli.run("export", check=0).stdout.replace('"holder"', '"other"')
    done = cli.run("import", "-", input=exported, check=1)
    assert done.stderr.count("\n") == 1
    assert "'holder'" in done.stderr
    assert len(queue.jobs()) == 1
