"""Priorities and times: in which order jobs are run, and that none of them starts early."""

from __future__ import annotations

import json
import random
import time
from typing import Dict, List

import pytest

import support
from queuectl import clock
from queuectl.job import JobState
from starting import HOLD, SLACK, Queue
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NOTE = "echo $QUEUECTL_JOB_ID >> ran"
STAMP = "date +%s%N > $QUEUECTL_JOB_ID.began"


def order(queue: Queue) -> List[str]:
    """The jobs in the order in which they ran."""
    return queue.read("ran").split()


def began(queue: Queue, job_id: str) -> float:
    return int(queue.read(f"{job_id}.began")) / 1e9


def test_one_worker_runs_the_highest_priority_first_then_the_oldest(cli: Cli) -> None:
    queue = Queue(cli)
    lines = [
        {"id": "m1"},
        {"id": "l1", "priority": "low"},
        {"id": "h1", "priority": "high"},
        {"id": "p11", "priority": 11},
        {"id": "m2", "priority": 0},
        {"id": "n11", "priority": -11},
        {"id": "h2", "priority": 10},
        {"id": "l2", "priority": "-10"},
    ]
    text = "".join(json.dumps({"command": NOTE, **line}) + "\n" for line in lines)
    cli.run("enqueue", "--quiet", "--file", "-", input=text, check=0)
    cli.run("enqueue", NOTE, "--id", "h3", "--priority", "high", check=0)
    queue.drain()
    assert order(queue) == ["p11", "h1", "h2", "h3", "m1", "m2", "l1", "l2", "n11"]


def test_any_number_of_priorities_is_one_order(cli: Cli) -> None:
    queue = Queue(cli)
    numbers = random.Random(5).choices(range(-40, 40), k=200)
    lines = [{"id": f"job-{n}", "priority": number} for n, number in enumerate(numbers)]
    text = "".join(json.dumps({"command": NOTE, **line}) + "\n" for line in lines)
    cli.run("enqueue", "--quiet", "--file", "-", input=text, check=0)
    queue.drain()
    expected = sorted(lines, key=lambda line: -int(str(line["priority"])))
    assert order(queue) == [line["id"] for line in expected]


def test_one_that_comes_while_others_wait_overtakes_them(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    start = queue.start("--drain")
    queue.wait_for_runner("held")
    queue.add_many({"first": NOTE, "second": NOTE})
    queue.add(NOTE, id="urgent", priority=1)
    queue.let_go()
    start.finish(0)
    assert order(queue) == ["urgent", "first", "second"]


def test_one_of_high_priority_that_cannot_run_yet_blocks_nobody(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1000")
    queue.add("exit 1", id="failing", priority=1000)
    queue.add(NOTE, id="later", priority=1000, run_at=clock.now() + 3600)
    queue.add(NOTE, id="child", priority=1000, after=["later"])
    cli.run("queue", "pause", "shut", check=0)
    queue.add(NOTE, id="shut", priority=1000, queue="shut")
    queue.add(NOTE, id="low", priority=-1000)
    start = queue.start()
    queue.wait_for("low", JobState.COMPLETED)
    assert order(queue) == ["low"]
    assert queue.job("failing").state == JobState.FAILED
    start.terminate()
    start.finish(0)


def test_a_retry_that_is_due_has_its_place_by_priority_and_age(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0.2")
    queue.add(f"{NOTE}; [ $QUEUECTL_JOB_RUN = 2 ]", id="flaky")
    start = queue.start("--drain")
    queue.wait_for("flaky", JobState.FAILED)
    queue.add(HOLD, id="held", priority=1)
    queue.wait_for_runner("held")
    queue.add_many({"younger": NOTE})
    due = queue.job("flaky").run_at
    assert due is not None
    support.wait_until(lambda: clock.now() > clock.from_iso(due), what="the retry to be due")
    queue.let_go()
    start.finish(0)
    assert order(queue) == ["flaky", "flaky", "younger"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--delay", "0.7"], {}),
        ([], {"delay": 0.7}),
        ([], {"delay": "0.7s"}),
    ],
)
def test_what_is_delayed_may_be_said_in_any_form(
    words: List[str], line: Dict[str, object], cli: Cli
) -> None:
    before = clock.now()
    text = json.dumps({"command": "true", **line})
    done = cli.run("enqueue", *words, "--file", "-", input=text, check=0)
    run_at = clock.from_iso(json.loads(done.stdout)["run_at"])
    assert before + 0.69 < run_at < clock.now() + 0.71


def test_a_delayed_job_starts_at_its_time_and_not_before(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start("--count", "2")
    queue.wait_for_workers(2)
    made = [
        cli.json("enqueue", STAMP, "--id", "delayed", "--delay", "1"),
        cli.json("enqueue", json.dumps({"id": "keyed", "command": STAMP, "delay": "0.5s"})),
    ]
    at = clock.now() + 1.2
    made.append(
        cli.json(
            "enqueue", json.dumps({"id": "dated", "command": STAMP, "run_at": clock.to_iso(at)})
        )
    )
    for job in made:
        assert job["state"] == "pending"
        due = clock.from_iso(job["run_at"])
        queue.wait_for(job["id"], JobState.COMPLETED)
        assert due <= began(queue, job["id"]) < due + 0.5 + SLACK
    start.terminate()
    start.finish(0)


@pytest.mark.parametrize("when", [["--run-at", "2001-01-01T00:00Z"], ["--delay", "0"]])
def test_a_time_that_has_passed_means_now(when: List[str], cli: Cli) -> None:
    queue = Queue(cli)
    assert cli.json("enqueue", NOTE, "--id", "job", *when)["run_at"] is None
    queue.drain()
    assert order(queue) == ["job"]


def test_a_time_of_day_is_the_next_one(cli: Cli) -> None:
    for hours in (1, 23):
        text = time.strftime("%H:%M", time.gmtime(clock.now() + hours * 3600))
        job = cli.json("enqueue", "true", "--run-at", text, env={"TZ": "UTC"})
        ahead = clock.from_iso(job["run_at"]) - clock.now()
        assert hours * 3600 - 61 < ahead <= hours * 3600


def test_local_time_is_that_of_whoever_enqueues(cli: Cli) -> None:
    when = ["--run-at", "2099-06-01 12:00"]
    assert (
        cli.json("enqueue", "true", *when, env={"TZ": "UTC"})["run_at"][:16] == "2099-06-01T12:00"
    )
    there = cli.json("enqueue", "true", *when, env={"TZ": "XYZ-3"})
    assert there["run_at"][:16] == "2099-06-01T09:00"


def test_drain_leaves_scheduled_jobs_and_those_that_follow_them(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(NOTE, id="later", run_at=clock.now() + 3600)
    queue.add(NOTE, id="child", after=["later"])
    queue.add(NOTE, id="now")
    queue.drain()
    assert order(queue) == ["now"]
    assert "Scheduled" in cli.run("status", check=0).stdout


def test_a_scheduled_job_is_run_at_once_when_its_time_is_taken_back(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(NOTE, id="later", run_at=clock.now() + 3600)
    start = queue.start()
    queue.wait_for_workers(1)
    cli.run("edit", "later", "--run-at", "2001-01-01T00:00Z", check=0)
    queue.wait_for("later", JobState.COMPLETED, timeout=1 + SLACK)
    start.terminate()
    start.finish(0)
