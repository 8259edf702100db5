"""`queuectl logs`: what a job printed, harmless, in pieces, while it runs and after."""

from __future__ import annotations

import os
import sys
import threading
from typing import Callable, List, Tuple

import pytest

from queuectl.store.base import Member
from support import Cli, Terminal
from test_cli_support import WORKER, claim, complaint, keep, queue_of, run

CHUNK = 1 << 16


def printed(cli: Cli, *outputs: bytes) -> None:
    """Make the job `job` with a run for each of these outputs."""
    with queue_of(cli) as queue:
        queue.enqueue("x", id="job")
        for output in outputs:
            run(queue, output=output, interrupted=True)


def test_output_is_shown_as_it_was_printed(cli: Cli) -> None:
    printed(cli, "one\n\ttwo é\nno newline".encode())
    assert cli.run("logs", "job", check=0).stdout == "one\n\ttwo é\nno newline"


def test_nothing_in_it_is_obeyed(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    output = (
        b"\x1b[2J\r\a \xc2\x9b31m \xe2\x80\xae \xff\xc3 \xed\xa0\x80 \x7f\x00 \\ \xf0\x9f\x93\xa6"
    )
    printed(cli, output)
    shown = r"\x1b[2J\x0d\x07 \xc2\x9b31m \xe2\x80\xae \xff\xc3 \xed\xa0\x80 \x7f\x00 \ 📦"
    assert cli.run("logs", "job", check=0).stdout == shown
    assert cli.run_bytes("logs", "job", "--raw", check=0).stdout == output
    seen = terminal("logs", "job", columns=200)
    assert seen.wait() == 0
    # The prompt is to stand on a line of its own.
    assert seen.text == shown + "\n"


@pytest.mark.parametrize("before", range(4))
def test_characters_across_the_border_of_two_pieces(before: int, cli: Cli) -> None:
    start = b"x" * (CHUNK - before)
    printed(cli, start + "📦é".encode() + b"\xf0\x9f")
    done = cli.run("logs", "job", check=0)
    assert done.stdout == start.decode() + r"📦é\xf0\x9f"


def test_the_newest_run_that_printed_anything(cli: Cli) -> None:
    printed(cli, b"first", b"", b"third", b"")
    assert cli.run("logs", "job", check=0).stdout == "third"
    assert cli.run("logs", "job", "--run", "1", check=0).stdout == "first"
    said = complaint(cli.run("logs", "job", "--run", "2", check=1).stderr)
    assert said == "run 2 of job 'job' printed nothing"
    said = complaint(cli.run("logs", "job", "--run", "5", check=1).stderr)
    assert said == "job 'job' has run only 4 times"


def test_a_job_without_output(cli: Cli) -> None:
    printed(cli)
    assert complaint(cli.run("logs", "job", check=1).stderr) == "job 'job' has not run yet"
    said = complaint(cli.run("logs", "job", "--run", "1", check=1).stderr)
    assert said == "job 'job' has not run yet"
    with queue_of(cli) as queue:
        run(queue)
    assert complaint(cli.run("logs", "job", check=1).stderr) == "job 'job' has printed nothing"


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_numbers_that_are_no_run(number: str, cli: Cli) -> None:
    said = complaint(cli.run("logs", "job", f"--run={number}", check=2).stderr)
    assert said.startswith("bad value for --run: ")


def test_logs_has_no_json_form(cli: Cli) -> None:
    printed(cli, b"x")
    said = complaint(cli.run("--json", "logs", "job", check=2).stderr)
    assert said.startswith("logs has no JSON form")


def test_output_of_a_run_that_has_not_ended(cli: Cli) -> None:
    printed(cli, b"first")
    with queue_of(cli) as queue:
        job = claim(queue)
        assert cli.run("logs", "job", check=0).stdout == "first"
        keep(queue.store.spool(WORKER), b"second, so far")
        assert cli.run("logs", "job", check=0).stdout == "second, so far"
        assert cli.run("logs", "job", "--run", "1", check=0).stdout == "first"
        # It ends while somebody looks: the file is moved to its place.
        os.rename(queue.store.spool(WORKER), queue.store.kept_output("job", job.runs))
        assert cli.run("logs", "job", check=0).stdout == "second, so far"


def test_a_file_of_the_worker_that_is_another_jobs_by_now(cli: Cli) -> None:
    printed(cli)
    with queue_of(cli) as queue:
        claim(queue)
        queue.store.enroll(
            Member(WORKER, "worker", "Worker-1", 1, "here", "", "s", job="other", run=1)
        )
        keep(queue.store.spool(WORKER), b"not of this job")
        said = complaint(cli.run("logs", "job", check=1).stderr)
        assert said == "job 'job' has printed nothing yet"
        queue.store.leave(WORKER)


def test_a_run_that_ends_between_looking_and_opening(cli: Cli) -> None:
    """Move the file and save the job again and again, while others look: all see whole outputs."""
    from queuectl.outputs import open_output

    with queue_of(cli) as queue, queue_of(cli) as other:
        queue.enqueue("x", id="job")
        worker = Member(WORKER, "worker", "Worker-1", 1, "here", "", "s", job="job")
        queue.store.enroll(worker)
        over = threading.Event()
        seen: List[Tuple[int, bytes]] = []

        def look() -> None:
            while not over.is_set():
                found = open_output(other.store, other.find("job"))
                if found is not None:
                    seen.append((found.run, os.read(found.fd, 100)))
                    os.close(found.fd)

        looker = threading.Thread(target=look)
        looker.start()
        try:
            for number in range(1, 101):
                job = claim(queue)
                queue.store.note(worker._replace(run=number))
                keep(queue.store.spool(WORKER), b"run %d" % number)
                os.makedirs(os.path.dirname(queue.store.kept_output("job", 1)), exist_ok=True)
                os.rename(queue.store.spool(WORKER), queue.store.kept_output("job", number))
                queue.store.save([queue.conclude(job, None, interrupted=True)], durable=False)
        finally:
            over.set()
            looker.join()
        queue.store.leave(WORKER)
    assert seen
    assert all(output == b"run %d" % number for number, output in seen)


@pytest.mark.slow
def test_any_amount_in_little_memory(cli: Cli) -> None:
    printed(cli, b"")
    with queue_of(cli) as queue:
        path = queue.store.kept_output("job", 1)
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.truncate(300 << 20)
    code = (
        "import resource, sys; from queuectl.cli import main\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({100 << 20}, {100 << 20}))\n"
        "main()"
    )
    cli.command = [sys.executable, "-c", code]
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with open(os.devnull, "wb") as null:
        cli.spawn("logs", "job", "--raw", stdout=null, env=env).finish(0)
