"""What a dead worker's job leaves behind is ended, and until it is the job does not start again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import List

import pytest

import support
from queuectl.job import JobState
from queuectl.store.base import Member
from starting import SLACK, STUBBORN, Queue, is_running, kill, wait_until_gone
from support import Cli, Process, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

GRACE = 0.5
LIMIT = GRACE + 1 + SLACK
"""Seconds within which everything that is left of a run is gone."""

AGAIN = (
    'for pid in $(cat pids 2>/dev/null); do case "$(cat /proc/$pid/stat 2>/dev/null)" in'
    ' ""|*") Z "*) ;; *) echo $pid >> overlap;; esac; done; [ "$QUEUECTL_JOB_RUN" = 1 ] || exit 0; '
)
"""The beginning of a job that notes which of the processes in the file `pids` it finds alive."""


def stubborn_job(queue: Queue, start: Process, command: str, count: int) -> Member:
    """Run a job of so many processes that do not end by themselves; return its worker."""
    queue.add(AGAIN + command, id="stubborn")
    worker = queue.wait_for_runner("stubborn")
    pids = queue.wait_for_processes("stubborn", count)
    (queue.folder / "pids").write_text(" ".join(map(str, pids)))
    assert start.poll() is None
    return worker


def noted(queue: Queue) -> List[int]:
    return list(map(int, queue.read("pids").split()))


def forget_group(queue: Queue, worker: Member) -> None:
    """Make it look as if the worker had died before it noted the processes of its job."""
    path = queue.cli.store / "workers" / f"{worker.id}.json"
    note = json.loads(path.read_text())
    note.update(group=None, born=None, boot=None)
    path.write_text(json.dumps(note, separators=(",", ":")).ljust(len(path.read_text()) - 1) + "\n")


def ended_in_time(queue: Queue, since: float) -> None:
    gone = wait_until_gone(noted(queue), timeout=LIMIT + 5)
    assert gone - since < LIMIT
    job = queue.wait_for("stubborn", JobState.FAILED, JobState.COMPLETED)
    assert time.monotonic() - gone < 1 + SLACK
    assert (job.attempts, job.runs) in ((1, 1), (2, 2))
    queue.wait_for("stubborn", JobState.COMPLETED)
    assert not (queue.folder / "overlap").exists()


def test_what_ignores_term_is_killed_before_the_job_starts_again(cli: Cli) -> None:
    queue = Queue(cli, kill_grace=f"{GRACE}s", backoff_base="0")
    start = queue.start("--count", "2")
    worker = stubborn_job(queue, start, STUBBORN, 3)
    died = kill(worker.pid)
    queue.wait_for("stubborn", JobState.FAILED, JobState.COMPLETED)
    assert not any(map(is_running, noted(queue)))
    ended_in_time(queue, died)
    assert "Job failed" in start.out
    start.terminate()
    start.finish(0)


def test_what_heeds_term_has_time_to_tidy_up(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="10s", backoff_base="0")
    start = queue.start()
    tidy = "trap 'sleep 0.2; echo tidied > tidied; exit' TERM; sleep 1000 & wait"
    worker = stubborn_job(queue, start, tidy, 2)
    kill(worker.pid)
    queue.wait_for("stubborn", JobState.COMPLETED)
    assert queue.read("tidied") == "tidied\n"
    assert not (queue.folder / "overlap").exists()
    start.terminate()
    start.finish(0)


def test_what_left_the_group_is_found_by_its_environment(cli: Cli) -> None:
    queue = Queue(cli, kill_grace=f"{GRACE}s", backoff_base="0")
    start = queue.start()
    worker = stubborn_job(queue, start, f"setsid -f sleep 1000; {STUBBORN}", 4)
    ended_in_time(queue, kill(worker.pid))
    start.terminate()
    start.finish(0)


def test_a_group_whose_leader_has_ended_is_found(cli: Cli) -> None:
    queue = Queue(cli, kill_grace=f"{GRACE}s", backoff_base="0")
    start = queue.start()
    worker = stubborn_job(queue, start, STUBBORN, 3)
    assert worker.group is not None
    # Stopped, it cannot conclude that the job has ended.
    os.kill(worker.pid, signal.SIGSTOP)
    kill(worker.group, worker.pid)
    ended_in_time(queue, time.monotonic())
    start.terminate()
    start.finish(0)


@pytest.mark.parametrize("remembered", [True, False], ids=["noted", "never noted"])
def test_without_a_start_the_next_one_ends_what_is_left(cli: Cli, remembered: bool) -> None:
    queue = Queue(cli, kill_grace=f"{GRACE}s", backoff_base="0")
    first = queue.start()
    worker = stubborn_job(queue, first, STUBBORN, 3)
    kill(first.pid, worker.pid)
    wait_until_gone([first.pid, worker.pid], timeout=5)
    if not remembered:
        forget_group(queue, worker)
    assert all(map(is_running, noted(queue)))
    assert queue.job("stubborn").state == JobState.PROCESSING
    second = queue.start("--drain")
    wait_until(lambda: queue.members("supervisor"), what="the second start")
    ended_in_time(queue, time.monotonic())
    second.finish(0)
    assert queue.job("stubborn").attempts == 2


def test_the_name_by_which_the_store_was_reached_does_not_matter(cli: Cli) -> None:
    queue = Queue(cli, kill_grace=f"{GRACE}s", backoff_base="0")
    link = Path(queue.folder, "link")
    link.symlink_to(cli.store)
    first = queue.start(env={"QUEUECTL_STORE": str(link)})
    worker = stubborn_job(queue, first, STUBBORN, 3)
    kill(first.pid, worker.pid)
    wait_until_gone([first.pid, worker.pid], timeout=5)
    forget_group(queue, worker)
    second = queue.start(
        "--drain", env={"QUEUECTL_STORE": f"{queue.folder}/../{link.parent.name}/store"}
    )
    wait_until(lambda: queue.members("supervisor"), what="the second start")
    ended_in_time(queue, time.monotonic())
    second.finish(0)


def test_the_same_job_of_another_store_is_left_alone(cli: Cli) -> None:
    queue = Queue(cli, kill_grace=f"{GRACE}s", backoff_base="0")
    elsewhere = {"QUEUECTL_STORE": str(queue.folder / "elsewhere")}
    cli.run("enqueue", "--id", "stubborn", "sleep 1000", env=elsewhere, check=0)
    other = queue.start(env=elsewhere)
    wait_until(lambda: queue.runs_of("stubborn"), what="the other store's job")
    bystanders = list(queue.runs_of("stubborn"))
    start = queue.start()
    queue.add(AGAIN + "sleep 1000", id="stubborn")
    worker = queue.wait_for_runner("stubborn")
    kill(start.pid, worker.pid)
    wait_until_gone([start.pid, worker.pid], timeout=5)
    forget_group(queue, worker)
    queue.start("--drain").finish(0)
    assert queue.job("stubborn").state == JobState.COMPLETED
    assert all(map(is_running, bystanders))
    cli.run("stop", "--force", env=elsewhere, check=0)
    other.finish(0)


def test_the_end_of_a_start_ends_what_its_dead_workers_left(cli: Cli) -> None:
    queue = Queue(cli, kill_grace=f"{GRACE}s", backoff_base="0")
    start = queue.start()
    worker = stubborn_job(queue, start, STUBBORN, 3)
    start.terminate()
    start.expect("Stopping: 1 job")
    kill(worker.pid)
    start.finish(0)
    assert not any(map(is_running, noted(queue)))
    assert queue.job("stubborn").state == JobState.FAILED
