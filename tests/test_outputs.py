"""Reading what a job prints: its last lines, and all of it while its file grows and is cut."""

from __future__ import annotations

import os
import re
import tempfile
from typing import List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import outputs
from queuectl.capture import MARKER, Capture, Cut, find_cut, read_ends
from queuectl.outputs import GrowingOutput, start_of_lines
from queuectl.shared import SharedReader
from queuectl.store.base import SharedOutput
from queuectl.testing import MemoryStore
from queuectl.testing.common import add, claim_one

LIMIT = 2000
STREAM = b"".join(b"%07d\n" % number for number in range(20000))
MARK = re.compile(rb"\n--- (\d+) bytes cut by queuectl -*\n")


class Job:
    """A job that prints a stream in which each place is told by what stands there."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "out")
        self.capture = Capture(self.path)
        self.capture.assign(0, os.path.join(folder, "kept"), LIMIT)
        self._lent = self.capture.lend()
        self._printed = 0

    def print(self, size: int) -> None:
        """Print the next bytes of the stream."""
        os.write(self._lent, STREAM[self._printed : self._printed + size])
        self._printed += size

    def open(self) -> int:
        """Open the file as one who reads."""
        return os.open(self.path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._lent)
        self.capture.close()


class Reader:
    """Reads, and checks each byte by its place in the stream."""

    def __init__(self, fd: int, at: int = 0) -> None:
        self.at = at
        self.lost = 0
        self.shown = b""
        self._growing = GrowingOutput(fd, at)
        self.close = self._growing.close

    def read(self) -> None:
        while True:
            piece = self._growing.read()
            assert piece.lost is not None
            self.at += piece.lost
            self.lost += piece.lost
            if not piece.data:
                return
            self.shown += piece.data
            text, cuts = MARK.split(piece.data)[::2], MARK.findall(piece.data)
            for part, cut in zip(text, [*cuts, b"0"]):
                assert STREAM[self.at : self.at + len(part)] == part
                self.at += len(part) + int(cut)


@given(
    st.lists(
        st.one_of(
            st.integers(min_value=1, max_value=1500), st.sampled_from(["read", "read", "trim"])
        ),
        min_size=20,
        max_size=40,
    )
)
def test_everything_is_shown_once_or_said_to_be_lost(steps: List[object]) -> None:
    """However the job's writing, the cuts and the looks follow each other."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(folder)
        reader = Reader(job.open())
        printed = 0
        for step in steps:
            if isinstance(step, int):
                job.print(step)
                printed += step
            elif step == "trim":
                job.capture.trim()
            else:
                reader.read()
        job.capture.trim()
        reader.read()
        assert reader.at == printed
        reader.close()
        job.close()


@given(
    st.lists(
        st.one_of(
            st.integers(min_value=1, max_value=1500),
            st.sampled_from(["share", "share", "read", "trim"]),
        ),
        min_size=20,
        max_size=40,
    ),
    st.sampled_from([10, 300, 5000]),
)
def test_of_what_is_shared_everything_is_shown_once_or_said_to_be_lost(
    steps: List[object], most: int
) -> None:
    """Of a file that is cut, too: a place is counted in all that was printed."""
    with tempfile.TemporaryDirectory() as folder:
        store = MemoryStore(folder)
        add(store, "a")
        claimed = claim_one(store)
        job = Job(folder)
        reader = SharedReader(store, "a", 1)
        printed = at = 0
        for step in [1, *steps, "share", "read"]:
            if isinstance(step, int):
                job.print(step)
                printed += step
            elif step == "trim":
                job.capture.trim()
            elif step == "share":
                ends = read_ends(job.path, most, LIMIT)
                assert ends.size == printed
                assert len(ends.head) <= most
                assert len(ends.tail) <= most
                store.share_output(claimed, SharedOutput("h", "/p", *ends))
            else:
                reader.look(at_once=True)
                piece = reader.read()
                while piece.data:
                    assert piece.lost is not None
                    at += piece.lost
                    assert STREAM[at : at + len(piece.data)] == piece.data
                    at += len(piece.data)
                    piece = reader.read()
                assert piece.lost == 0
        assert at == printed
        job.close()


@pytest.mark.parametrize("lines", [0, 1, 2, 12, 13, 14, 1000])
def test_the_last_lines_of_what_is_shared(lines: int, tmp_path: str) -> None:
    """The end begins within a line, which counts, and has twelve more; then comes the beginning."""
    store = MemoryStore(str(tmp_path))
    add(store, "a")
    shared = SharedOutput("h", "/p", 800, STREAM[:100], STREAM[700:800])
    store.share_output(claim_one(store), shared)
    reader = SharedReader(store, "a", 1, lines)
    reader.look(at_once=True)
    end = (STREAM[800 - min(8 * lines, 100) : 800], 0)
    expected = [end, (b"", 0)] if lines <= 14 else [(shared.head, 0), (shared.tail, 600)]
    assert [reader.read(), reader.read()] == expected


def test_who_has_seen_all_is_told_nothing_of_a_cut(tmp_path: str) -> None:
    job = Job(str(tmp_path))
    reader = Reader(job.open())
    for _ in range(20):
        job.print(600)
        reader.read()
        job.capture.trim()
    reader.read()
    assert reader.lost == 0
    assert reader.shown == STREAM[:12000]
    reader.close()
    job.close()


def test_it_goes_on_where_the_file_is_moved(tmp_path: str) -> None:
    job = Job(str(tmp_path))
    job.print(100)
    reader = Reader(job.open())
    job.capture.move()
    job.print(100)
    reader.read()
    assert reader.shown == STREAM[:200]
    reader.close()
    job.close()


def test_one_who_begins_behind_a_cut_knows_of_it(tmp_path: str) -> None:
    """Else it would take its place for another one at the next cut."""
    job = Job(str(tmp_path))
    job.print(5000)
    job.capture.trim()
    size = os.path.getsize(job.path)
    reader = Reader(job.open(), size)
    reader.at = 5000
    job.print(1500)
    job.capture.trim()
    reader.read()
    assert reader.lost + len(reader.shown) == 1500
    assert reader.at == 6500
    reader.close()
    job.close()


def test_a_cut_that_nothing_tells_of(tmp_path: str) -> None:
    """As on a disk that has no room for the end: what comes then is shown, and a loss said."""
    path = os.path.join(tmp_path, "out")
    with open(path, "wb") as file:
        file.write(b"x" * 1000)
    reader = GrowingOutput(os.open(path, os.O_RDONLY))
    assert reader.read().data == b"x" * 1000
    os.truncate(path, 250)
    lost: List[Optional[int]] = []
    while None not in lost:
        piece = reader.read()
        assert piece.data == b""
        lost.append(piece.lost)
        assert len(lost) < 100
    with open(path, "ab") as file:
        file.write(b"new")
    assert reader.read() == (b"new", 0)
    reader.close()


def test_a_cut_is_found_wherever_it_is(tmp_path: str) -> None:
    path = os.path.join(tmp_path, "out")
    for limit in (1000, 100_000, 1_000_000):
        capture = Capture(path)
        capture.assign(0, path, limit)
        for _ in range(3):
            lent = capture.lend()
            os.write(lent, b"y" * limit)
            os.close(lent)
            capture.trim()
        fd = os.open(path, os.O_RDONLY)
        size = 3 * limit - (os.fstat(fd).st_size - MARKER)
        assert find_cut(fd) == Cut(limit // 4, size)
        os.close(fd)
        capture.close()


def test_what_only_looks_like_a_cut_is_none(tmp_path: str) -> None:
    path = os.path.join(tmp_path, "out")
    with open(path, "wb") as file:
        file.write(b"\n--- 5 bytes cut by queuectl --\n" * 10)
    fd = os.open(path, os.O_RDONLY)
    assert find_cut(fd) is None
    os.close(fd)


@given(
    st.lists(st.sampled_from([b"", b"a", b"bcd\n", b"\n", b"\n\n"]), max_size=30),
    st.integers(min_value=0, max_value=40),
    st.integers(min_value=1, max_value=5),
)
def test_the_last_lines_as_a_list_of_lines_has_them(
    parts: List[bytes], lines: int, piece: int
) -> None:
    data = b"".join(parts)
    whole = data.splitlines(keepends=True)
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "PIECE", piece)
        file.write(data)
        file.flush()
        at = start_of_lines(file.fileno(), lines)
    assert data[at:] == b"".join(whole[len(whole) - lines :] if lines < len(whole) else whole)
