"""The test tools themselves: a guard that found nothing would let every test pass."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import support
from support import Cli, wait_until

# Starts a process that leaves its session and its output, as a job does that outlives its worker.
DETACH = (
    "import subprocess, time; subprocess.Popen(['sleep', '%d'], start_new_session=True,"
    " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); time.sleep(%d)"
)

# How long the processes that are left behind sleep, by which this run's are known.
LONG = 1_000_000 + os.getpid()

LEAVING = f"""
import multiprocessing, subprocess, sys, time

LEAVE = [sys.executable, "-W", "ignore", "-c", {DETACH!r} % ({LONG}, 0)]

def test_by_subprocess():
    subprocess.run(LEAVE)

def test_by_run(cli):
    cli.command = LEAVE
    cli.run(check=0)

def test_by_spawn(cli):
    cli.command = LEAVE
    cli.spawn().finish(0)

def test_by_fork():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=({LONG},)).start()

def test_that_fails():
    subprocess.run(LEAVE)
    assert False

def test_that_leaves_nothing(cli):
    cli.command = ["true"]
    cli.run(check=0)
    multiprocessing.get_context("spawn").Semaphore()
"""

needs_proc = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


def test_wait_until_returns_what_it_waited_for_and_names_what_did_not_come() -> None:
    answers = iter([0, "", "here"])
    assert wait_until(lambda: next(answers)) == "here"
    with pytest.raises(AssertionError, match="in vain for a miracle; last seen: 0"):
        wait_until(lambda: 0, timeout=0.01, what="a miracle")


@needs_proc
def test_a_test_that_leaves_a_process_behind_fails_and_the_process_is_killed(
    tmp_path: Path, mark: str
) -> None:
    # The fixtures, and what they import.
    for path in Path(__file__).parent.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "test_it.py").write_text(LEAVING)
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "test_it.py",
    ]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 5 passed, 4 errors" in done.stdout, done.stdout
    for way in ("subprocess", "run", "spawn", "fork"):
        assert f"ERROR test_it.py::test_by_{way} - Failed: processes left behind" in done.stdout
    lines = [support.command_line(pid) for pid in support.all_pids()]
    assert not [line for line in lines if str(LONG) in line and "sleep" in line]


@needs_proc
def test_what_still_runs_at_the_end_is_ended_with_all_that_descends_from_it(cli: Cli) -> None:
    cli.command = [sys.executable, "-c", DETACH % (54323, 54323)]
    cli.spawn()
    cli.terminal()
    wait_until(lambda: {"sleep 54323"} < set(cli.processes().values()), what="both to start")
    wait_until(lambda: list(cli.processes().values()).count("sleep 54323") == 2)
    cli.close()
    assert cli.processes() == {}


def test_output_is_read_while_the_program_runs(cli: Cli) -> None:
    cli.command = ["sh", "-c", "echo one; echo two >&2; read go; echo 'three µ'; exit 5"]
    process = cli.spawn(stdin=subprocess.PIPE)
    process.expect("^one$")
    assert process.expect_err("t(.)o")[1] == "w"
    with pytest.raises(AssertionError, match=r"no 'one': waited 0\.1s"):
        process.expect("one", timeout=0.1)
    process.stdin.write(b"\n")
    process.stdin.flush()
    process.expect("three µ\n")
    assert process.finish(5) == 5
    with pytest.raises(AssertionError, match="no 'four': the program ended"):
        process.expect("four")
    with pytest.raises(AssertionError, match="exit code 5\n--- out:\none\nthree"):
        process.finish(0)


def test_a_run_fails_on_another_exit_code_on_time_and_on_warnings(cli: Cli) -> None:
    cli.command = ["sh", "-c"]
    with pytest.raises(AssertionError, match="exit code 3, not 0\n--- out:\nsaid\n"):
        cli.run("echo said; exit 3", check=0)
    with pytest.raises(AssertionError, match=r"still running after 0\.1s"):
        cli.run("sleep 54324", timeout=0.1)
    for action, complaint in (("default", "ResourceWarning: unclosed"), ("error", "Exception ign")):
        cli.command = [sys.executable, "-W", action, "-c"]
        with pytest.raises(AssertionError, match=complaint):
            cli.run("open('/dev/null')")


def test_a_spawn_fails_on_warnings(cli: Cli) -> None:
    cli.command = [sys.executable, "-W", "error", "-c"]
    cli.spawn("open('/dev/null')").finish(0)
    with pytest.raises(AssertionError, match="Exception ignored"):
        cli.close()


def test_a_run_gets_its_input_and_a_clean_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUEUECTL_WORKER_COUNT", "7")
    cli.command = ["sh", "-c"]
    cli.env["ONE"] = "1"
    script = 'cat; echo "$QUEUECTL_WORKER_COUNT,$QUEUECTL_STORE,$ONE,$TWO"; pwd -P'
    done = cli.run(script, input="µ\r\n", env={"TWO": "2"}, check=0)
    assert done.stdout == f"µ\r\n,{cli.store},1,2\n{cli.folder.resolve()}\n"
    assert cli.run_bytes("cat", input=b"\xff").stdout == b"\xff"
    assert cli.run("echo $ONE", env={"ONE": None}).stdout == "\n"


@needs_proc
def test_a_command_that_is_forked_off_ends_as_one_that_is_not(cli: Cli) -> None:
    assert cli.commands is not None
    (cli.folder / "here").mkdir()
    ended = []
    for commands in (cli.commands, None):
        cli.commands = commands
        for line in ("config get max_retries", "list", "lst", "--store s list"):
            words, env = line.split(), {"QUEUECTL_MAX_RETRIES": "7"}
            done = cli.run(*words, cwd=cli.folder / "here", env=env)
            ended.append((done.returncode, done.stdout, done.stderr))
    assert ended[:4] == ended[4:]
    assert [code for code, _, _ in ended[:4]] == [0, 3, 2, 3]
    assert ended[0][1] == "7\n"


@needs_proc
def test_a_command_that_is_forked_off_is_killed_when_its_time_is_over(cli: Cli) -> None:
    assert cli.commands is not None
    cli.run("enqueue", "true", "--id", "a", check=0)
    with pytest.raises(AssertionError, match=r"still running after 0\.2s"):
        cli.run("wait", "a", timeout=0.2)
    pid = cli.commands.pid
    wait_until(lambda: not support.children(of=pid), what="its end")
    cli.run("show", "a", check=0)


def test_ctrl_c_reaches_the_program_as_from_a_terminal(cli: Cli) -> None:
    script = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.1; done"
    terminal = cli.terminal(program=["sh", "-c", script])
    terminal.expect("^ready\n")
    terminal.send("\x03")
    terminal.expect("caught")
    assert terminal.wait() == 7


def test_a_terminal_is_one_and_has_the_size_that_was_asked_for(cli: Cli) -> None:
    script = "tty; stty size </dev/tty; read line; stty size; printf '\\033[31mred\\033[0m\\n'"
    terminal = cli.terminal(program=["sh", "-c", script], columns=91, rows=17)
    terminal.expect("^/dev/.+\n17 91\n")
    terminal.resize(columns=60, rows=20)
    terminal.send("typed\r")
    terminal.expect("^typed\n20 60\nred\n")
    assert terminal.wait() == 0
    assert "\x1b[31mred\x1b[0m\r\n" in terminal.raw


def test_a_terminal_takes_much_output_though_nobody_asks_for_it(cli: Cli) -> None:
    terminal = cli.terminal(program=["sh", "-c", "seq 100000; echo over"])
    assert terminal.wait() == 0
    assert terminal.text.endswith("\n99999\n100000\nover\n")


def test_hanging_up_ends_the_program_with_sighup(cli: Cli) -> None:
    terminal = cli.terminal(program=["sh", "-c", "echo ready; exec sleep 54325"])
    terminal.expect("ready")
    terminal.hang_up()
    assert terminal.wait() == -signal.SIGHUP


def test_terminals_start_beside_threads(cli: Cli) -> None:
    cli.terminal(program=["cat"])  # Its reader is a thread: a fork would warn from now on.
    assert cli.terminal(program=["true"]).wait() == 0
