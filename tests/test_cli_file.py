"""`queuectl enqueue --file`: many jobs, all or none."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import termios
from typing import Callable, Dict, List, Tuple

import pytest

from support import Cli, Terminal, wait_until
from test_cli_support import complaint, job_file, queue_of

LINES = b"""\xef\xbb\xbfecho first

# a comment
   \t
  # another
make 'a b'\r
{"id": "j1", "command": "sleep 2", "max_retries": 7}\r
  {"command": "sleep 3", "timeout": 5}
-- { echo a; echo b; }
 echo \xff\xc3\xa9
echo last"""
COMMANDS = [
    "echo first",
    "make 'a b'",
    "sleep 2",
    "sleep 3",
    "{ echo a; echo b; }",
    " echo \udcffé",
    "echo last",
]


def test_each_line_is_a_job_in_their_order(cli: Cli) -> None:
    (cli.folder / "jobs").write_bytes(LINES)
    done = cli.run("enqueue", "--file", "jobs", "--max-retries", "2", "--timeout", "1m", check=0)
    jobs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [job["command"] for job in jobs] == COMMANDS
    assert [job["max_retries"] for job in jobs] == [2, 2, 7, 2, 2, 2, 2]
    assert [job["timeout"] for job in jobs] == [60, 60, 60, 5, 60, 60, 60]
    assert jobs[2]["id"] == "j1"
    assert cli.json("list") == jobs[::-1]


def test_standard_input_is_a_file_too(cli: Cli) -> None:
    jobs = json.loads(cli.run("enqueue", "--file", "-", "--json", input="a\nb\n", check=0).stdout)
    assert [job["command"] for job in jobs] == ["a", "b"]
    done = cli.run(
        "enqueue", "--file", "-", "--print-id", input='{"id":"i","command":"c"}', check=0
    )
    assert done.stdout == "i\n"
    assert cli.run("enqueue", "--file", "-", "--quiet", input="d", check=0).stdout == ""
    assert [job["command"] for job in cli.json("list")] == ["d", "c", "b", "a"]


def test_a_person_is_told_how_many(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    (cli.folder / "jobs").write_text("a\nb\n")
    with queue_of(cli):
        pass
    shown = terminal("enqueue", "--file", "jobs")
    assert shown.wait() == 0
    assert shown.text == "📦 2 jobs enqueued successfully!\n"


def test_no_lines_are_no_jobs_and_make_no_store(cli: Cli) -> None:
    assert cli.run("enqueue", "--file", "-", "--json", input="\n# none\n", check=0).stdout == "[]\n"
    assert not cli.store.exists()


BAD_LINES: Dict[str, Tuple[bytes, int, str]] = {
    "JSON": (b"a\n\n{ b; }\nc", 2, "line 3: bad JSON job: expecting property name"),
    "a key": (b'a\n{"command": "b", "state": "dead"}', 2, "line 2: bad JSON job: the key 'state'"),
    "an id": (b'{"command": "b", "id": "\\u001b"}', 2, r"line 1: bad id '\x1b'"),
    "a NUL": (b"a\nb\0c\n", 2, "line 2: the command holds a NUL byte"),
    "too long a command": (b"a\n" + b"x" * 131072, 2, "line 2: the command has 131072 bytes"),
    "too long a line": (b"a\n" + b"x" * (2 << 20), 2, "line 2: it is longer than 1048576 bytes"),
    "an empty command": (b'a\n{"command": ""}\n', 2, "line 2: the command is empty"),
    "an id twice": (
        b'{"id": "i", "command": "a"}\nb\n{"id": "i", "command": "c"}', 1,
        "line 3: id 'i' is also on line 1",
    ),
    "an id that is taken": (
        b'a\n# b\n{"id": "taken", "command": "c"}\n', 1, "line 3: job 'taken' exists already"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "code", "why"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_and_none_is_added(lines: bytes, code: int, why: str, cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="taken")
    before = job_file(cli)
    done = cli.run("enqueue", "--file", "-", input=lines, check=code)
    said = complaint(done.stderr)
    assert said.startswith(why)
    assert said.endswith("; see queuectl enqueue --help") == (code == 2)
    assert done.stdout == ""
    assert job_file(cli) == before


REFUSED = {
    "a command too": (["x"], "give a command or --file, not both"),
    "words after --": (["--", "x", "y"], "give a command or --file, not both"),
    "an id": (["--id", "a"], "--id is for one job, --file for many"),
}


@pytest.mark.parametrize(("words", "why"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_with_a_file(words: List[str], why: str, cli: Cli) -> None:
    said = complaint(cli.run("enqueue", "--file", "-", *words, input="a\n", check=2).stderr)
    assert said.startswith(why)
    assert not cli.store.exists()


def test_a_file_that_cannot_be_read(cli: Cli) -> None:
    said = complaint(cli.run("enqueue", "--file", "no\x1bne", check=2).stderr)
    assert said.startswith(r"cannot read no\x1bne: No such file or directory; see")
    said = complaint(cli.run("enqueue", "--file", ".", check=2).stderr)
    assert said.startswith("cannot read .: Is a directory; see")


def test_progress_is_shown_at_a_terminal_once_it_takes_over_a_second(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    pipe = cli.folder / "pipe"
    os.mkfifo(pipe)
    shown = terminal("enqueue", "--file", "pipe", "--quiet")
    with open(pipe, "wb", buffering=0) as file:
        # Only what is read after the first second can be told of.
        shown.expect("reading jobs ...")
        file.write(b"echo a\n" * 2500)
        shown.expect("read 2000 lines ...")
    assert shown.wait() == 0
    assert shown.raw.endswith("\r\x1b[K")


def test_ctrl_c_adds_nothing(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    os.mkfifo(cli.folder / "pipe")
    shown = terminal("enqueue", "--file", "pipe")
    with open(cli.folder / "pipe", "wb", buffering=0) as file:
        file.write(b"echo a\n")
        # Once it has been read, the program waits for more.
        wait_until(lambda: fcntl.ioctl(file, termios.FIONREAD, bytes(4)) == bytes(4))
        shown.send("\x03")
        assert shown.wait() == 130
    assert shown.text == "^C"
    assert not cli.store.exists()


def test_a_file_that_is_at_a_terminal_shows_no_progress(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal("enqueue", "--file", "-", "--quiet")
    with pytest.raises(AssertionError):
        shown.expect("reading", timeout=1.5)
    shown.send("echo typed\r\x04")
    assert shown.wait() == 0
    assert [job["command"] for job in cli.json("list")] == ["echo typed"]


def test_messages_do_not_mix_with_data(cli: Cli) -> None:
    done = cli.run("enqueue", "--file", "-", input="a\n", check=0)
    assert json.loads(done.stdout)["command"] == "a"
    assert done.stderr == f"queuectl: created store {cli.store}\n"


def test_scripts_can_use_it_as_the_readme_says(cli: Cli) -> None:
    command = "echo 'it works'"
    done = subprocess.run(
        [*cli.command, "enqueue", command, "--max-retries", "3"],
        capture_output=True,
        env=cli.environment(),
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["command"] == command
