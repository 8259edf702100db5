"""Processes that die while they work: nothing is lost, is stuck, or runs twice at once."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import Set

import pytest

import support
from queuectl.job import JobState
from starting import (
    HOLD,
    SLACK,
    STUBBORN,
    Queue,
    children_of,
    cpu_seconds,
    is_free,
    is_running,
    kill,
    stop_newborn,
    wait_until_gone,
)
from support import Cli, wait_until

needs_proc = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")
pytestmark = needs_proc

RECOVERY = 1.0
"""Seconds within which the job of a dead worker is back in the queue."""


def test_a_job_whose_worker_is_killed_runs_again_and_its_output_is_kept(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="1")
    once = 'echo "run $QUEUECTL_JOB_RUN"; [ "$QUEUECTL_JOB_RUN" = 2 ] || sleep 1000'
    job_id = queue.add(once)
    start = queue.start()
    worker = queue.wait_for_runner(job_id)
    running = list(queue.runs_of(job_id))
    assert worker.group in running
    kill(worker.pid)
    gone = wait_until_gone(running, timeout=5)
    job = queue.wait_for(job_id, JobState.FAILED)
    assert time.monotonic() - gone < RECOVERY + SLACK
    assert (job.last_error, job.attempts, job.runs, job.exit_code) == ("Worker died", 1, 1, None)
    job = queue.wait_for(job_id, JobState.COMPLETED)
    assert (job.last_error, job.attempts, job.runs) == (None, 2, 2)
    assert queue.logs(job_id, "--run", "1") == "run 1\n"
    assert queue.logs(job_id) == "run 2\n"
    assert [member.pid for member in queue.members()] != [worker.pid]
    start.terminate()
    start.finish(0)
    assert "retry in 1s: Worker died" in start.out


def test_a_job_that_kills_its_worker_ends_in_the_dlq_and_others_are_run(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0")
    killer = queue.add("echo bye; kill -9 $PPID", max_retries=2)
    other = queue.add("true")
    queue.drain()
    job = queue.job(killer)
    assert (job.state, job.last_error, job.attempts, job.runs) == ("dead", "Worker died", 2, 2)
    assert queue.logs(killer, "--run", "1") == queue.logs(killer, "--run", "2") == "bye\n"
    job = queue.job(other)
    assert (job.state, job.attempts) == ("completed", 1)


@pytest.mark.slow
def test_a_job_that_kills_its_worker_at_once_never_runs_twice_at_once(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0", kill_grace="5s")
    # The worker may have noted the job's processes by then or not.
    script = (
        "mkdir busy || echo overlap >> overlaps; trap 'rmdir busy; exit 1' TERM;"
        ' [ "$QUEUECTL_JOB_RUN" -gt 4 ] || { kill -9 $PPID; sleep 1000 & wait; }; rmdir busy'
    )
    job_id = queue.add(script, max_retries=10)
    queue.drain(count=3)
    job = queue.job(job_id)
    assert (job.state, job.attempts, job.runs) == ("completed", 5, 5)
    assert sorted(path.name for path in queue.folder.iterdir()) == ["store"]
    assert queue.runs_of(job_id) == {}


def test_workers_whose_supervisor_is_killed_finish_what_they_run_and_end(cli: Cli) -> None:
    queue = Queue(cli)
    hold = "until [ -e go-$QUEUECTL_JOB_ID ]; do sleep 0.01; done"
    queue.add_many(dict.fromkeys(("a", "b", "c"), hold))
    start = queue.start("--count", "3")
    runners = {queue.wait_for_runner(name).name: name for name in ("a", "b", "c")}
    workers = [member.pid for member in queue.members()]
    # The one that was forked last goes on, and must not keep the others from noticing.
    held = runners.pop("Worker-3")
    for name in runners.values():
        (queue.folder / f"go-{name}").touch()
        queue.wait_for(name, JobState.COMPLETED)
    kill(start.pid)
    died = wait_until_gone([start.pid], timeout=5)
    wait_until(lambda: len(queue.members()) == 1, what="the idle workers to end")
    assert time.monotonic() - died < RECOVERY + SLACK
    queue.add("true", id="late")
    (queue.folder / f"go-{held}").touch()
    wait_until_gone(workers, timeout=10)
    job = queue.job(held)
    assert (job.state, job.attempts, job.runs) == ("completed", 1, 1)
    assert queue.job("late").runs == 0
    assert queue.members() == []
    queue.drain()
    assert queue.job("late").state == JobState.COMPLETED


def test_workers_whose_supervisor_is_killed_give_back_what_does_not_end_in_time(cli: Cli) -> None:
    queue = Queue(cli, shutdown_grace="0.3s", kill_grace="0.3s")
    job_id = queue.add(STUBBORN)
    start = queue.start()
    worker = queue.wait_for_runner(job_id)
    running = list(queue.runs_of(job_id))
    died = kill(start.pid)
    gone = wait_until_gone([worker.pid, *running], timeout=10)
    assert gone - died < 0.3 + 0.3 + SLACK
    job = queue.job(job_id)
    assert (job.state, job.attempts, job.interruptions) == ("pending", 0, 1)
    assert job.last_error == "Interrupted at shutdown"


@pytest.mark.slow
def test_after_the_death_of_all_processes_a_restart_runs_everything(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0.5", kill_grace="0.5s")
    first = f'[ "$QUEUECTL_JOB_RUN" = 2 ] || {{ {STUBBORN}; }}'
    queue.add_many({f"killed-{number}": first for number in range(3)})
    queue.add_many({f"waiting-{number}": "true" for number in range(20)})
    start = queue.start("--count", "3")
    workers = [queue.wait_for_runner(f"killed-{number}") for number in range(3)]
    orphans = [
        pid for number in range(3) for pid in queue.wait_for_processes(f"killed-{number}", 3)
    ]
    kill(start.pid, *[worker.pid for worker in workers])
    wait_until(lambda: queue.members() == [], what="the death of all workers")
    assert queue.counts().processing == 3
    assert all(map(is_running, orphans))
    again = queue.start("--count", "3", "--drain")
    wait_until(lambda: queue.members("supervisor"), what="the new start")
    began = time.monotonic()
    gone = wait_until_gone(orphans, timeout=10)
    assert gone - began < 0.5 + 1 + SLACK

    def are_back() -> bool:
        return all(job.state != JobState.PROCESSING or job.runs == 2 for job in queue.jobs()[:3])

    wait_until(are_back, what="the jobs to be back in the queue")
    assert time.monotonic() - gone < RECOVERY + SLACK
    again.finish(0)
    for job in queue.jobs():
        runs = 2 if job.id.startswith("killed") else 1
        assert (job.state, job.attempts, job.runs) == ("completed", runs, runs)
    assert os.listdir(cli.store / "workers") == []


def test_a_job_whose_worker_left_no_trace_is_found_by_the_next_start(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0")
    job_id = queue.add('[ "$QUEUECTL_JOB_RUN" = 2 ] || sleep 1000')
    start = queue.start()
    worker = queue.wait_for_runner(job_id)
    orphans = queue.wait_for_processes(job_id, 2)
    kill(start.pid, worker.pid)
    wait_until_gone([start.pid, worker.pid], timeout=5)
    # As after a loss of power, or when somebody tidied up.
    shutil.rmtree(cli.store / "workers")
    queue.drain()
    job = queue.job(job_id)
    assert (job.state, job.attempts, job.runs) == ("completed", 2, 2)
    assert not any(map(is_running, orphans))


def test_a_supervisor_of_another_start_rescues_too(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0")
    job_id = queue.add('[ "$QUEUECTL_JOB_RUN" = 2 ] || sleep 1000')
    first = queue.start()
    worker = queue.wait_for_runner(job_id)
    second = queue.start()
    queue.wait_for_workers(2)
    running = list(queue.runs_of(job_id))
    kill(first.pid, worker.pid)
    gone = wait_until_gone(running, timeout=5)
    queue.wait_for(job_id, JobState.FAILED, JobState.COMPLETED)
    assert time.monotonic() - gone < RECOVERY + SLACK
    queue.wait_for(job_id, JobState.COMPLETED)
    second.terminate()
    second.finish(0)


def test_a_worker_that_is_slow_to_enrol_is_not_taken_for_dead(cli: Cli) -> None:
    # With no housekeeping, whoever is born is a worker.
    queue = Queue(cli, keep_output="none")
    start = queue.start("--count", "2")
    workers = {member.pid for member in queue.wait_for_workers(2)}
    known = set(children_of(start.pid))
    for _ in range(20):
        victim = next(iter(known & workers or workers))
        kill(victim)
        newborn = stop_newborn(start, known)
        known = (known | {newborn}) - {victim}
        workers = (workers | {newborn}) - {victim}
        # It must be neither done with enrolling nor in the middle of it.
        if is_free(cli.store / "jobs.lock") and newborn not in {
            member.pid for member in queue.members()
        }:
            break
        os.kill(newborn, signal.SIGCONT)
    else:
        pytest.skip("every worker enrolled before it could be stopped")
    # A second is four looks of the supervisor.
    queue.add("sleep 1", id="clock")
    queue.wait_for("clock", JobState.COMPLETED)
    assert is_running(newborn)
    os.kill(newborn, signal.SIGCONT)
    wait_until(lambda: newborn in {member.pid for member in queue.members()}, what="it to enrol")
    queue.add_many({"held": HOLD, "held-2": HOLD})
    queue.wait_for_runner("held")
    queue.wait_for_runner("held-2")
    queue.let_go()
    start.terminate()
    start.finish(0)
    assert start.err == ""
    assert [job.attempts for job in queue.jobs()] == [1, 1, 1]


def test_a_stopped_worker_is_alive(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="held")
    first = queue.start()
    worker = queue.wait_for_runner("held")
    second = queue.start()
    queue.wait_for_workers(2)
    os.kill(worker.pid, signal.SIGSTOP)
    queue.let_go()
    wait_until(lambda: queue.runs_of("held") == {}, what="the job to end")
    queue.add("sleep 1", id="clock")
    queue.wait_for("clock", JobState.COMPLETED)
    job = queue.job("held")
    assert (job.state, job.worker, job.runs) == ("processing", worker.id, 1)
    os.kill(worker.pid, signal.SIGCONT)
    job = queue.wait_for("held", JobState.COMPLETED)
    assert (job.attempts, job.runs) == (1, 1)
    for start in (first, second):
        start.terminate()
        start.finish(0)


def test_an_idle_worker_that_is_killed_or_ended_is_replaced_at_once(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start("--count", "2")
    old = queue.wait_for_workers(2)
    ids = {member.id for member in old}
    # They have lived for a while then: those that die at once are replaced ever more slowly.
    queue.add("sleep 1", id="clock")
    queue.wait_for("clock", JobState.COMPLETED)
    for victim, signum in zip(old, (signal.SIGKILL, signal.SIGTERM)):
        os.kill(victim.pid, signum)
        died = wait_until_gone([victim.pid], timeout=5)
        new = wait_until(
            lambda name=victim.name: [
                member for member in queue.members() if member.id not in ids and member.name == name
            ],
            what="another one",
        )
        assert time.monotonic() - died < SLACK
        assert is_running(new[0].pid)
    start.terminate()
    start.finish(0)
    assert start.err == ""


@pytest.mark.slow
def test_workers_that_die_at_once_are_replaced_ever_more_slowly(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start()
    dead: Set[int] = set()
    deaths = []
    for _ in range(5):
        worker = wait_until(
            lambda: [member for member in queue.members() if member.pid not in dead],
            what="the next worker",
        )[0]
        dead.add(worker.pid)
        deaths.append(kill(worker.pid))
    assert deaths[-1] - deaths[0] > 0.1 + 0.2 + 0.4 + 0.8
    assert cpu_seconds(start.pid) < 1
    queue.add("true", id="after")
    queue.wait_for("after", JobState.COMPLETED)
    start.terminate()
    start.finish(0)
