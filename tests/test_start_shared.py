"""`start` on a store that machines share: see `shared_start`."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from typing import Any, Iterator, Tuple

import pytest

import shared_start
from queuectl import clock, machine
from queuectl import job as rules
from queuectl.job import JobState
from starting import HOLD, Queue, is_running
from support import Cli, Process, wait_until


@pytest.fixture
def queue(cli: Cli) -> Queue:
    return Queue(cli, kill_grace="1s")


@contextlib.contextmanager
def started(queue: Queue, *words: str, **changes: Any) -> Iterator[Process]:
    """`start --drain`, or a command, on a store that differs so from the file store."""
    argv = [sys.executable, shared_start.__file__, json.dumps(changes), str(queue.cli.store)]
    process = Process([*argv, *words], cwd=queue.folder, env=queue.cli.environment())
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
    # One that drains looks more often whether others have done what was left.
    with started(queue, ahead=-7200.0, longest_rest=60.0, drain=False) as process:
        job = queue.wait_for("job", JobState.DEAD)
        process.terminate()
        process.finish(0)
    assert job.runs == 2
    assert job.started_at is not None
    assert 7190 < clock.now() - clock.from_iso(job.started_at) < 7260
    # Twice before each rest; with a second's rest there were a dozen.
    assert len(queue.read("claims")) <= 8


SHARING = {"shares_output": True}
AFAR = {"shares_output": True, "is_afar": True}
# More than is shared: of the beginning and of the end a KiB each.
MUCH = "seq 1000 1 9999"
NUMBERS = "".join(f"{number}\n" for number in range(1000, 10000))


def of(queue: Queue, *words: str) -> Tuple[str, str]:
    """What a command prints on another machine than the one that runs the jobs."""
    with started(queue, *words, **AFAR) as process:
        process.finish(0)
        return process.out, process.err


def test_output_can_be_read_on_another_machine(queue: Queue) -> None:
    """Its beginning and its end; where the file is, all of it."""
    queue.configure(redis_output="1KiB")
    queue.add(f"{MUCH}; printf 'the end'", id="much")
    queue.add("echo little", id="little")
    queue.add("true", id="none")
    with started(queue, **SHARING) as process:
        process.finish(0)
    with queue.opened() as manager:
        path = manager.store.kept_output("much", 1)
    out, err = of(queue, "logs", "much")
    whole = f"{NUMBERS}the end"
    lost = len(whole) - 2048
    mark = f"\n--- {lost} bytes cut by queuectl ".ljust(55, "-") + "\n"
    assert out == whole[:1024] + mark + whole[-1024:]
    why = f"{lost} bytes are left out: what is kept of them is in {path} on {machine.host()}"
    assert err == f"queuectl: {why}\n"
    assert of(queue, "logs", "much", "-n", "2") == ("9999\nthe end", "")
    assert of(queue, "logs", "much", "-f") == (whole[:1024] + whole[-1024:], err)
    assert of(queue, "logs", "much", "-f", "-n", "2") == ("9999\nthe end", "")
    assert of(queue, "logs", "little") == of(queue, "logs", "little", "-f") == ("little\n", "")
    shown = json.loads(of(queue, "show", "much", "--json")[0])
    assert (shown["output"], shown["output_host"]) == (path, machine.host())
    said = of(queue, "show", "much")[0]
    assert f"{path} on {machine.host()} (run 1)\n" in said
    assert said.endswith("│ 9999\n  │ the end\n")
    with started(queue, "logs", "much", **SHARING) as process:
        process.finish(0)
        assert (process.out, process.err) == (whole, "")
    with started(queue, "show", "none", "--json", **AFAR) as process:
        process.finish(0)
        shown = json.loads(process.out)
    assert shown["output"] is shown["output_host"] is None


def test_output_is_followed_on_another_machine(queue: Queue) -> None:
    """As it is written, and to its end; it is said what is missing."""
    queue.configure(redis_output="1KiB")
    wait = "until [ -e {} ]; do sleep 0.01; done"
    queue.add(f"echo one; {wait.format('a')}; {MUCH}; {wait.format('b')}; echo end", id="job")
    with started(queue, **SHARING), started(queue, "logs", "job", "-f", **AFAR) as following:
        following.expect("one\n")
        (queue.folder / "a").touch()
        following.expect("9999\n")
        (queue.folder / "b").touch()
        following.finish(0)
        lost = sum(map(int, re.findall(r"(\d+) bytes are left out", following.err)))
        assert lost > 40000
        assert len(following.out) + lost == len(NUMBERS) + len("one\nend\n")
        assert following.out.startswith(f"one\n{NUMBERS[:1020]}")
        assert following.out.endswith("\n9999\nend\n")


def test_the_end_of_an_output_is_shared_before_the_result_is_saved(queue: Queue) -> None:
    """Also if the store is away just then: whoever sees that a job has ended sees all of it."""
    queue.add(f"touch away; {HOLD}", id="job")
    with started(queue, **SHARING) as process:
        wait_until((queue.folder / "away").exists)
        queue.let_go()
        process.expect_err("^warning no answer; trying again each second$")
        assert queue.job("job").state == JobState.PROCESSING
        (queue.folder / "away").unlink()
        queue.wait_for("job", "completed")
        assert of(queue, "logs", "job") == ("held\n", "")


def test_a_drain_ends_soon_after_others_have_done_what_was_left(queue: Queue) -> None:
    """Though nobody tells it, and its workers rest for long."""
    queue.add(HOLD, id="held")
    other = queue.start("--drain")
    queue.wait_for_runner("held")
    with started(queue, longest_rest=60.0) as process:
        queue.wait_for_workers(2)
        queue.let_go()
        other.finish(0)
        process.finish(0, timeout=10)
