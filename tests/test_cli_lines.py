"""The lines of `start`: each whole or not there, wherever they are written to; none ever waits."""

from __future__ import annotations

import os
import select
import socket
import sys
from typing import Callable, Iterator, Tuple

import pytest

from queuectl.cli import lines
from queuectl.cli.lines import Lines
from queuectl.render import Screen
from support import Terminal

UTF8 = Screen("utf-8", 80)


@pytest.fixture
def pipe() -> Iterator[Tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_a_pipe_is_opened_once_more(pipe: Tuple[int, int]) -> None:
    written = Lines(pipe[1], UTF8)
    written.write("one")
    assert os.read(pipe[0], 100) == b"one\n"
    assert os.get_blocking(pipe[1])


def test_what_cannot_be_opened_once_more_is_asked_first(
    pipe: Tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_reopen", lambda fd: (fd, True))
    written = Lines(pipe[1], UTF8)
    for _ in range(10000):
        written.write("x" * 99)
    # It is full, and nothing waited.
    assert os.read(pipe[0], 1 << 20).split(b"\n")[0] == b"x" * 99


def test_a_socket_as_services_have_it() -> None:
    here, there = socket.socketpair()
    with here, there:
        written = Lines(here.fileno(), UTF8)
        for _ in range(20000):
            written.write("x" * 99)
        there.setblocking(False)
        read = b""
        while select.select([there], [], [], 0)[0]:
            read += there.recv(1 << 20)
    assert set(read.split(b"\n")) == {b"x" * 99, b""}
    assert 1000 < len(read) < 20000 * 100


def test_a_reader_that_went_away() -> None:
    reading, writing = os.pipe()
    written = Lines(writing, UTF8)
    os.close(reading)
    written.write("unheard")
    os.close(writing)


def test_a_line_after_one_that_was_torn_is_whole(
    pipe: Tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Lines(pipe[1], UTF8)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        written.write("torn off")
    written.write("whole")
    written.write("again")
    assert os.read(pipe[0], 100) == b"tor\nwhole\nagain\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_line_fits_into_what_a_pipe_takes_at_once(encoding: str, pipe: Tuple[int, int]) -> None:
    written = Lines(pipe[1], Screen(encoding, 80), shares_bar=True)
    written.write("😀" * 5000)
    line = os.read(pipe[0], 1 << 20)
    assert len(line) <= select.PIPE_BUF
    assert line.startswith(b"\r\x1b[K")
    assert line.endswith(b"...\n")
    assert line.count(b"\n") == 1


def test_processes_that_write_to_a_terminal_at_once_lose_no_line(
    terminal: Callable[..., Terminal],
) -> None:
    # The lines of a round fit into a terminal's buffer, so none may be dropped for lack of room.
    program = """
import os, sys
from queuectl.cli.lines import Lines
from queuectl.render import Screen
written = Lines(1, Screen("utf-8", 80))
children = []
for child in range(8):
    pid = os.fork()
    if pid == 0:
        for number in range(24):
            written.write(f"line {child}.{number}")
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
"""
    for _ in range(20):
        session = terminal(program=[sys.executable, "-c", program])
        assert session.wait() == 0
        assert session.text.count("line ") == 8 * 24
