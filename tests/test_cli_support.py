"""What the tests of the command line share: jobs in every state, made without running anything."""

from __future__ import annotations

import os
from typing import Optional, Sequence

import click
import pytest

from queuectl import Job, QueueManager
from queuectl.cli import app
from queuectl.errors import QueueError
from queuectl.render import visible
from queuectl.store.opening import open_store
from support import Cli

WORKER = "w0rker"
HOSTILE = "printf '\x1b[2J' \\ \t\n\x07 \u009b31m \u202eetad é \udcff"
HOSTILE_SHOWN = r"printf '\x1b[2J' \ \t\n\x07 \xc2\x9b31m \xe2\x80\xaeetad é \xff"
HOSTILE_ROW = HOSTILE_SHOWN.replace(r" \ ", r" \\ ")


def queue_of(cli: Cli) -> QueueManager:
    """The queue of a test's own store, with the settings that this has."""
    return QueueManager(open_store(str(cli.store), True, lambda text: None), environ={})


def claim(queue: QueueManager) -> Job:
    """Claim the oldest job that is due."""
    job = queue.claim(WORKER)
    assert job is not None
    return job


def run(
    queue: QueueManager,
    error: Optional[str] = None,
    output: bytes = b"",
    interrupted: bool = False,
) -> Job:
    """Take the oldest job that is due through a run that ends so, and printed this."""
    job = claim(queue)
    if output:
        keep(queue.store.kept_output(job.id, job.runs), output)
    done = queue.conclude(job, error, 1 if error else 0, interrupted=interrupted)
    queue.store.save([done])
    return done


def keep(path: str, output: bytes) -> None:
    """Write a file, as a worker keeps what a job printed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(output)


def failure(cli: Cli, words: Sequence[str], code: int) -> str:
    """What a command line fails with, on the test's store; in this process, for there are many."""
    with pytest.raises((QueueError, click.UsageError)) as failed:
        app.call(["--store", str(cli.store), *words])
    error = failed.value
    assert error.exit_code == code
    text = app.usage_text(error) if isinstance(error, click.UsageError) else str(error)
    return complaint(f"queuectl: {visible(text)}\n")


def refusal(cli: Cli, words: Sequence[str]) -> str:
    """What a command line is refused with as bad usage; see `failure`."""
    return failure(cli, words, 2)


def job_file(cli: Cli) -> bytes:
    """The bytes of the job file, to see that nothing changed."""
    return (cli.store / "jobs.jsonl").read_bytes()


def complaint(stderr: str) -> str:
    """The one line that a command said on standard error, without the program's name."""
    assert stderr.startswith("queuectl: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert stderr.endswith("\n"), stderr
    assert stderr[:-1].isprintable(), stderr
    return stderr[len("queuectl: ") : -1]
