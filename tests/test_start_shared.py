"""`start` on a store that machines share: see `shared_start`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any, Iterator

import pytest

import shared_start
from queuectl import clock
from queuectl import job as rules
from queuectl.job import JobState
from starting import HOLD, Queue, is_running
from support import Cli, Process, wait_until


@pytest.fixture
def queue(cli: Cli) -> Queue:
    return Queue(cli, kill_grace="1s")


@contextlib.contextmanager
def started(queue: Queue, **changes: Any) -> Iterator[Process]:
    """`start --drain` on a store that differs so from the file store."""
    argv = [sys.executable, shared_start.__file__, json.dumps(changes), str(queue.cli.store)]
    process = Process(argv, cwd=queue.folder, env=queue.cli.environment())
    try:
        yield process
        process.finish(0)
    finally:
        process.close()


def test_a_job_is_ended_when_its_claim_could_not_be_renewed_in_time(queue: Queue) -> None:
    """With all its processes; no attempt is used up, and it runs again."""
    queue.add(f'[ "$QUEUECTL_JOB_RUN" = 1 ] && sleep 1000 & {HOLD}', id="job")
    with started(queue, lasts=1.0) as process:
        wait_until(lambda: "sleep 1000" in queue.runs_of("job").values())
        first = list(queue.runs_of("job"))
        (queue.folder / "cut").touch()
        began = time.monotonic()
        process.expect_err(r"^warning job its claim could not be renewed for 1s: it is ended$")
        assert time.monotonic() - began < 3
        process.expect_err(r"^interrupted job ")
        assert not any(map(is_running, first))
        (queue.folder / "cut").unlink()
        queue.let_go()
        job = queue.wait_for("job", "completed")
    assert (job.attempts, job.runs) == (1, job.interruptions + 1)
    assert job.interruptions >= 1


def test_a_result_that_comes_after_a_rescue_is_dropped(queue: Queue) -> None:
    """Whoever rescued the job meanwhile did so for good."""
    queue.add(HOLD, id="job")
    with started(queue, lasts=1.0) as process:
        queue.wait_for_runner("job")
        (queue.folder / "away").touch()
        process.expect_err(r"^warning job its claim could not be renewed")
        process.expect_err(r"^warning no answer; trying again each second$")
        with queue.opened() as manager:
            manager.store.save([rules.rescue(manager.find("job"), clock.now(), 0)])
        queue.let_go()
        (queue.folder / "away").unlink()
        process.expect_err(r"^warning job its result came too late and was dropped$")
        job = queue.wait_for("job", "completed")
    assert (job.attempts, job.runs, job.interruptions) == (2, 2, 0)


def test_a_job_goes_on_for_as_long_as_its_claim_is_renewed(queue: Queue) -> None:
    """Also if that fails now and then."""
    (queue.folder / "once").touch()
    queue.add("sleep 3.2", id="job")
    with started(queue, lasts=2.0) as process:
        process.finish(0)
        job = queue.job("job")
    assert (job.state, job.runs, job.interruptions) == (JobState.COMPLETED, 1, 0)
    assert not (queue.folder / "once").exists()


def test_workers_rest_for_as_long_as_the_store_says_and_by_its_time(queue: Queue) -> None:
    """They look again when a retry is due, and at little else."""
    queue.configure(backoff_base="4")
    queue.add("false", id="job", max_retries=2)
    with started(queue, ahead=-7200.0, longest_rest=60.0) as process:
        process.finish(0)
    job = queue.job("job")
    assert (job.state, job.runs) == (JobState.DEAD, 2)
    assert job.started_at is not None
    assert 7190 < clock.now() - clock.from_iso(job.started_at) < 7260
    # Twice before each rest; with a second's rest there were a dozen.
    assert len(queue.read("claims")) <= 8
