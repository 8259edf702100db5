"""A node that dies, freezes or is cut off: its jobs run elsewhere, and no job twice at once."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import Dict, Iterator

import pytest

import support
from cluster import (
    KILL_GRACE,
    LEASE,
    PROMPT,
    RESCUED_AFTER,
    SETTINGS,
    TICKING,
    Cable,
    Cluster,
    Network,
    own_machine,
    warnings_of,
)
from queuectl.job import JobState
from servers import Server
from starting import children_of
from support import Cli, Process, wait_until

pytestmark = [
    pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc"),
    pytest.mark.slow,
]


def check_handover(cluster: Cluster, holders_lease: float) -> None:
    """The second run of the job began once the lease of the first was over, and not before."""
    wait_until(lambda: cluster.ticks_of(2), RESCUED_AFTER + PROMPT + 5, "the second run")
    first, second = cluster.ticks_of(1), cluster.ticks_of(2)
    assert first[-1] < second[0]
    assert holders_lease < second[0] < holders_lease + PROMPT


def lease_of_runner(cluster: Cluster, job_id: str = "job") -> float:
    """Until when the worker that runs a job counts as alive."""
    worker = cluster.job(job_id).worker
    assert worker is not None
    return cluster.leases()[worker]


def test_jobs_of_a_node_that_was_killed_run_elsewhere(cluster: Cluster) -> None:
    """With an attempt used up; once its lease is over, and not before."""
    a, b = cluster.node("a"), cluster.node("b")
    cluster.add(TICKING, id="job")
    a.start()
    wait_until(cluster.ticks)
    b.start()
    cluster.wait_for_workers(2)
    killed_at = a.kill()
    lease = lease_of_runner(cluster)
    assert killed_at + RESCUED_AFTER - 1.5 < lease <= time.time() + RESCUED_AFTER
    check_handover(cluster, lease)
    assert cluster.ticks_of(1)[-1] < killed_at + 0.5
    cluster.let_go()
    job = cluster.wait_for("job", JobState.COMPLETED)
    assert (job.attempts, job.runs, job.interruptions) == (2, 2, 0)
    assert b.cli.run("logs", "job", "--run", "1").returncode in (0, 1)


def test_the_late_result_of_a_frozen_node_is_refused(cluster: Cluster) -> None:
    """And then it works on."""
    a, b = cluster.node("a", prefix=own_machine("a")), cluster.node("b")
    # A clean exit in each run: whose result counts, shows in nothing but that.
    cluster.add("touch began.$QUEUECTL_JOB_RUN; until [ -e go ]; do sleep 0.01; done", id="job")
    frozen = a.start()
    wait_until((cluster.folder / "began.1").exists)
    other = b.start()
    cluster.wait_for_workers(2)
    a.signal(signal.SIGSTOP)
    lease = lease_of_runner(cluster)
    wait_until((cluster.folder / "began.2").exists, RESCUED_AFTER + PROMPT + 5)
    assert time.time() > lease
    cluster.let_go()
    done = cluster.wait_for("job", JobState.COMPLETED)
    assert done.runs == 2
    # The job of the frozen node ends well before its worker looks.
    a.signal(signal.SIGCONT, "sleep 0.01")
    wait_until(lambda: not cluster.runs_of("job"), what="the end of the frozen run")
    a.signal(signal.SIGCONT)
    frozen.expect_err("its result came too late and was dropped")
    assert cluster.job("job") == done
    other.terminate()
    other.finish(0)
    cluster.add("true", id="next")
    cluster.wait_for("next", JobState.COMPLETED)
    assert frozen.poll() is None


class Lan:
    """Two nodes, each with a cable to the server; a job of queue `left` runs on `left` alone."""

    def __init__(self, cli: Cli, network: Network, folder: Path) -> None:
        self.cables: Dict[str, Cable] = {name: network.connect() for name in ("left", "right")}
        self._server = Server(folder, bind="* -::*", protected_mode="no")
        self.cluster = Cluster(cli, self._server.url, **SETTINGS)
        self.nodes = {
            name: self.cluster.node(
                name,
                f"redis://{cable.address}:{self._server.port}/0",
                prefix=cable.prefix(name),
            )
            for name, cable in self.cables.items()
        }

    def start(self, name: str, *args: str) -> Process:
        return self.nodes[name].start("--queue", "default", "--queue", name, *args)

    def close(self) -> None:
        self.cluster.close()
        self._server.kill()


@pytest.fixture
def lan(cli: Cli, tmp_path: Path, machine_state: Path) -> Iterator[Lan]:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(contextlib.closing(Network()))
        yield stack.enter_context(contextlib.closing(Lan(cli, network, tmp_path / "server")))


def test_a_job_goes_on_while_the_network_is_cut_for_less_than_a_lease(lan: Lan) -> None:
    cluster = lan.cluster
    cluster.add(TICKING, id="job")
    left = lan.start("left")
    wait_until(cluster.ticks)
    lan.start("right")
    cluster.wait_for_workers(2)
    pulled_at = lan.cables["left"].pull()
    time.sleep(LEASE - 1.3)
    plugged_at = lan.cables["left"].plug()
    # For longer than the lease that it had when it was cut off.
    wait_until(lambda: cluster.ticks()[-1].at > pulled_at + RESCUED_AFTER + 1, RESCUED_AFTER + 5)
    cluster.let_go()
    job = cluster.wait_for("job", JobState.COMPLETED)
    assert (job.runs, job.interruptions) == (1, 0)
    assert time.time() - plugged_at < RESCUED_AFTER + 5
    ran = cluster.ticks_of(1)
    assert max(later - sooner for sooner, later in zip(ran, ran[1:])) < 1
    # Whether it was noticed depends on what was asked just then.
    said = warnings_of(left)
    assert [line.partition(" redis:")[0] for line in said] in ([], ["cannot reach", "Store"])


def test_a_job_is_ended_and_runs_elsewhere_if_the_network_is_cut_for_longer(lan: Lan) -> None:
    cluster = lan.cluster
    cluster.add(TICKING, id="job")
    left = lan.start("left")
    wait_until(cluster.ticks)
    lan.start("right")
    cluster.wait_for_workers(2)
    pulled_at = lan.cables["left"].pull()
    lease = lease_of_runner(cluster)
    # It does not heed TERM, so it runs for as long as any job can.
    renewed_at = lease - RESCUED_AFTER
    assert pulled_at - 1.5 < renewed_at <= pulled_at
    check_handover(cluster, lease)
    assert cluster.ticks_of(1)[-1] < renewed_at + LEASE + KILL_GRACE + 0.4
    assert cluster.ticks_of(1)[-1] > renewed_at + LEASE + KILL_GRACE - 0.6
    cluster.add("date +%s.%N > at", id="next", queue="left")
    plugged_at = lan.cables["left"].plug()
    cluster.wait_for("next", JobState.COMPLETED)
    assert float(cluster.read("at")) - plugged_at < 5
    cluster.let_go()
    job = cluster.wait_for("job", JobState.COMPLETED)
    assert (job.attempts, job.runs) == (2, 2)
    left.expect_err("its claim could not be renewed for 3s: it is ended")
    left.expect_err("its result came too late and was dropped")
    assert children_of(left.pid)
