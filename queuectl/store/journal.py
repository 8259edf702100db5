"""An append-only file of JSON lines in checked commits. It knows nothing of jobs.

    {"queuectl":1,"requires":[],"store":"5f0c...", ... ,"sum":"c0ffee00"}    the header
    {"id":"a1", ... }                                                        lines of one commit
    {"commit":1, ... ,"crc":"0badcafe","sum":"12345678"}                     which this line closes

Invariants, and how they are kept:

- A commit is whole or absent: its lines count only once the commit line behind them is there, which
  is written last, in the same write. What follows the last commit line is a torn tail and means
  nothing.
- Nothing that was changed afterwards goes unseen: `crc` is the crc32 of every byte of the file
  before the commit line, `sum` that of the line itself up to there. So lost, doubled, moved and
  flipped bytes all show.
- Only a holder of the store's lock appends or cuts. Readers take no lock: up to its last commit
  line the file never changes, it only grows, or is replaced as a whole by another under its name.

A Journal is a position in one open file: `end` is the end of the last commit read, `crc` covers all
bytes before it.
"""

from __future__ import annotations

import errno
import json
import os
import re
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple
from zlib import crc32

from queuectl.errors import DamagedError, StoreError
from queuectl.store.compact import encode
from queuectl.store.disk import (
    copy_range,
    failure,
    map_file,
    sync_data,
    sync_folder,
    unconfirmed,
)

FORMAT = 1
FEATURES: Tuple[str, ...] = ()
"""What this version can handle of what a header may require."""

Meta = Dict[str, Any]
Visit = Callable[[int, bytes], None]
"""Called with an offset and the bytes of whole lines that begin there, commit lines among them."""

REASON = "bytes are not those that were written"
SHORTER = "the file is shorter than it was"
COMMIT_LINES = re.compile(rb'^\{"commit":[^\n]*\n', re.MULTILINE)
"""Finds what looks like a commit line, right or not."""

_HEADER = b'{"queuectl":'
_COMMIT = b'{"commit":'
_CHUNK = 1 << 20
_BLOCK = 4096
_SUM_SIZE = len(b',"sum":"01234567"}')


class Commit(NamedTuple):
    """A commit line.

    Attributes:
        number: counts commits since the store was made.
        meta: what its writer noted in it.
        start: the line's offset.
        end: the offset behind it.
        crc: the crc32 of every byte before `end`.
    """

    number: int
    meta: Meta
    start: int
    end: int
    crc: int


class Journal:
    """One open journal file, and how far it has been read.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: it cannot be opened, or needs a newer QueueCTL.
        DamagedError: its header is not one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        self._read_only: Optional[OSError] = None
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
                raise failure("open", self.path, error) from error
            self._read_only = error
            self.fd = self._open_to_read()
        try:
            status = os.fstat(self.fd)
            self.inode = (status.st_dev, status.st_ino)
            self.header, self.header_end = self._read_header()
        except BaseException:
            os.close(self.fd)
            raise
        self.rewind()

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def rewind(self) -> None:
        """Go back to the beginning of the file, as if nothing of it had been read."""
        self.end = 0
        self.crc = 0
        self.number = 0
        self.meta: Meta = {}

    def tail(self) -> Commit:
        """Find the last commit without reading what is before it, and without moving.

        Raises:
            DamagedError: there is none, or what looks like one is damaged.
        """
        size = os.fstat(self.fd).st_size
        reach = _BLOCK
        while True:
            start = max(size - reach, 0)
            found = self._last_commit(self._read(size - start, start), start)
            if found is not None:
                return found
            if start == 0:
                raise DamagedError(self.path, 0, "there is no commit line")
            reach *= 4

    def last_good(self) -> Optional[Commit]:
        """Check the whole file, and find the last commit up to which every byte is right."""
        size = os.fstat(self.fd).st_size
        data = memoryview(map_file(self.fd, size, self.path))
        good: Optional[Commit] = None
        at = crc = 0
        for match in COMMIT_LINES.finditer(data):
            try:
                commit = parse_commit(self.path, match[0][:-1], match.start())
            except DamagedError:
                break
            if commit.crc != crc32(match[0], crc32(data[at : commit.start], crc)):
                break
            good, at, crc = commit, commit.end, commit.crc
        return good

    def first(self) -> Commit:
        """Find the first commit, without moving; raises DamagedError if there is none."""
        size = os.fstat(self.fd).st_size
        match = COMMIT_LINES.search(memoryview(map_file(self.fd, size, self.path)))
        if match is None:
            raise DamagedError(self.path, 0, "there is no commit line")
        return parse_commit(self.path, match[0][:-1], match.start())

    def go_to(self, commit: Commit) -> None:
        """Move behind a commit of this file that was found by `tail`, `last_good` or a snapshot."""
        self.number = commit.number
        self.meta = commit.meta
        self.end = commit.end
        self.crc = commit.crc

    def go_behind_header(self) -> None:
        """Move to where the first commit begins, to fill a new file."""
        self.rewind()
        self.end = self.header_end
        self.crc = crc32(self._read(self.header_end, 0))

    def look(self) -> Tuple[Optional[Commit], int]:
        """Find the last commit, if there is one behind what was read; do not move.

        Returns:
            The commit, and how many bytes lie behind the last one: an append in progress, or a torn
            tail.

        Raises:
            DamagedError: there is none, what looks like one is damaged, or the file is shorter than
                what was read of it.
        """
        size = os.lseek(self.fd, 0, os.SEEK_END)
        if size < self.end:
            raise DamagedError(self.path, size, SHORTER)
        if size == self.end > 0:
            return None, 0
        last = self.tail()
        if last.end <= self.end:
            return None, size - self.end
        # Without the lock, the file may have grown between the two looks.
        return last, max(size - last.end, 0)

    def read_to(self, last: Commit, visit: Optional[Visit] = None) -> None:
        """Read on to the end of a commit that `look` found, check it all, and move there.

        Args:
            last: the commit.
            visit: called with all of it, in blocks, once every byte is known to be right.

        Raises:
            DamagedError: the bytes are not those that were written; nothing was visited.
        """
        crc = self.crc
        for block in self._blocks(last.end):
            crc = crc32(block, crc)
        if crc != last.crc:
            good = self.last_good()
            raise DamagedError(self.path, 0 if good is None else good.end, REASON)
        if visit is not None:
            at, rest = self.end, b""
            for block in self._blocks(last.end):
                lines = rest + block
                done = lines.rfind(b"\n") + 1
                visit(at, lines[:done])
                at += done
                rest = lines[done:]
        self.go_to(last)

    def follow(self, visit: Optional[Visit] = None) -> int:
        """Read what was committed since the last look: `look`, and `read_to` what it found.

        Returns:
            How many bytes lie behind the last commit.
        """
        last, rest = self.look()
        if last is not None:
            self.read_to(last, visit)
        return rest

    def append(self, lines: Sequence[bytes], meta: Meta) -> int:
        """Write one commit behind the last one, and move behind it.

        Only for a holder of the lock who has followed.

        Args:
            lines: its lines, without newlines.
            meta: what to note in the commit line.

        Returns:
            The offset of the first line.

        Raises:
            StoreFullError: there is no room; nothing was changed.
            StoreError: it cannot be written; nothing was changed.
        """
        start = self.end
        data = b"".join([line + b"\n" for line in lines])
        before = crc32(data, self.crc)
        commit = commit_line(self.number + 1, meta, before)
        self._write(data + commit, start)
        self.number += 1
        self.meta = meta
        self.crc = crc32(commit, before)
        self.end = start + len(data) + len(commit)
        return start

    def extend(self, data: bytes) -> None:
        """Write bytes of whole lines that the next commit will close.

        For a file that nobody else can see yet.
        """
        self._write(data, self.end)
        self.crc = crc32(data, self.crc)
        self.end += len(data)

    def cut_tail(self, keep_as: str) -> int:
        """Move what lies behind `end` to a file of its own, and cut it off.

        Args:
            keep_as: the path of that file; it must not exist.

        Returns:
            How many bytes there were.
        """
        self._require_writable("repair")
        size = os.fstat(self.fd).st_size
        try:
            kept = os.open(keep_as, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                copy_range(self.fd, kept, self.end, size)
                os.fsync(kept)
                sync_folder(os.path.dirname(keep_as))
            except OSError:
                # On a full disk every writer tries this again: the half copies must not add up.
                os.unlink(keep_as)
                raise
            finally:
                os.close(kept)
            os.ftruncate(self.fd, self.end)
        except OSError as error:
            raise failure("repair", self.path, error) from error
        return size - self.end

    def sync(self) -> None:
        """Wait until the disk holds what was written.

        Raises:
            OutcomeUnknownError: it does not say so; a second attempt would succeed without meaning
                anything.
        """
        try:
            sync_data(self.fd)
        except OSError as error:
            raise unconfirmed(self.path, error) from error

    def line_at(self, offset: int) -> bytes:
        """Read one line, without its newline."""
        data = self._read(1024, offset)
        size = 1024
        while b"\n" not in data:
            size *= 8
            data = self._read(size, offset)
            if len(data) < size and b"\n" not in data:
                raise DamagedError(self.path, offset, "a line has no end")
        return data[: data.index(b"\n")]

    def _read(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self.fd, size, offset)
        except OSError as error:
            raise failure("read", self.path, error) from error

    def _open_to_read(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise failure("open", self.path, error) from error

    def _read_header(self) -> Tuple[Meta, int]:
        size = _BLOCK
        data = self._read(size, 0)
        while b"\n" not in data and len(data) == size:
            size *= 4
            data = self._read(size, 0)
        line, newline, _ = data.partition(b"\n")
        return parse_header(self.path, line + newline), len(line) + 1

    def _last_commit(self, data: bytes, start: int) -> Optional[Commit]:
        """Find the last whole commit line in bytes that begin at the offset `start`.

        That may be in the middle of a line.
        """
        at = len(data)
        while True:
            at = data.rfind(b"\n" + _COMMIT, 0, at)
            if at < 0:
                return None
            newline = data.find(b"\n", at + 1)
            if newline >= 0:
                return parse_commit(self.path, data[at + 1 : newline], start + at + 1)

    def _blocks(self, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `end` to `stop`."""
        at = self.end
        while at < stop:
            data = self._read(min(_CHUNK, stop - at), at)
            if not data:
                return
            yield data
            at += len(data)

    def _require_writable(self, action: str) -> None:
        if self._read_only is not None:
            raise failure(action, self.path, self._read_only)

    def _write(self, data: bytes, offset: int) -> None:
        self._require_writable("write")
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                # A short write (no room, a limit of size, 2 GiB) goes on, and then either ends or
                # says why not.
                written += os.pwrite(self.fd, view[written:], offset + written)
        except OSError as error:
            try:
                os.ftruncate(self.fd, offset)
            except OSError:
                # The next writer finds a torn tail and cuts it.
                pass
            raise failure("write", self.path, error) from error


def parse_header(path: str, line: bytes) -> Meta:
    """Read a header, with its newline.

    Raises:
        StoreError: it needs a newer QueueCTL.
        DamagedError: it is none.
    """
    # Before the version is believed: the sum is what all formats have in common.
    if not line.endswith(b"\n") or not _sum_is_right(line[:-1]):
        raise DamagedError(path, 0, "the header is damaged")
    try:
        header = json.loads(line)
        version, requires = header["queuectl"], header["requires"]
        unknown = [feature for feature in requires if feature not in FEATURES]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(path, 0, "there is no header") from error
    if version != FORMAT or unknown:
        what = (
            f"format {version}" if version != FORMAT else f"feature {', '.join(map(str, unknown))}"
        )
        raise StoreError(f"{path} has {what}, which this queuectl does not know: upgrade it")
    return dict(header)


def parse_commit(path: str, line: bytes, offset: int) -> Commit:
    """Read a commit line, without its newline; raises DamagedError if its sum is wrong."""
    if not _sum_is_right(line):
        raise DamagedError(path, offset, "a commit line is damaged")
    try:
        meta = json.loads(line)
        before = int(meta.pop("crc"), 16)
        del meta["sum"]
        number = int(meta.pop("commit"))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(path, offset, "there is no commit line") from error
    return Commit(number, meta, offset, offset + len(line) + 1, crc32(line + b"\n", before))


def lines_between(block: bytes) -> Iterator[bytes]:
    """Yield the lines of a block, with newlines, that are neither header nor commit line."""
    for line in block.splitlines(keepends=True):
        if is_content(line):
            yield line


def is_content(line: bytes) -> bool:
    """Whether a line is neither a header nor a commit line, by its beginning."""
    return not line.startswith((_HEADER, _COMMIT))


def header_line(meta: Meta) -> bytes:
    """Write a header, with its newline.

    Args:
        meta: what it says beside its version.
    """
    return _with_sum(encode({"queuectl": FORMAT, "requires": [], **meta}))


def commit_line(number: int, meta: Meta, crc: int) -> bytes:
    """Write a commit line, with its newline.

    Args:
        number: its running number.
        meta: what to note in it.
        crc: the crc32 of every byte before it.
    """
    text = encode({"commit": number, **meta})
    return _with_sum(f'{text[:-1]},"crc":"{crc:08x}"}}')


def _with_sum(text: str) -> bytes:
    body = text[:-1].encode("ascii")
    return body + b',"sum":"%08x"}\n' % crc32(body)


def _sum_is_right(line: bytes) -> bool:
    return line[-_SUM_SIZE:] == b',"sum":"%08x"}' % crc32(line[:-_SUM_SIZE])
