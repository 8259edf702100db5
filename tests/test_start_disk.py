"""A disk that is full: what is done is kept, and nothing new is begun, until there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest

import support
from queuectl.job import JobState
from starting import HOLD, SLACK, Queue, kill
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte and a hundred files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=512k,nr_inodes=100,mode=700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    # What the test started is ended before, by the fixture that asks for this one.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def on_small_disk(small_disk: Path, cli: Cli) -> Queue:
    """A queue whose store is on the small disk."""
    cli.store = small_disk / "store"
    return Queue(cli)


class Filler:
    """Takes all the room on a disk, and gives it back."""

    def __init__(self, disk: Path) -> None:
        self._folder = disk / "filler"
        self._folder.mkdir()

    def fill(self) -> None:
        """Leave no room for data."""
        with open(self._folder / "data", "ab") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))

    def fill_names(self) -> None:
        """Leave no room for another file or folder, though for data."""
        with contextlib.suppress(OSError):
            for number in range(1000):
                (self._folder / str(number)).touch()

    def free(self) -> None:
        """Give it back."""
        for path in self._folder.iterdir():
            path.unlink()


LONG = "#" + "x" * 5000
"""Makes a line of the job file longer than what may be left of its last block."""


def test_a_result_that_finds_no_room_is_kept_and_saved_once_there_is(
    on_small_disk: Queue, small_disk: Path
) -> None:
    queue, filler = on_small_disk, Filler(small_disk)
    queue.add(f"echo printed; {HOLD} {LONG}", id="held")
    queue.add("touch touched", id="next")
    start = queue.start()
    queue.wait_for_runner("held")
    filler.fill()
    queue.let_go()
    start.expect_err("No space left on device.*; trying again each second")
    queue.cli.run("status", check=0)
    assert queue.job("held").state == JobState.PROCESSING
    assert queue.job("next").state == JobState.PENDING
    assert not (queue.folder / "touched").exists()
    filler.free()
    freed = time.monotonic()
    job = queue.wait_for("held", JobState.COMPLETED)
    queue.wait_for("next", JobState.COMPLETED)
    assert time.monotonic() - freed < 1 + SLACK
    assert (job.attempts, job.runs) == (1, 1)
    assert queue.logs("held") == "printed\nheld\n"
    start.terminate()
    start.finish(0)
    assert start.err.count("No space left") == 1


def test_a_result_that_finds_no_room_at_a_shutdown_is_saved_until_the_grace_is_over(
    on_small_disk: Queue, small_disk: Path
) -> None:
    queue, filler = on_small_disk, Filler(small_disk)
    queue.add(f"echo printed; {HOLD} {LONG}", id="held")
    start = queue.start()
    queue.wait_for_runner("held")
    filler.fill()
    start.terminate()
    start.expect("Stopping: 1 job")
    queue.let_go()
    start.expect_err("No space left on device")
    filler.free()
    start.finish(0, timeout=5)
    job = queue.job("held")
    assert (job.state, job.attempts, job.runs) == ("completed", 1, 1)
    assert queue.logs("held") == "printed\nheld\n"


@pytest.mark.slow
def test_nothing_is_lost_if_there_never_is_any_room(on_small_disk: Queue, small_disk: Path) -> None:
    queue, filler = on_small_disk, Filler(small_disk)
    queue.configure(shutdown_grace="0.6s", kill_grace="0.1s", backoff_base="0")
    queue.add(f'echo "printed $QUEUECTL_JOB_RUN"; {HOLD} {LONG}', id="held")
    start = queue.start()
    queue.wait_for_runner("held")
    filler.fill()
    queue.let_go()
    start.expect_err("No space left on device")
    told = time.monotonic()
    start.terminate()
    start.finish(0, timeout=20)
    assert time.monotonic() - told > 0.6
    assert "Traceback" not in start.err
    assert queue.job("held").state == JobState.PROCESSING
    filler.free()
    queue.drain()
    job = queue.job("held")
    assert (job.state, job.attempts, job.runs) == ("completed", 2, 2)
    assert queue.logs("held", "--run", "1") == "printed 1\nheld\n"
    assert queue.logs("held", "--run", "2") == "printed 2\nheld\n"


def test_a_worker_that_dies_on_a_full_disk_is_rescued_once_there_is_room(
    on_small_disk: Queue, small_disk: Path
) -> None:
    queue, filler = on_small_disk, Filler(small_disk)
    queue.configure(backoff_base="0")
    queue.add(f'echo "printed $QUEUECTL_JOB_RUN"; {HOLD} {LONG}', id="held")
    start = queue.start()
    worker = queue.wait_for_runner("held")
    filler.fill()
    kill(worker.pid)
    start.expect_err("No space left on device.*; trying again each second")
    queue.let_go()
    assert queue.job("held").state == JobState.PROCESSING
    filler.free()
    freed = time.monotonic()
    job = queue.wait_for("held", JobState.COMPLETED)
    assert time.monotonic() - freed < 1 + 2 * SLACK
    assert (job.attempts, job.runs) == (2, 2)
    assert queue.logs("held", "--run", "1") == "printed 1\n"
    start.terminate()
    start.finish(0)
    assert "Traceback" not in start.err


def test_output_that_finds_no_room_holds_its_result_back(
    on_small_disk: Queue, small_disk: Path
) -> None:
    queue, filler = on_small_disk, Filler(small_disk)
    queue.add(f"echo printed; {HOLD}", id="held")
    queue.add("touch touched", id="next")
    start = queue.start()
    queue.wait_for_runner("held")
    filler.fill_names()
    queue.let_go()
    start.expect_err("cannot keep the output: No space left on device; trying again each second")
    assert queue.job("held").state == JobState.PROCESSING
    assert not (queue.folder / "touched").exists()
    filler.free()
    queue.wait_for("next", JobState.COMPLETED)
    assert queue.logs("held") == "printed\nheld\n"
    start.terminate()
    start.finish(0)


def test_at_a_shutdown_a_result_is_saved_and_its_output_kept_by_the_next_start(
    on_small_disk: Queue, small_disk: Path
) -> None:
    queue, filler = on_small_disk, Filler(small_disk)
    queue.configure(kill_grace="0.1s")
    queue.add(f"echo printed; {HOLD}", id="held")
    start = queue.start()
    queue.wait_for_runner("held")
    filler.fill_names()
    start.terminate()
    start.expect("Stopping: 1 job")
    queue.let_go()
    start.finish(0)
    job = queue.job("held")
    assert (job.state, job.attempts) == ("completed", 1)
    assert "Traceback" not in start.err
    filler.free()
    queue.drain()
    assert queue.logs("held") == "printed\nheld\n"
