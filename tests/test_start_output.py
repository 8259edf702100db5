"""What jobs print, and what `start` says of it: bounded, inert, and never a reason to wait."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

import support
from queuectl.job import JobState
from starting import SLACK, Queue
from support import Cli, Terminal, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

MIB = 1 << 20
F_SETPIPE_SZ = 1031  # Linux; in the module fcntl since Python 3.10.
NASTY = r"printf '\033]0;owned\007\033[2J\233 \001\r\377\303\244'; exit 1"
STAMPED = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \S+ +\S.*")


def peak_memory(pid: int) -> int:
    """The most memory that a process had, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) * 1024


@contextlib.contextmanager
def watching(look: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """Look again and again, in a thread; gives a function that tells the highest that was seen."""
    seen = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            seen[0] = max(seen[0], look())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_a_gigabyte_without_a_newline_takes_neither_disk_nor_memory(cli: Cli) -> None:
    queue = Queue(cli, max_output="1MiB")
    script = "printf begin; head -c 1073741824 /dev/zero; printf end"
    queue.add(script, id="job")
    start = queue.start()
    worker = queue.wait_for_workers(1)[0]

    def size() -> int:
        total = 0
        for path in cli.store.rglob("*"):
            with contextlib.suppress(OSError):
                total += path.stat().st_blocks * 512
        return total

    with watching(size) as highest:
        queue.wait_for("job", JobState.COMPLETED, timeout=45)
    # It is looked at each 100 ms: this is what a disk takes in in half a second, at the most.
    assert highest() < 512 * MIB
    assert peak_memory(worker.pid) < 64 * MIB
    assert peak_memory(start.pid) < 64 * MIB
    kept = next((cli.store / "logs").glob("*/job.1.log"))
    output = kept.read_bytes()
    assert len(output) <= MIB
    assert output.startswith(b"begin\0")
    assert output.endswith(b"\0end")
    assert re.search(rb"\n--- 10\d{8} bytes cut by queuectl -+\n", output)
    start.terminate()
    start.finish(0)


def test_what_a_job_prints_does_not_reach_the_terminal_of_start_or_logs(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    queue = Queue(cli)
    queue.add(NASTY, id="job", max_retries=1)
    queue.add("printf 'a\033[31mb\r\n'; true '\x85\u202e'", id="nasty-command")
    start = terminal("start", "--drain", env={"NO_COLOR": "1"})
    assert start.wait() == 0
    start.expect("Job moved to DLQ: .*Exit code 1")
    assert not re.findall("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", start.raw)
    shown = cli.run("logs", "job", check=0).stdout
    assert shown == "\\x1b]0;owned\\x07\\x1b[2J\\x9b \\x01\\x0d\\xffä"
    raw = cli.run_bytes("logs", "--raw", "job", check=0).stdout
    assert raw == b"\x1b]0;owned\x07\x1b[2J\x9b \x01\r\xff\xc3\xa4"
    error = queue.job("job").last_error
    assert error is not None
    for args in (["show", "job"], ["list"], ["dlq", "list"]):
        assert not re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f]", cli.run(*args, check=0).stdout)


def test_a_run_without_output_leaves_no_file(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="silent")
    queue.drain()
    assert not (cli.store / "logs").exists()
    assert list((cli.store / "workers").iterdir()) == []


def test_logs_follows_a_job_that_runs(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("echo first; until [ -e go ]; do sleep 0.01; done; echo last", id="job")
    start = queue.start()
    queue.wait_for_runner("job")
    wait_until(lambda: queue.logs("job") == "first\n", what="the first line")
    queue.let_go()
    queue.wait_for("job", JobState.COMPLETED)
    assert queue.logs("job") == "first\nlast\n"
    start.terminate()
    start.finish(0)


@pytest.mark.parametrize("args", [[], ["--json"]], ids=["text", "json"])
def test_a_pipe_that_nobody_reads_delays_no_job(cli: Cli, args: List[str]) -> None:
    queue = Queue(cli, log_level="DEBUG")
    queue.add_many({f"job-{number}": "true" for number in range(150)})
    out, err = os.pipe(), os.pipe()
    for _, writing in (out, err):
        fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    start = queue.start("--count", "2", "--drain", *args, stdout=out[1], stderr=err[1])
    os.close(out[1])
    os.close(err[1])
    start.finish(0, timeout=10)
    assert queue.counts().completed == 150
    # What there was room for was whole.
    for reading, _ in (out, err):
        with open(reading, "rb") as file:
            assert file.read().endswith(b"\n")


def test_a_pipe_whose_reader_went_away_ends_nothing(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0")
    queue.add(HOLD_AND_KILL, id="job")
    start = queue.start("--count", "2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    queue.wait_for_runner("job")
    assert start.stdout is not None
    assert start.stderr is not None
    start.stdout.close()
    start.stderr.close()
    queue.let_go()
    # The second run needs a new worker, whose start is a line too.
    queue.wait_for("job", JobState.COMPLETED)
    queue.add("true", id="later")
    queue.wait_for("later", JobState.COMPLETED)
    start.terminate()
    start.finish(0)


HOLD_AND_KILL = "until [ -e go ]; do sleep 0.01; done; [ $QUEUECTL_JOB_RUN = 2 ] || kill -9 $PPID"


def test_a_full_disk_under_the_output_of_start_stops_no_job(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add_many({f"job-{number}": "true" for number in range(10)})
    with open("/dev/full", "w") as full:
        queue.start("--count", "2", "--drain", stdout=full, stderr=full).finish(0)
    assert queue.counts().completed == 10


def test_lines_of_several_workers_are_whole(cli: Cli) -> None:
    queue = Queue(cli)
    long = "x" * 120
    queue.add_many({f"job-{number}": f"true {number} {long}" for number in range(200)})
    start = queue.start("--count", "4", "--drain", stdout=subprocess.PIPE)
    assert start.stdout is not None
    lines = start.stdout.read().decode().splitlines()
    start.finish(0)
    assert len(lines) == 2 + 4 + 200 + 1
    for line in lines[2:]:
        assert STAMPED.fullmatch(line), line
        assert line.count(long) == line.count("Job completed: true ")


def test_a_terminal_that_is_stopped_with_ctrl_s_delays_no_job(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    queue = Queue(cli)
    start = terminal("start", "--count", "2")
    start.expect("Worker-2 started")
    start.send("\x13")
    began = time.monotonic()
    queue.add_many({f"job-{number}": "true" for number in range(50)})
    wait_until(lambda: queue.counts().completed == 50, what="all jobs")
    assert time.monotonic() - began < 5 * SLACK
    start.send("\x11\x03")
    assert start.wait() == 130
