"""Jobs that follow others: when they run, when never, and what they say of it."""

from __future__ import annotations

import json
import os
import signal
import statistics
from typing import Any, List

import pytest

import support
from queuectl import clock
from queuectl.job import JobState
from queuectl.newjob import NewJob
from starting import HOLD, Queue, wait_until_gone
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NOTE = "echo $QUEUECTL_JOB_ID >> ran"


def order(queue: Queue) -> List[str]:
    return queue.read("ran").split()


def states(queue: Queue) -> Any:
    return {job.id: job.state for job in queue.jobs()}


def lines(*jobs: Any) -> str:
    return "".join(json.dumps({"command": NOTE, **job}) + "\n" for job in jobs)


def test_a_job_runs_once_all_its_parents_completed(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("enqueue", f"{HOLD}; {NOTE}", "--id", "held", check=0)
    cli.run("enqueue", NOTE, "--id", "quick", check=0)
    cli.run("enqueue", NOTE, "--id", "child", "--after", "held", "--after", "quick", check=0)
    cli.run("enqueue", NOTE, "--id", "grandchild", "--after", "child", "--priority", "9", check=0)
    start = queue.start("--count", "2")
    queue.wait_for("quick", JobState.COMPLETED)
    shown = cli.run("show", "child", check=0).stdout
    assert "until job held completes, which is processing" in shown
    assert "quick completes" not in shown
    queue.let_go()
    queue.wait_for("grandchild", JobState.COMPLETED)
    assert order(queue) == ["quick", "held", "child", "grandchild"]
    start.terminate()
    start.finish(0)


def test_a_parent_in_the_dlq_blocks_until_it_is_retried(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(f"{NOTE}; [ -e fixed ]", id="parent", max_retries=1)
    queue.add(NOTE, id="child", after=["parent"])
    queue.add(NOTE, id="anyhow", after_any=["parent"])
    queue.drain()
    assert order(queue) == ["parent", "anyhow"]
    assert states(queue)["child"] == JobState.PENDING
    shown = cli.run("show", "child", check=0).stdout
    assert "until job parent completes, which is in the DLQ: queuectl dlq retry" in shown
    done = cli.run("enqueue", NOTE, "--id", "late", "--after", "parent", check=0)
    assert done.stderr == (
        "queuectl: job 'parent' is dead: job 'late' waits until it is retried and completes\n"
    )
    (queue.folder / "fixed").touch()
    cli.run("dlq", "retry", "parent", check=0)
    queue.drain()
    assert order(queue) == ["parent", "anyhow", "parent", "child", "late"]


def test_a_failed_parent_blocks_until_a_retry_completes_it(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0.1")
    queue.add(f"{NOTE}; [ $QUEUECTL_JOB_RUN = 2 ]", id="flaky")
    queue.add(NOTE, id="child", after=["flaky"])
    queue.add(NOTE, id="anyhow", after_any=["flaky"])
    queue.drain()
    assert order(queue) == ["flaky", "flaky", "child", "anyhow"]


def test_a_cancel_takes_all_generations_along_and_says_so(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="parent")
    queue.add("true", id="child", after=["parent"])
    queue.add("true", id="grandchild", after=["child"])
    queue.add(NOTE, id="anyhow", after_any=["grandchild"])
    queue.add(NOTE, id="other")
    done = cli.run("cancel", "parent", check=0)
    assert done.stdout.split("\t")[:2] == ["parent", "cancelled"]
    assert done.stderr == (
        "queuectl: job 'child' is cancelled too: Job 'parent', which it was to follow, was "
        "cancelled\n"
        "queuectl: job 'grandchild' is cancelled too: Job 'child', which it was to follow, was "
        "cancelled\n"
    )
    assert "which it was to follow" in cli.run("show", "grandchild", check=0).stdout
    queue.drain()
    assert sorted(order(queue)) == ["anyhow", "other"]
    assert cli.run("enqueue", "true", "--after", "child").stderr == (
        "queuectl: job 'child' is cancelled: nothing can run after it\n"
    )


def test_cancelled_ones_can_be_retried_and_wait_again(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(NOTE, id="parent")
    queue.add(NOTE, id="child", after=["parent"])
    cli.run("cancel", "parent", check=0)
    cli.run("retry", "child", check=0)
    shown = cli.run("show", "child", check=0).stdout
    assert "until job parent completes, which was cancelled: queuectl retry" in shown
    queue.drain()
    assert not (queue.folder / "ran").exists()
    cli.run("retry", "parent", check=0)
    queue.drain()
    assert order(queue) == ["parent", "child"]


def test_a_running_parent_that_is_cancelled_takes_its_children_along(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("sleep 1000", id="parent")
    queue.add(NOTE, id="child", after=["parent"])
    queue.add(NOTE, id="grandchild", after=["child"])
    start = queue.start()
    queue.wait_for_runner("parent")
    done = cli.run("cancel", "parent", check=0)
    assert done.stdout.split("\t")[:2] == ["parent", "cancelled"]
    assert set(states(queue).values()) == {JobState.CANCELLED}
    assert done.stderr.count("is cancelled too") == 2
    start.terminate()
    start.finish(0)


def test_a_running_parent_that_completes_in_spite_of_a_cancel_keeps_its_children(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="parent")
    queue.add(NOTE, id="child", after=["parent"])
    start = queue.start("--drain")
    runner = queue.wait_for_runner("parent")
    # Held, its worker does not see the cancel until the job has ended by itself.
    os.kill(runner.pid, signal.SIGSTOP)
    cancel = cli.spawn("cancel", "parent")
    support.wait_until(lambda: queue.job("parent").cancel_requested, what="the cancel")
    pids = list(queue.runs_of("parent"))
    queue.let_go()
    wait_until_gone(pids, timeout=10)
    os.kill(runner.pid, signal.SIGCONT)
    cancel.finish(1)
    start.finish(0)
    assert order(queue) == ["child"]


def test_a_purge_of_a_dead_parent_takes_its_children_along_and_says_so(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("exit 1", id="parent", max_retries=1)
    queue.add("true", id="child", after=["parent"])
    queue.add("true", id="grandchild", after=["child"])
    queue.drain()
    done = cli.run("dlq", "purge", "parent", check=0)
    assert "job 'child' is cancelled too: Job 'parent', which it was to follow, was purged" in (
        done.stderr
    )
    assert states(queue) == {"child": "cancelled", "grandchild": "cancelled"}


def test_purge_of_dead_ones_by_state_takes_children_along_too(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("exit 1", id="parent", max_retries=1)
    queue.add("true", id="child", after=["parent"])
    queue.drain()
    done = cli.run("purge", "--state", "dead", check=0)
    assert "job 'child' is cancelled too" in done.stderr
    assert states(queue) == {"child": "cancelled"}


def test_a_completed_parent_may_be_purged_at_any_time(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(NOTE, id="done")
    queue.drain()
    cli.run("queue", "pause", "default", check=0)
    queue.add(HOLD, id="held")
    queue.add(NOTE, id="early", after=["done", "held"])
    cli.run("purge", "--all", check=0)
    assert sorted(states(queue)) == ["early", "held"]
    assert cli.run("enqueue", "true", "--after", "done", check=1).stderr == (
        "queuectl: job 'done' not found\n"
    )
    cli.run("queue", "resume", "default", check=0)
    queue.let_go()
    queue.drain()
    assert order(queue) == ["done", "early"]


def test_one_that_completes_and_is_purged_while_a_child_waits_lets_it_go(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("queue", "pause", "shut", check=0)
    queue.add(NOTE, id="parent")
    queue.add(NOTE, id="child", after=["parent"], queue="shut")
    queue.drain()
    cli.run("purge", "--state", "completed", check=0)
    cli.run("queue", "resume", "shut", check=0)
    assert cli.json("show", "child")["waiting_for"] == [
        {"kind": "no_worker", "what": "", "state": None}
    ]
    queue.drain()
    assert order(queue) == ["parent", "child"]


def test_lines_of_a_file_may_refer_to_later_ones(cli: Cli) -> None:
    queue = Queue(cli)
    text = lines(
        {"id": "last", "after": ["middle", "first"]},
        {"id": "middle", "after_any": "first"},
        {"id": "first"},
    )
    cli.run("enqueue", "--quiet", "--file", "-", "--after-any", "last", input=text, check=2)
    cli.run("enqueue", "--quiet", "--file", "-", "--label", "l", input=text, check=0)
    assert {job.labels for job in queue.jobs()} == {("l",)}
    queue.drain()
    assert order(queue) == ["first", "middle", "last"]


def test_an_id_of_the_file_wins_over_what_begins_like_it(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(NOTE, id="build-old")
    text = lines({"id": "build"}, {"id": "test", "after": "build"})
    cli.run("enqueue", "--quiet", "--file", "-", input=text, check=0)
    assert queue.job("test").after == ("build",)


def test_a_parent_may_be_named_by_the_beginning_of_its_id(cli: Cli) -> None:
    queue = Queue(cli)
    parent = queue.add(NOTE)
    child = cli.json("enqueue", NOTE, "--after", parent[:8])
    assert child["after"] == [parent]
    queue.add_many({"same-1": NOTE, "same-2": NOTE})
    done = cli.run("enqueue", NOTE, "--after", "same", check=1)
    assert "same-1" in done.stderr
    assert cli.run("enqueue", NOTE, "--after", parent[:3], check=1).stderr.count("\n") == 1
    assert len(queue.jobs()) == 4


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        (lines({"id": "a", "after": "a"}), 2, "line 1: jobs wait for each other: a after a"),
        (
            "# a comment\n"
            + lines({"id": "x"}, {"id": "a", "after": "b"}, {"id": "b", "after": "a"}),
            *(2, "line 3: jobs wait for each other: a after b after a"),
        ),
        (
            lines(
                {"id": "a", "after": "b"}, {"id": "b", "after_any": "c"}, {"id": "c", "after": "a"}
            ),
            *(2, "line 1: jobs wait for each other: a after b after c after a"),
        ),
        (lines({}, {"after": "nobody"}), 1, "line 2: job 'nobody' not found"),
        (lines({}, {"after": ["gone"]}), 1, "line 2: job 'gone' is cancelled: nothing can run"),
        (lines({}, {"after": 7}), 2, "line 2: bad JSON job: after must be a string, or an array"),
        (lines({}, {"after": [7]}), 2, "line 2: bad JSON job: after must be a string"),
        (lines({}, {"after": "../x"}), 1, "line 2: job '../x' not found"),
        (lines({}, {"after": ""}), 1, "line 2: job '' not found"),
    ],
)
def test_what_can_never_run_is_refused_with_its_line(
    text: str, code: int, why: str, cli: Cli
) -> None:
    queue = Queue(cli)
    queue.add("true", id="gone")
    cli.run("cancel", "gone", check=0)
    before = (cli.store / "jobs.jsonl").read_bytes()
    done = cli.run("enqueue", "--file", "-", input=text, check=code)
    assert done.stderr.startswith(f"queuectl: {why}")
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert (cli.store / "jobs.jsonl").read_bytes() == before


def test_a_chain_of_many_is_taken_and_cancelled_as_a_whole(cli: Cli) -> None:
    queue = Queue(cli)
    chain = [{"id": f"job-{n}", "after": f"job-{n - 1}" if n else []} for n in range(5000)]
    cli.run("enqueue", "--quiet", "--file", "-", input=lines(*reversed(chain)), check=0)
    # With a pass of the store for each generation it would take most of a minute.
    done = cli.run("cancel", "job-0", check=0, timeout=15)
    told = done.stderr.splitlines()
    assert [line.split("'")[1] for line in told] == [f"job-{n}" for n in range(1, 5000)]
    assert told[-1] == (
        "queuectl: job 'job-4999' is cancelled too: Job 'job-4998', which it was to follow, was "
        "cancelled"
    )
    assert queue.counts().cancelled == 5000


def test_of_many_generations_that_meet_again_each_is_cancelled_once(cli: Cli) -> None:
    queue = Queue(cli)
    levels = range(20)
    names = [[f"left-{n}", f"right-{n}"] for n in levels]
    jobs = [
        {"id": job_id, "after": names[n - 1] if n else ["root"]}
        for n in levels
        for job_id in names[n]
    ]
    jobs += [{"id": f"any-{n}", "after_any": names[n]} for n in levels]
    text = lines({"id": "root"}, *jobs)
    cli.run("enqueue", "--quiet", "--file", "-", input=text, check=0)
    done = cli.run("cancel", "root", check=0)
    told = [line.split("'")[1] for line in done.stderr.splitlines()]
    assert sorted(told) == sorted(job_id for pair in names for job_id in pair)
    assert {job.rev for job in queue.jobs() if job.state == JobState.CANCELLED} == {1}
    assert queue.counts().pending == len(levels)


def test_all_that_keeps_a_job_is_named_and_holds(cli: Cli) -> None:
    """A unique, delayed, urgent job with two parents, in a paused queue of concurrency 1."""
    queue = Queue(cli)
    queue.add_many({"one": HOLD, "two": HOLD})
    queue.add_many({"busy": HOLD, "low": NOTE}, queue="q")
    start = queue.start("--count", "3")
    for parent in ("one", "two", "busy"):
        queue.wait_for_runner(parent)
    cli.run("queue", "set", "q", "--concurrency", "1", check=0)
    cli.run("queue", "pause", "q", check=0)
    words = ["--unique", "k", "--priority", "high", "--delay", "1h", "--queue", "q"]
    words += ["--after", "one", "--after-any", "two"]
    cli.run("enqueue", f"date +%s%N > began; {NOTE}", "--id", "job", *words, check=0)
    again = cli.run("enqueue", "other", *words, check=0)
    assert json.loads(again.stdout)["id"] == "job"

    def kinds() -> List[str]:
        return [reason["kind"] for reason in cli.json("show", "job")["waiting_for"]]

    assert kinds() == ["scheduled", "after", "after_any", "paused"]
    shown = cli.run("show", "job", check=0).stdout
    assert "for its time, in" in shown
    assert "until job one completes, which is processing" in shown
    assert "until job two ends, which is processing" in shown
    assert "queue q is paused" in shown
    cli.run("queue", "resume", "q", check=0)
    assert kinds() == ["scheduled", "after", "after_any", "full"]
    cli.run("cancel", "two", check=0)
    assert kinds() == ["scheduled", "after", "full"]
    queue.let_go()
    queue.wait_for("low", JobState.COMPLETED)
    assert kinds() == ["scheduled"]
    due = clock.to_iso(clock.now() + 0.5)
    cli.run("edit", "job", "--run-at", due, check=0)
    queue.wait_for("job", JobState.COMPLETED)
    assert int(queue.read("began")) / 1e9 >= clock.from_iso(due)
    # The other one of its queue had its turn while the urgent one waited for its time.
    assert order(queue) == ["low", "job"]
    assert kinds() == []
    start.terminate()
    start.finish(0)


def test_a_child_in_a_queue_of_another_start_is_woken(cli: Cli) -> None:
    queue = Queue(cli)
    starts = [queue.start("--queue", name) for name in ("a", "b")]
    queue.wait_for_workers(2)
    names = [f"job-{number}" for number in range(10)]
    pairs = zip(names, ["", *names])
    with queue.opened() as manager:
        manager.enqueue_many(
            [
                NewJob(
                    "date +%s%N >> stamps",
                    id=job_id,
                    after=[parent] if parent else [],
                    queue="ab"[number % 2],
                    cwd=str(queue.folder),
                )
                for number, (job_id, parent) in enumerate(pairs)
            ]
        )
    queue.wait_for(names[-1], JobState.COMPLETED)
    stamps = [int(stamp) / 1e9 for stamp in queue.read("stamps").split()]
    # One who is not woken looks by himself after up to a second.
    waits = [later - earlier for earlier, later in zip(stamps, stamps[1:])]
    assert statistics.median(waits) < 0.25
    for start in starts:
        start.terminate()
        start.finish(0)
