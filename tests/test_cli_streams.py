"""Streams of every kind: encodings, closed ones, full ones, readers that go away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Callable, Dict, List, Optional

import pytest

from queuectl.newjob import NewJob
from support import Changes, Cli, Terminal
from test_cli_support import queue_of, run

ASCII: List[Dict[str, Optional[str]]] = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": None, "LANG": None},
]


def program(cli: Cli) -> str:
    """The command line's first words, for a shell."""
    return " ".join(str(word) for word in cli.command)


@pytest.mark.parametrize("env", ASCII, ids=["locale", "variable"])
def test_what_an_encoding_cannot_show_is_escaped(env: Changes, cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("echo é 📦 \udcff", id="job", max_retries=1)
        run(queue, error="é", output="é…\xff".encode() + b"\xff")
    for words in (["list"], ["show", "job"], ["logs", "job"], ["status"]):
        out = cli.run_bytes(*words, env=env, check=0).stdout
        assert out.isascii(), out
        if words[0] in ("list", "show"):
            assert rb"echo \xc3\xa9 \xf0\x9f\x93\xa6 \xff" in out
    assert out.startswith(b"QueueCTL System Status\n====")
    assert b"\nDLQ: 1\n" in out
    done = cli.run_bytes("show", "é", env=env, check=1)
    assert done.stderr.isascii()


def test_a_terminal_that_shows_ascii_only(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    env = ASCII[1]
    shown = terminal("enqueue", "echo é", "--id", "job", "--max-retries", "1", env=env)
    assert shown.wait() == 0
    assert shown.text.splitlines()[1:] == [
        "Job enqueued successfully!",
        "ID: job",
        r"Command: echo \xc3\xa9",
    ]
    shown = terminal("list", env=env)
    assert shown.wait() == 0
    assert shown.text.splitlines() == [
        "Jobs (1)",
        "+-----+---------------+---------+----------+-------------+",
        "| ID  | Command       | State   | Attempts | Max Retries |",
        "+=====+===============+=========+==========+=============+",
        r"| job | echo \xc3\xa9 | pending | 0        | 1           |",
        "+-----+---------------+---------+----------+-------------+",
    ]
    with queue_of(cli) as queue:
        run(queue, error="x" * 300)
    for words in (["dlq", "list"], ["dlq", "retry", "--all"], ["show", "job"]):
        shown = terminal(*words, env=env, columns=80)
        assert shown.wait() == 0
        assert shown.text.isascii(), shown.text
        assert all(len(line) <= 80 for line in shown.text.splitlines() if line[:1] in "|+")


def test_other_encodings(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("é €", id="job")
    env = {"PYTHONIOENCODING": "latin-1"}
    out = cli.run_bytes("list", env=env, check=0).stdout
    assert out.endswith(b"\t\xe9 \\xe2\\x82\\xac\n")
    assert json.loads(cli.run_bytes("list", "--json", env=env, check=0).stdout)[0]["id"] == "job"


def test_what_is_stored_is_utf_8_whatever_the_locale(cli: Cli) -> None:
    """The folder, the store, the shell: under one locale written, under another one used."""
    folder = cli.folder / "é"
    folder.mkdir()
    cli.store = folder / "store"
    shell = folder / "shell"
    shell.symlink_to("/bin/sh")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    named = {**plain, "PWD": str(folder)}
    command = "echo 'é'; pwd; echo $QUEUECTL_STORE"
    job = cli.json("enqueue", command, "--id", "job", cwd=folder, env=named)
    assert job["cwd"] == str(folder)
    unnamed = {**plain, "PWD": None}
    assert cli.json("enqueue", "true", cwd=folder, env=unnamed)["cwd"] == str(folder)
    assert cli.json("config", "set", "shell", shell, env=plain) == {"shell": str(shell)}
    by_variable = {**plain, "QUEUECTL_SHELL": str(shell)}
    assert cli.json("config", "get", "shell", env=by_variable) == {"shell": str(shell)}
    assert cli.json("status", env=plain)["store"] == str(cli.store)
    begin = cli.run("start", "--json", "--drain", env=plain, check=0).stdout.splitlines()[0]
    assert json.loads(begin)["store"] == str(cli.store)
    assert cli.run("logs", "job", check=0).stdout == f"é\n{folder}\n{cli.store}\n"
    shown = cli.json("show", "job", env=plain)
    assert shown["output"].startswith(f"{cli.store}/logs/")


@pytest.mark.parametrize(
    "words",
    [["list"], ["list", "--json"], ["logs", "big"], ["--help"], ["--version"]],
    ids=" ".join,
)
def test_a_reader_that_goes_away_ends_it_silently(words: List[str], cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="big")
        run(queue, output=b"line\n" * 100000)
        queue.enqueue_many([NewJob("x" * 10000, cwd="/")] * 50)
    process = cli.spawn(*words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    if words not in (["--help"], ["--version"]):
        # More than this fits into no pipe.
        assert process.stdout.read(10)
    process.stdout.close()
    assert process.finish() == 141
    assert process.err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_the_output(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x")
    for words in (["list"], ["status"], ["--help"], ["list", "--help"], ["--version"]):
        with open("/dev/full", "wb") as full:
            process = cli.spawn(*words, stdout=full)
            process.finish(1)
        assert process.err == "queuectl: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed: str, cli: Cli) -> None:
    """A file that takes the place of a closed stream would be written to, even the job file."""
    queuectl = program(cli)
    script = (
        f"{queuectl} enqueue 'echo hi' --id job {closed} && {queuectl} status {closed} &&"
        f"{queuectl} start --drain {closed} && {queuectl} list {closed}"
    )
    cli.command = ["sh", "-c", script]
    cli.run(check=0)
    with queue_of(cli) as queue:
        assert queue.find("job").state == "completed"
        with open(queue.store.kept_output("job", 1), encoding="utf-8") as file:
            assert file.read() == "hi\n"


def test_a_bug_is_confessed_with_a_harmless_traceback(cli: Cli) -> None:
    code = (
        "import queuectl.manager\n"
        "def counts(self): raise ValueError('bad \\x1b[2J luck')\n"
        "queuectl.manager.QueueManager.counts = counts\n"
        "from queuectl.cli import main; main()"
    )
    with queue_of(cli):
        pass
    cli.command = [sys.executable, "-c", code]
    done = cli.run("status", env={"PYTHONPATH": os.pathsep.join(sys.path)}, check=70)
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == r"ValueError: bad \x1b[2J luck"
    assert lines[-1].startswith("queuectl: this is a bug in queuectl")


def test_colours_are_for_terminals_that_want_them(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x")
    shown = terminal("list")
    assert shown.wait() == 0
    assert "\x1b[1m📋 Jobs (1)\x1b[0m" in shown.raw
    shown = terminal("list", env={"NO_COLOR": "1"})
    assert shown.wait() == 0
    assert "\x1b" not in shown.raw
    assert "\x1b" not in cli.run("list", check=0).stdout
