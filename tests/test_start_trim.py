"""The setting `keep_output`: `start` removes the oldest output, and spares what is of use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List

from queuectl import job as rules
from queuectl.job import Job
from queuectl.manager import QueueManager
from starting import Queue
from support import Cli

KIB = 1024
NOW = 1_762_707_697.0


def save(manager: QueueManager, job: Job) -> Job:
    """Save what became of a job, and return it."""
    manager.store.save([job], durable=False)
    return job


def outputs(queue: Queue) -> List[str]:
    """The runs of which output is kept, oldest first."""
    paths = sorted((queue.cli.store / "logs").glob("*/*.log"), key=os.path.getmtime)
    return [path.name[: -len(".log")] for path in paths]


def make_outputs(queue: Queue, *names: str) -> None:
    """Keep a KiB of output of each of these runs, each older than the next."""
    for age, name in enumerate(names):
        job_id, run = name.rsplit(".", 1)
        with queue.opened() as manager:
            path = Path(manager.store.kept_output(job_id, int(run)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * KIB)
        os.utime(path, (age, age))


def test_what_may_be_looked_into_is_spared(cli: Cli) -> None:
    queue = Queue(cli, keep_output="1KiB")
    with queue.opened() as manager:
        for job_id in ("dead", "failed", "runs", "waits", "completed"):
            queue.add("true", id=job_id, max_retries=2)
            job = manager.find(job_id)
            # Each has run once, and most of them twice.
            job = save(manager, rules.claim(job, "w1", NOW))
            if job_id == "waits":
                save(manager, rules.release(job, NOW))
                continue
            job = save(manager, rules.fail(job, NOW, "Exit code 1", 0, 1))
            if job_id == "failed":
                continue
            job = save(manager, rules.claim(job, "w1", NOW))
            if job_id == "dead":
                save(manager, rules.fail(job, NOW, "Exit code 1", 0, 1))
            if job_id == "completed":
                save(manager, rules.complete(job, NOW))
        queue.add("true", id="cancelled")
        save(manager, rules.cancel(manager.find("cancelled"), NOW))
        kept = ["dead.1", "dead.2", "failed.1", "runs.2", "waits.1"]
        gone = ["runs.1", "completed.1", "completed.2", "cancelled.1", "purged.3"]
        make_outputs(queue, *kept, *gone)
        manager.trim_output()
    assert outputs(queue) == kept


def test_as_much_is_kept_as_the_setting_says(cli: Cli) -> None:
    queue = Queue(cli, keep_output="3KiB")
    for number in range(1, 6):
        queue.add("true", id=f"job-{number}")
    queue.drain()
    names = [f"job-{number}.1" for number in range(1, 6)]
    make_outputs(queue, *names)
    queue.configure(keep_output="none")
    queue.drain()
    assert outputs(queue) == names
    queue.configure(keep_output="3KiB")
    queue.drain()
    assert outputs(queue) == names[2:]
