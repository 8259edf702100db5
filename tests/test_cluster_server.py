"""What becomes of the nodes when their server dies, is emptied, or can take nothing in."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

import support
from cluster import KILL_GRACE, PROMPT, RESCUED_AFTER, TICKING, Cluster, warnings_of
from queuectl.errors import StoreError
from queuectl.job import JobState
from servers import Server, free_port
from starting import SLACK, kill
from support import Cli, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


class Load:
    """Jobs that come all the time, and those of them of which it was said that they were added."""

    def __init__(self, cluster: Cluster) -> None:
        self.acknowledged: List[str] = []
        self._cluster = cluster
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for_more(self, number: int) -> None:
        """Wait until so many more were added."""
        enough = len(self.acknowledged) + number
        wait_until(lambda: len(self.acknowledged) >= enough, what=f"{number} more jobs")

    def end(self) -> None:
        """Let no more come."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        command, cwd, number = "echo $QUEUECTL_JOB_ID >> ran", str(self._cluster.folder), 0
        with self._cluster.opened() as manager:
            while not self._ended.wait(0.01):
                number += 1
                # One of which that was not said may be there, or not.
                with contextlib.suppress(StoreError):
                    job = manager.enqueue(command, id=f"n{number}", cwd=cwd)
                    self.acknowledged.append(job.id)


@pytest.mark.slow
def test_nothing_is_lost_when_the_server_is_killed_under_load(
    own_cluster: Cluster, own_server: Server
) -> None:
    """What runs goes on; all is consumed again in seconds; and that is told in two lines."""
    own_cluster.add(TICKING, id="long")
    starts = [own_cluster.node(name).start("--count", "2") for name in ("a", "b")]
    wait_until(own_cluster.ticks)
    load = Load(own_cluster)
    try:
        for _ in range(2):
            load.wait_for_more(30)
            own_server.kill()
            # Nodes notice it, and try again.
            for start in starts:
                start.expect_err("cannot reach redis://.*; trying again each second$")
            own_server.start()
            back_at = time.monotonic()
            load.wait_for_more(3)
            newest = load.acknowledged[-1]
            own_cluster.wait_for(newest, JobState.COMPLETED)
            assert time.monotonic() - back_at < 5
            for start in starts:
                start.expect_err("is back$")
    finally:
        load.end()
    own_cluster.let_go()
    own_cluster.wait_for("long", JobState.COMPLETED)
    wait_until(lambda: own_cluster.counts().pending + own_cluster.counts().processing == 0)
    jobs = {job.id: job for job in own_cluster.jobs()}
    assert set(load.acknowledged) <= set(jobs)
    assert {job.state for job in jobs.values()} == {JobState.COMPLETED}
    assert {job.runs for job in jobs.values()} == {1}
    ran = own_cluster.read("ran").split()
    assert sorted([*ran, "long"]) == sorted(jobs)
    for start in starts:
        assert len(warnings_of(start)) == 4, start.err


@pytest.mark.slow
def test_what_a_dead_worker_left_is_ended_also_while_the_server_is_away(
    own_cluster: Cluster, own_server: Server
) -> None:
    """Else it would go on while others run the job, once its lease is over."""
    own_cluster.add(TICKING, id="job")
    node = own_cluster.node("a")
    node.start()
    wait_until(own_cluster.ticks)
    (worker,) = own_cluster.members()
    own_server.kill()
    killed_at = kill(worker.pid)
    wait_until(lambda: not own_cluster.runs_of("job"), what="the end of the job")
    assert time.monotonic() - killed_at < KILL_GRACE + 1 + SLACK
    own_server.start()
    wait_until(lambda: own_cluster.ticks_of(2), RESCUED_AFTER + PROMPT + 5)
    own_cluster.let_go()
    job = own_cluster.wait_for("job", JobState.COMPLETED)
    assert (job.attempts, job.runs) == (2, 2)


@pytest.mark.parametrize("flush", ["flushdb", "flushall"])
def test_a_flush_under_running_workers_ends_them(
    own_cluster: Cluster, own_server: Server, flush: str
) -> None:
    """With their jobs; each says so in one line, and the next command what is the case."""
    for name in ("one", "two"):
        own_cluster.add(TICKING, id=name)
    starts = [own_cluster.node(name).start("--count", "2") for name in ("a", "b")]
    own_cluster.wait_for_workers(4)
    wait_until(lambda: own_cluster.runs_of("one") and own_cluster.runs_of("two"))
    getattr(own_server.client(), flush)()
    for start in starts:
        start.finish(3)
        assert warnings_of(start) == [f"store {own_cluster.url} was removed"]
    assert not own_cluster.runs_of("one")
    assert not own_cluster.runs_of("two")
    listed = own_cluster.cli.run("list", check=3)
    why = f"queuectl: no store at {own_cluster.url}: queuectl enqueue makes one\n"
    assert (listed.stdout, listed.stderr) == ("", why)
    made = own_cluster.cli.run("enqueue", "true", check=0)
    assert made.stderr == f"queuectl: created store {own_cluster.url}\n"


def fill(server: Server) -> None:
    server.client().config_set("maxmemory", "1")


def empty(server: Server) -> None:
    server.client().config_set("maxmemory", "0")


def demote(server: Server) -> None:
    # Nobody is there; so it keeps what it has.
    server.client().replicaof("127.0.0.1", free_port())


def promote(server: Server) -> None:
    server.client().replicaof("NO", "ONE")


TROUBLES: Dict[str, Any] = {
    "full": (fill, empty, "cannot write to {}: the server's memory is full"),
    "replica": (demote, promote, "cannot use {}: You can't write against a read only replica"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TROUBLES)
def test_a_server_that_takes_nothing_in(
    own_cluster: Cluster, own_server: Server, kind: str
) -> None:
    """Commands say so; what runs goes on, for longer than a lease if leases can be renewed."""
    begin, end, words = TROUBLES[kind]
    said = words.format(own_cluster.url)
    own_cluster.add(TICKING, id="long")
    own_cluster.add("until [ -e short ]; do sleep 0.01; done", id="short")
    start = own_cluster.node("a").start("--count", "2")
    wait_until(lambda: own_cluster.ticks() and own_cluster.runs_of("short"))
    begin(own_server)
    began = time.time()
    try:
        done = own_cluster.cli.run("enqueue", "true", "--id", "refused", check=3)
        assert done.stderr.startswith(f"queuectl: {said}"), done.stderr
        assert done.stderr.count("\n") == 1
        assert own_cluster.cli.run("list", check=0).stdout.count("processing") == 2
        # What ends now has a result that cannot be saved.
        (own_cluster.folder / "short").touch()
        long_enough = RESCUED_AFTER + 1 if kind == "full" else 1.5
        wait_until(lambda: own_cluster.ticks()[-1].at > began + long_enough, long_enough + 5)
    finally:
        end(own_server)
    ended = time.monotonic()
    own_cluster.add("true", id="next")
    own_cluster.wait_for("next", JobState.COMPLETED)
    assert time.monotonic() - ended < 5
    own_cluster.let_go()
    for job_id in ("long", "short"):
        job = own_cluster.wait_for(job_id, JobState.COMPLETED)
        assert (job.runs, job.interruptions) == (1, 0)
    assert start.poll() is None
    assert len(warnings_of(start)) <= 3, start.err
    assert len(own_cluster.jobs()) == 3


@pytest.mark.slow
def test_a_server_that_still_reads_its_data(cli: Cli, tmp_path: Path, machine_state: Path) -> None:
    """It is away for as long as that takes."""
    slow = {"key_load_delay": "300", "loading_process_events_interval_bytes": "1024"}
    server = Server(tmp_path / "server", appendonly="yes", appendfsync="always", **slow)
    with server.client().pipeline(transaction=False) as pipeline:
        for number in range(6000):
            pipeline.set(f"other{number}", "")
        pipeline.execute()
    cluster = Cluster(cli, server.url, kill_grace="1s")
    cluster.add(TICKING, id="long")
    starting = threading.Thread(target=server.start)
    try:
        start = cluster.node("a").start()
        wait_until(cluster.ticks)
        server.kill()
        starting.start()
        why = f"queuectl: cannot use {server.url}: Valkey is loading the dataset in memory\n"
        wait_until(lambda: cluster.cli.run("list").stderr == why)
        starting.join()
        back_at = time.monotonic()
        cluster.add("true", id="next")
        cluster.let_go()
        for job_id in ("long", "next"):
            assert cluster.wait_for(job_id, JobState.COMPLETED).runs == 1
        assert time.monotonic() - back_at < 5
        assert start.poll() is None
    finally:
        cluster.close()
        server.kill()
