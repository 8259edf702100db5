"""Several machines at work on one store: who runs what, and what one sees of the others."""

from __future__ import annotations

import statistics
import time
from typing import List

import pytest

import support
from cluster import PROMPT, TICKING, Cluster, own_machine
from queuectl import clock
from queuectl.job import JobState
from queuectl.store.base import Counts
from servers import Server
from starting import SLACK
from support import wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


@pytest.mark.slow
def test_two_nodes_run_each_of_500_jobs_once(cluster: Cluster) -> None:
    names = [f"job{number}" for number in range(500)]
    cluster.add_many(dict.fromkeys(names, 'echo "$QUEUECTL_JOB_ID $NODE" >> ran'))
    starts = []
    for name in ("a", "b"):
        node = cluster.node(name)
        node.cli.env["NODE"] = name
        starts.append(node.start("--count", "2", "--drain"))
    for start in starts:
        start.finish(0, 60)
    ran = [line.split() for line in cluster.read("ran").splitlines()]
    assert sorted(job_id for job_id, _ in ran) == sorted(names)
    assert {node for _, node in ran} == {"a", "b"}
    assert cluster.counts() == Counts(completed=500)
    assert {job.runs for job in cluster.jobs()} == {1}


def test_nodes_are_known_by_their_names(cluster: Cluster) -> None:
    nodes = [cluster.node(name, prefix=own_machine(name)) for name in ("one", "two")]
    starts = [node.start("--count", "2") for node in nodes]
    cluster.wait_for_workers(4)
    cluster.add(TICKING, id="job", priority=1)
    wait_until(cluster.ticks)
    listed = nodes[0].cli.json("nodes")
    assert [(node["host"], node["workers"]) for node in listed] == [("one", 2), ("two", 2)]
    assert sum(node["running"] for node in listed) == 1
    cluster.let_go()
    cluster.wait_for("job", JobState.COMPLETED)
    # Who stops all of them is on one of them.
    nodes[0].cli.run("stop", check=0)
    for start in starts:
        start.finish(0)


def test_a_job_is_cancelled_and_followed_from_another_node(cluster: Cluster) -> None:
    """Its processes are gone within the time that is promised."""
    a, b = cluster.node("a", prefix=own_machine("a")), cluster.node("b")
    command = "trap 'echo ended; exit 0' TERM; echo began; sleep 1000 & sleep 1000 & touch up; wait"
    cluster.add(command, id="job")
    a.start()
    wait_until((cluster.folder / "up").exists)
    pids = list(cluster.runs_of("job"))
    assert len(pids) == 3
    follower = b.cli.spawn("logs", "job", "--follow")
    follower.expect("began\n")
    began = time.monotonic()
    done = b.cli.run("cancel", "job", check=0)
    assert done.stdout.split("\t")[1] in ("processing", "cancelled")
    wait_until(lambda: not cluster.runs_of("job"), what="the end of the job")
    assert time.monotonic() - began < 1 + 1 + SLACK
    cluster.wait_for("job", JobState.CANCELLED)
    follower.expect("ended\n")
    follower.finish(0)


def test_the_limit_of_a_queue_holds_over_all_nodes(cluster: Cluster) -> None:
    with cluster.opened() as manager:
        manager.set_queue("default", concurrency=1)
    command = "mkdir busy || touch twice; sleep 0.02; rmdir busy; echo >> ran"
    cluster.add_many({f"job{number}": command for number in range(30)})
    starts = [cluster.node(name).start("--count", "2", "--drain") for name in ("a", "b")]
    for start in starts:
        start.finish(0)
    assert len(cluster.read("ran").splitlines()) == 30
    assert not (cluster.folder / "twice").exists()


@pytest.mark.slow
def test_nodes_whose_clocks_differ_agree_on_what_is_due(cluster: Cluster) -> None:
    """Nothing starts a millisecond early by the server's clock, which here is that of this test."""
    fast, slow = cluster.node("fast", ahead=300), cluster.node("slow", ahead=-300)
    # Long enough for a lease to end, if it were by one of these clocks.
    cluster.add(TICKING, id="long")
    for node in (fast, slow):
        node.start("--count", "2")
    cluster.wait_for_workers(4)
    wait_until(cluster.ticks)
    note = 'date +%s%3N >> "$QUEUECTL_JOB_ID.at"; '
    for node in (fast, slow) * 3:
        before = time.time()
        job = node.cli.json("enqueue", note, "--delay", "0.7")
        made_at = clock.from_iso(job["created_at"])
        assert before - 0.001 <= made_at <= time.time()
        assert round(clock.from_iso(job["run_at"]) - made_at, 3) == 0.7
        cluster.wait_for(job["id"], JobState.COMPLETED)
        due = round(clock.from_iso(job["run_at"]) * 1000)
        assert due <= int(cluster.read(f"{job['id']}.at")) <= due + 1000 * PROMPT
    cluster.configure(backoff_base="1")
    for number in range(3):
        cluster.add(f"{note} false", id=f"retried{number}", max_retries=2)
    for number in range(3):
        job_id = f"retried{number}"
        cluster.wait_for(job_id, JobState.DEAD)
        first, second = map(int, cluster.read(f"{job_id}.at").split())
        # When the first failed is told by what its node knows of the server's clock.
        assert 980 <= second - first <= 1000 + 1000 * PROMPT
    cluster.let_go()
    long = cluster.wait_for("long", JobState.COMPLETED)
    assert (long.runs, long.interruptions) == (1, 0)
    ran = cluster.ticks_of(1)
    assert ran[-1] - ran[0] > 5


@pytest.mark.slow
@pytest.mark.long
def test_an_idle_node_costs_the_server_less_than_two_commands_a_second(
    own_cluster: Cluster, own_server: Server
) -> None:
    own_cluster.node("a").start("--count", "4")
    own_cluster.wait_for_workers(4)
    sent: List[str] = []
    with own_cluster.opened() as manager:
        window = manager.store.longest_rest + 1
    # So long that each worker rests once, and looks.
    with own_server.client().monitor() as monitor:
        until = time.monotonic() + window
        while monitor.connection.can_read(timeout=max(until - time.monotonic(), 0)):
            told = monitor.next_command()
            if told["client_type"] != "lua":
                sent.append(told["command"])
    assert window / 2 < len(sent) < window * 2, "\n".join(each[:70] for each in sent)


def test_a_new_job_is_picked_up_at_once(cluster: Cluster) -> None:
    cluster.node("a").start("--count", "2")
    cluster.wait_for_workers(2)
    took = []
    with cluster.opened() as manager:
        for number in range(15):
            began = time.time()
            path = cluster.folder / f"at{number}"
            manager.enqueue(f"date +%s.%N > {path}.new; mv {path}.new {path}")
            wait_until(path.exists)
            took.append(float(path.read_text()) - began)
    assert statistics.median(took) < 0.1, took
