"""`queuectl logs`, its last lines, and following it while jobs run: nothing is lost, or twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import Callable, List

import pytest

import support
from queuectl.cli import follow
from queuectl.store.base import Member
from starting import HOLD, Queue
from support import Cli, Terminal
from test_cli_support import complaint, queue_of, refusal, run

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NO_WORKERS = "queuectl: no workers running: queuectl start\n"
AWAIT = "until [ -e {} ]; do sleep 0.01; done"


def of_new_job(function: str) -> List[str]:
    """A program that does with the job `job` what `enqueue` does with a new one."""
    code = (
        "import sys; from queuectl.cli import app, follow, output, command\n"
        "import click\n"
        "@app.queuectl.command('try')\n"
        "@command.pass_session\n"
        "@click.pass_context\n"
        "def attempt(context, session):\n"
        "    with session.open() as manager:\n"
        f"        context.exit(follow.{function}(session, manager, manager.find('job')))\n"
        "sys.exit(app.run(['try']))\n"
    )
    return [sys.executable, "-W", "error", "-c", code]


def test_the_last_lines(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="job", cwd="/")
        run(queue, output=b"one\ntwo\nthree \xff\nno end", interrupted=True)
    shown = "one\ntwo\nthree \\xff\nno end"
    for number, start in ((0, "$"), (1, "no end"), (2, "three"), (4, "one"), (10**9, "one")):
        out = cli.run("logs", "job", "-n", str(number), check=0).stdout
        assert out == (shown[shown.index(start) :] if number else "")
    assert cli.run_bytes("logs", "job", "--lines=2", "--raw").stdout == b"three \xff\nno end"
    assert refusal(cli, ["logs", "job", "-n", "-1"]).startswith("bad value for -n")


def test_output_is_shown_as_it_is_written_until_the_job_has_ended(cli: Cli) -> None:
    """A character may come in two parts; where the file is moved to does not matter."""
    queue = Queue(cli)
    queue.add(
        f"printf 'one\\n\\303'; {AWAIT.format('a')}; printf '\\244 \\033two'; exit 3",
        id="job",
        max_retries=1,
    )
    following = cli.spawn("logs", "job", "-f")
    following.expect_err("no workers running")
    start = queue.start("--drain")
    following.expect("one\n")
    assert following.out == "one\n"
    (cli.folder / "a").touch()
    following.finish(0)
    assert following.out == "one\nä \\x1btwo"
    assert following.err == NO_WORKERS
    start.finish(0)
    assert cli.run("logs", "job", "--follow", check=0).stdout == following.out


def test_it_goes_on_with_the_next_run(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0.1")
    command = f"echo run $QUEUECTL_JOB_RUN; {AWAIT.format('$QUEUECTL_JOB_RUN')}; exit 1"
    queue.add(command, id="job", max_retries=3)
    start = queue.start("--drain")
    queue.wait_for("job", "processing")
    following = cli.spawn("logs", "job", "--follow", "--lines", "1")
    following.expect("run 1\n")
    only = cli.spawn("logs", "job", "--follow", "--run", "2")
    for number in (1, 2, 3):
        if number > 1:
            following.expect(f"run {number}\n")
        (cli.folder / str(number)).touch()
    following.finish(0)
    assert following.out == "run 1\nrun 2\nrun 3\n"
    assert following.err == "queuectl: run 2 of job 'job'\nqueuectl: run 3 of job 'job'\n"
    only.finish(0)
    assert (only.out, only.err) == ("run 2\n", "")
    start.finish(0)
    said = complaint(cli.run("logs", "job", "-f", "--run", "4", check=1).stderr)
    assert said == "job 'job' has run only 3 times"


def test_a_run_that_is_waited_for_in_vain(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="job")
    start = queue.start("--drain")
    queue.wait_for("job", "processing")
    following = cli.spawn("logs", "job", "-f", "--run", "2")
    queue.let_go()
    following.finish(1)
    assert complaint(following.err) == "job 'job' has run only once"
    start.finish(0)


@pytest.mark.parametrize("state", ["dead", "silent", "cancelled"])
def test_following_a_job_that_has_ended(state: str, cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="job", cwd="/", max_retries=1)
        if state == "dead":
            run(queue, output=b"one\ntwo\n", interrupted=True)
            run(queue, error="Exit code 1")
        elif state == "silent":
            run(queue)
        else:
            queue.cancel(["job"])
    done = cli.run("logs", "job", "-f", check=0)
    assert (done.stdout, done.stderr) == ("one\ntwo\n" if state == "dead" else "", "")


def test_a_job_that_prints_more_than_is_kept(cli: Cli) -> None:
    """The file shrinks again and again; each line is shown once, or its loss is told."""
    queue = Queue(cli, max_output="4KiB")
    command = "for i in $(seq 100 130); do seq -f $i%05g 1 100; sleep 0.03; done; echo end"
    queue.add(command, id="job")
    following = cli.spawn("logs", "job", "-f")
    following.expect_err("no workers running")
    start = queue.start("--drain")
    following.finish(0, timeout=20)
    start.finish(0)
    out = re.sub(r"\n--- \d+ bytes cut by queuectl -*\n", "", following.out)
    lost = sum(map(int, re.findall(r"queuectl: (\d+) bytes were cut", following.err)))
    lost += sum(map(int, re.findall(r"\n--- (\d+) bytes cut by queuectl", following.out)))
    assert len(out) + lost == 31 * 100 * 9 + 4
    lines = re.findall(r"^\d{8}$", out, re.MULTILINE)
    assert lines == sorted(set(lines))
    assert out.endswith("end\n")


def test_a_job_that_is_purged_while_it_is_followed(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="job")
    following = cli.spawn("logs", "job", "-f")
    following.expect_err("no workers running")
    with queue.opened() as manager:
        manager.store.remove([manager.find("job")])
    following.finish(1)
    assert following.err == f"{NO_WORKERS}queuectl: job 'job' was purged\n"


def test_who_reads_the_pipe_has_gone(cli: Cli) -> None:
    """It ends although the job prints nothing more."""
    queue = Queue(cli)
    queue.add(f"echo one; {HOLD}", id="job")
    start = queue.start("--drain")
    queue.wait_for("job", "processing")
    following = cli.spawn("logs", "job", "-f", stdout=subprocess.PIPE)
    assert following.stdout is not None
    assert following.stdout.readline() == b"one\n"
    following.stdout.close()
    following.finish(141)
    assert following.err == ""
    queue.let_go()
    start.finish(0)


def test_ctrl_c_leaves_the_job_running(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    queue = Queue(cli)
    queue.add(f"printf one; {HOLD}", id="job")
    start = queue.start("--drain")
    seen = terminal("logs", "job", "-f")
    seen.expect("one")
    seen.send("\x03")
    assert seen.wait() == 130
    assert "Traceback" not in seen.text
    queue.let_go()
    start.finish(0)
    assert queue.job("job").state == "completed"
    assert queue.logs("job") == "oneheld\n"


@pytest.mark.parametrize("function", ["follow_job", "await_job"])
def test_a_new_job_ends_the_command_as_it_ended(function: str, cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("echo one; exit 7", id="job", max_retries=1)
    cli.command = list(of_new_job(function))
    following = cli.spawn()
    following.expect_err("no workers running")
    cli.command = [sys.executable, "-W", "error", "-m", "queuectl"]
    queue.drain()
    following.finish(7)
    assert following.out == ("one\n" if function == "follow_job" else "")
    assert following.err == NO_WORKERS


@pytest.mark.parametrize("function", ["follow_job", "await_job"])
def test_ctrl_c_says_that_a_new_job_goes_on(
    function: str, cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="job")
    seen = terminal(program=of_new_job(function))
    seen.expect("no workers running")
    seen.send("\x03")
    seen.expect("^queuectl: job 'job' goes on; to see it again: queuectl logs -f job$")
    assert seen.wait() == 130
    assert queue.job("job").state == "pending"


@pytest.mark.parametrize("function", ["follow_job", "await_job"])
def test_a_new_job_that_is_purged(function: str, cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="job")
    cli.command = list(of_new_job(function))
    following = cli.spawn()
    following.expect_err("no workers running")
    with queue.opened() as manager:
        manager.store.remove([manager.find("job")])
    following.finish(1)
    assert following.err == f"{NO_WORKERS}queuectl: job 'job' was purged\n"


def test_it_goes_on_when_a_worker_died_or_was_stopped(cli: Cli) -> None:
    """Its output moves, and the next run is another worker's, of another `start`."""
    queue = Queue(cli, backoff_base="0.1", shutdown_grace="0.1s")
    command = (
        "echo $QUEUECTL_JOB_RUN; case $QUEUECTL_JOB_RUN in "
        f"1) {AWAIT.format('a')}; kill -9 $PPID; sleep 1000;; 2) sleep 1000;; esac"
    )
    queue.add(command, id="job", max_retries=5)
    start = queue.start()
    queue.wait_for("job", "processing")
    following = cli.spawn("logs", "job", "-f", "--raw")
    following.expect("1\n")
    (cli.folder / "a").touch()
    following.expect("2\n")
    start.send_signal(signal.SIGTERM)
    start.finish(0)
    queue.drain()
    following.finish(0)
    assert following.out == "1\n2\n3\n"
    runs = [line for line in following.err.splitlines() if "no workers" not in line]
    assert runs == ["queuectl: run 2 of job 'job'", "queuectl: run 3 of job 'job'"]


def test_that_nobody_works_is_said_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    said: List[str] = []
    monkeypatch.setattr(follow.output, "notice", said.append)
    monkeypatch.setattr(follow, "_LOOK_FOR_WORKERS", 0.0)
    with queue_of(cli) as queue:
        member = Member("w", "worker", "Worker-1", 1, "here", "", "s")
        queue.store.enroll(member)
        look = follow.NoWorkers(queue)
        look()
        assert said == []
        queue.store.leave("w")
        look()
        look()
    assert said == ["no workers running: queuectl start"]


def test_enqueue_follows_its_job_and_ends_as_that_did(cli: Cli) -> None:
    queue = Queue(cli)
    queue.start("--quiet")
    done = cli.run("enqueue", "--follow", "echo out; exit 3", "--id", "a", "--max-retries", "1")
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert "queuectl: job 'a' is queued\n" in done.stderr
    done = cli.run("enqueue", "--wait", "--print-id", "echo out; exit 4", "--success-codes", "4")
    assert (done.returncode, len(done.stdout)) == (0, 37)
    for words in (["--follow", "--wait"], ["--follow", "--json"], ["--file", "-", "--wait"]):
        cli.run("enqueue", *words, *([] if "--file" in words else ["true"]), input="a\n", check=2)
