"""Named queues: who serves them, how many of their jobs run at once, and pausing."""

from __future__ import annotations

import signal
import time
from typing import List

import pytest

import support
from queuectl import clock
from queuectl.job import JobState
from starting import HOLD, SLACK, Queue, kill
from support import Cli, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NOTE = "echo $QUEUECTL_JOB_ID >> ran"
COUNT = """
set -C; until 2>/dev/null > one; do sleep 0.001; done
n=$(cat running 2>/dev/null || echo 0); echo $((n + 1)) >| running; echo $((n + 1)) >> most
rm one; sleep 0.03
until 2>/dev/null > one; do sleep 0.001; done
echo $(($(cat running) - 1)) >| running; rm one
"""
"""A job that notes how many of its kind run."""


def order(queue: Queue) -> List[str]:
    return queue.read("ran").split()


def test_several_queues_of_a_start_are_one_order_and_others_are_left(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(NOTE, id="b1", queue="b")
    queue.add(NOTE, id="a1", queue="a")
    queue.add(NOTE, id="c1", queue="c", priority=100)
    queue.add(NOTE, id="a2", queue="a", priority=10)
    queue.add(NOTE, id="d1")
    queue.add(NOTE, id="b2", queue="b", priority=20)
    queue.start("--queue", "a", "--queue", "b", "--drain").finish(0)
    assert order(queue) == ["b2", "a2", "b1", "a1"]
    assert [job.id for job in queue.jobs() if job.waits] == ["c1", "d1"]
    queue.drain()
    assert order(queue)[4:] == ["c1", "d1"]


def test_a_worker_of_one_queue_is_not_woken_in_vain_by_another(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start("--queue", "a")
    queue.wait_for_workers(1)
    queue.add(NOTE, id="other", queue="b")
    queue.add(NOTE, id="own", queue="a")
    queue.wait_for("own", JobState.COMPLETED)
    assert queue.job("other").state == JobState.PENDING
    shown = cli.run("show", "other", check=0).stdout
    assert "no worker serves queue b" in shown
    start.terminate()
    start.finish(0)
    shown = cli.run("show", "other", check=0).stdout
    assert "no worker is running" in shown


def test_concurrency_holds_over_all_workers_of_two_starts(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("queue", "set", "few", "--concurrency", "2", check=0)
    starts = [queue.start("--count", "3") for _ in range(2)]
    queue.wait_for_workers(6)
    ids = [f"job-{number}" for number in range(12)]
    queue.add_many(dict.fromkeys(ids, COUNT), queue="few")
    for job_id in ids:
        assert queue.wait_for(job_id, JobState.COMPLETED, JobState.DEAD).state == "completed"
    assert max(map(int, queue.read("most").split())) == 2
    for start in starts:
        start.terminate()
        start.finish(0)


def test_a_full_queue_blocks_no_other_and_says_so(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("queue", "set", "one", "--concurrency", "1", check=0)
    queue.add_many({"held": HOLD, "next": NOTE}, queue="one", priority=10)
    start = queue.start("--count", "2")
    queue.wait_for_runner("held")
    queue.add(NOTE, id="other")
    queue.wait_for("other", JobState.COMPLETED)
    assert "queue one runs as many jobs as it may" in cli.run("show", "next", check=0).stdout
    queue.let_go()
    queue.wait_for("next", JobState.COMPLETED, timeout=SLACK + 1)
    start.terminate()
    start.finish(0)


def test_a_limit_that_is_raised_wakes_those_who_wait_at_once(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("queue", "set", "default", "--concurrency", "1", check=0)
    queue.add_many({"held": HOLD, "next": NOTE})
    start = queue.start("--count", "2")
    queue.wait_for_runner("held")
    cli.run("queue", "set", "default", "--concurrency", "none", check=0)
    queue.wait_for("next", JobState.COMPLETED, timeout=SLACK)
    queue.let_go()
    queue.wait_for("held", JobState.COMPLETED)
    start.terminate()
    start.finish(0)


def test_a_job_of_a_full_queue_that_dies_makes_room(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.1")
    cli.run("queue", "set", "one", "--concurrency", "1", check=0)
    queue.add("kill -9 $PPID; sleep 1000", id="killer", queue="one", max_retries=1)
    queue.add(NOTE, id="next", queue="one")
    start = queue.start("--drain")
    start.finish(0)
    assert queue.job("killer").state == JobState.DEAD
    assert order(queue) == ["next"]


def test_pause_waits_for_what_runs_and_resume_wakes_at_once(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add_many({"held": HOLD, "next": NOTE}, queue="q")
    start = queue.start()
    queue.wait_for_runner("held")
    pause = cli.spawn("queue", "pause", "q", "--wait")
    listed = wait_until(
        lambda: next(
            (row for row in cli.run("queue", "list").stdout.splitlines() if "paused" in row), None
        ),
        what="the pause",
    )
    assert listed == "q\tpaused\tnone\t1\t1\t0\t0\t0\t0"
    assert pause.poll() is None
    queue.let_go()
    pause.finish(0)
    assert queue.job("held").state == JobState.COMPLETED
    queue.add(NOTE, id="other")
    queue.wait_for("other", JobState.COMPLETED)
    assert order(queue) == ["other"]
    shown = cli.run("show", "next", check=0).stdout
    assert "queue q is paused: queuectl queue resume" in shown
    cli.run("queue", "resume", "q", check=0)
    resumed = time.monotonic()
    queue.wait_for("next", JobState.COMPLETED)
    assert time.monotonic() - resumed < SLACK
    start.terminate()
    start.finish(0)


def test_a_pause_does_not_wait_for_the_dead(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.3", backoff_base="1000")
    queue.add("sleep 1000", id="job", queue="q")
    start = queue.start()
    runner = queue.wait_for_runner("job")
    kill(start.pid, runner.pid)
    start.finish(-signal.SIGKILL)
    cli.run("queue", "pause", "q", "--wait", check=0, timeout=10)
    job = queue.job("job")
    assert (job.state, job.last_error) == (JobState.FAILED, "Worker died")
    assert not queue.runs_of("job")


def test_nothing_is_claimed_once_a_pause_was_acknowledged(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add_many({f"job-{number}": NOTE for number in range(2000)}, queue="q")
    start = queue.start("--count", "4", "--drain")
    wait_until((queue.folder / "ran").exists, what="the first job")
    cli.run("queue", "pause", "q", "--wait", check=0)
    paused = queue.counts()
    start.finish(0)
    assert paused.pending > 0
    assert queue.counts() == paused
    assert len(order(queue)) == paused.completed


def test_drain_waits_for_no_paused_queue_and_no_job_that_is_blocked(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("queue", "pause", "shut", check=0)
    queue.add(NOTE, id="shut", queue="shut")
    queue.add("exit 1", id="dead", max_retries=1)
    queue.add(NOTE, id="blocked", after=["dead"])
    queue.add(NOTE, id="behind", after=["shut"])
    queue.add(NOTE, id="later", run_at=clock.now() + 3600)
    queue.add(NOTE, id="now")
    queue.drain()
    assert order(queue) == ["now"]
    assert sorted(job.id for job in queue.jobs() if job.waits) == [
        *("behind", "blocked", "later", "shut")
    ]


def test_drain_waits_for_no_retry_in_a_paused_queue(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1000")
    queue.add("exit 1", id="failing", queue="shut")
    start = queue.start("--drain")
    queue.wait_for("failing", JobState.FAILED)
    assert start.poll() is None
    cli.run("queue", "pause", "shut", check=0)
    start.finish(0, timeout=5)


def test_only_worker_elsewhere_is_told_by_show(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start("--queue", "email")
    queue.wait_for_workers(1)
    job = cli.json("enqueue", "true", "--queue", "emial")
    assert "no worker serves queue emial" in cli.run("show", job["id"], check=0).stdout
    why = cli.json("show", job["id"])["waiting_for"]
    assert why == [{"kind": "unserved", "what": "emial", "state": None}]
    start.terminate()
    start.finish(0)


def test_queue_commands_in_a_terminal_a_pipe_and_json(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", queue="mail")
    assert cli.run("queue", "list", check=0).stdout.splitlines() == [
        "default\tactive\tnone\t0\t0\t0\t0\t0\t0",
        "mail\tactive\tnone\t1\t0\t0\t0\t0\t0",
    ]
    assert cli.json("queue", "set", "empty", "--concurrency", "3") == {
        "name": "empty",
        "concurrency": 3,
        "paused": False,
    }
    assert cli.json("queue", "pause", "empty")["paused"] is True
    assert cli.json("queue", "list")[1] == {
        "name": "empty",
        "paused": True,
        "concurrency": 3,
        "pending": 0,
        "processing": 0,
        "failed": 0,
        "completed": 0,
        "dead": 0,
        "cancelled": 0,
    }
    cli.run("queue", "resume", "empty", check=0)
    cli.run("queue", "set", "empty", "--concurrency", "none", check=0)
    assert [each["name"] for each in cli.json("queue", "list")] == ["default", "mail"]
    screen = cli.terminal("queue", "list")
    screen.expect("mail")
    assert screen.wait() == 0


@pytest.mark.parametrize(
    "words",
    [
        ["queue", "set", "q", "--concurrency", "0"],
        ["queue", "set", "q", "--concurrency", "-1"],
        ["queue", "set", "q", "--concurrency", "2000"],
        ["queue", "set", "q", "--concurrency", "many"],
        ["queue", "set", "q"],
        ["queue", "set", "../q", "--concurrency", "1"],
        ["queue", "pause", "a b"],
        ["queue", "pause", "a\nb"],
        ["queue", "pause", ""],
        ["queue", "resume", ".q"],
        ["queue", "resume", "q" * 65],
        ["queue", "pause", "\u00fc"],
        ["start", "--queue", "a b"],
        ["enqueue", "true", "--queue", "a,b"],
    ],
)
def test_bad_queues_are_refused_in_one_line_and_make_no_store(words: List[str], cli: Cli) -> None:
    assert cli.refusal(*words)[0] == 2
    assert not cli.store.exists()
