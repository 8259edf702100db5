"""The files of a store as they were at one moment, opened without believing any of them.

The store's lock is held only while they are opened and the end of the job file is found. What comes
before that end never changes afterwards, and an open file stays what it is when another one takes
its name: so the rest can be read at leisure while others work. A store that cannot be locked, as on
a disk that can only be read, is looked at without.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from types import TracebackType
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, Type
from zlib import crc32

from queuectl import clock, machine
from queuectl.errors import DamagedError, InvalidValueError, NoStoreError, StoreError
from queuectl.store import recovery
from queuectl.store.disk import open_file
from queuectl.store.entries import misplaced
from queuectl.store.folder import StoreFolder
from queuectl.store.journal import COMMIT_LINES, parse_commit, parse_header
from queuectl.store.lock import StoreLock, is_held

_BLOCK = 1 << 16
_CHUNK = 1 << 20
# No line of ours is longer; what has no end for so long is handed on in pieces.
LONGEST_LINE = 1 << 26
_MUCH = 1 << 26
_VOUCHING = ("jobs.jsonl", "jobs.boot", "jobs.unsynced")
_HISTORY = re.compile(r"history-(\d+)\.jsonl", re.ASCII)


class History(NamedTuple):
    """A history file.

    Attributes:
        path: of the file.
        fd: the file, opened; -1 if it is missing.
        length: how many of its bytes count.
        crc: their crc32, if the header tells.
        jobs: how many it holds, if the header tells.
    """

    path: str
    fd: int
    length: int
    crc: Optional[int] = None
    jobs: Optional[int] = None


class Look:
    """A store's files, opened; a context that closes them.

    Args:
        folder: the store's folder.

    Attributes:
        path: of the job file.
        fd: the job file, opened; -1 if it is missing, or what is there is no file.
        size: its bytes.
        end: how many of them can be checked: those behind are a torn tail.
        header: what its header says; where that is damaged, what seems to be left of it.
        header_is_right: whether it can be believed.
        histories: the history that the header names; all there are if it cannot be believed.
        names: what is in the folder.
        note: up to which commit the disk was known to hold the job file.
        may_lack_an_end: whether the next writer will cut an end that the disk did not hold.
        is_rewriting: whether the job file is being rewritten.

    Raises:
        NoStoreError: there is nothing of a store.
        StoreError: it cannot be read, or needs a newer QueueCTL.
    """

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self.path = folder.job_file
        self.fd, self.size, self.end = -1, 0, 0
        self.header: Dict[str, Any] = {}
        self.header_is_right = False
        self.histories: List[History] = []
        try:
            self._open(folder)
        except FileNotFoundError as error:
            raise NoStoreError(folder.path) from error
        except OSError as error:
            self.close()
            raise StoreError(f"cannot read the store {folder.path}: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Look:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for fd in (self.fd, *(history.fd for history in self.histories)):
            if fd >= 0:
                os.close(fd)
        self.fd, self.histories = -1, []

    def is_current(self) -> bool:
        """Whether nobody changed what is known of the jobs since the files were opened."""
        return self._versions == _versions(self._folder)

    def _open(self, folder: StoreFolder) -> None:
        self._versions = _versions(folder)
        self.names = sorted(os.listdir(folder.path))
        if "jobs.jsonl" not in self.names and folder.has_remains() is None:
            raise NoStoreError(folder.path)
        self.note = recovery.read_note(folder) if os.path.isfile(folder.boot) else None
        self.may_lack_an_end = self.note is not None and (
            self.note.boot != machine.boot_id() or recovery.is_unsynced(folder)
        )
        self.is_rewriting = "rewrite.lock" in self.names and _is_held(folder.rewrite_lock)
        if "jobs.jsonl" in self.names:
            self.fd, self.size = _open_file(self.path)
        if self.fd >= 0:
            self.end = self._find_end()
            self._read_header(folder)
        if not self.histories and not self.header_is_right:
            self._open_histories(folder)

    def _find_end(self) -> int:
        """Find the end of the last commit line that is right; all counts if one behind it is not.

        Which is then no torn tail, for no writer would cut it.
        """
        reach = _BLOCK
        while True:
            start = max(self.size - reach, 0)
            data = os.pread(self.fd, self.size - start, start)
            for match in reversed(list(COMMIT_LINES.finditer(data))):
                if start > 0 and match.start() == 0:
                    continue
                try:
                    return parse_commit(self.path, match[0][:-1], start + match.start()).end
                except DamagedError:
                    return self.size
            if start == 0 or reach > _MUCH:
                return self.size
            reach *= 4

    def _read_header(self, folder: StoreFolder) -> None:
        data = os.pread(self.fd, _BLOCK, 0)
        line = data[: data.find(b"\n") + 1]
        try:
            self.header = parse_header(self.path, line)
            self.header_is_right = True
        except DamagedError:
            self.header = _guess(line)
        told = self.header.get("history")
        if told is not None:
            history = self._named(folder, told)
            if self.header_is_right or (history.fd >= 0 and _is_whole(history)):
                self.histories.append(history)
                return
            del self.header["history"]
            if history.fd >= 0:
                os.close(history.fd)

    def _named(self, folder: StoreFolder, told: Dict[str, Any]) -> History:
        path = os.path.join(folder.path, told["file"])
        try:
            fd, _ = _open_file(path)
        except FileNotFoundError:
            fd = -1
        jobs = told["counts"]["completed"]
        return History(path, fd, told["length"], int(told["crc"], 16), jobs)

    def _open_histories(self, folder: StoreFolder) -> None:
        for generation in generations(self.names):
            path = os.path.join(folder.path, folder.history(generation))
            self.histories.append(History(path, *_open_file(path)))


def look_at(folder: StoreFolder, lock: StoreLock) -> Look:
    """Open a store's files, under its lock where that can be taken without making anything.

    Raises:
        StoreLockedError: the lock is held for too long.
        NoStoreError, StoreError: see `Look`.
    """
    with contextlib.ExitStack() as stack:
        if os.access(folder.lock, os.R_OK | os.W_OK):
            with contextlib.suppress(StoreError):
                stack.enter_context(lock)
        return Look(folder)


def generations(names: List[str]) -> List[int]:
    """The generations of the histories in a folder, the oldest first."""
    found = [_HISTORY.fullmatch(name) for name in names]
    return sorted(int(match[1]) for match in found if match is not None)


def blocks(fd: int, start: int, stop: int) -> Iterator[Tuple[int, bytes]]:
    """Yield a part of a file in blocks of whole lines, each with its offset.

    The last block may lack a line end, and so may those of a line that is longer than any of ours.
    """
    at, rest = start, b""
    while at + len(rest) < stop:
        data = os.pread(fd, min(_CHUNK, stop - at - len(rest)), at + len(rest))
        if not data:
            break
        rest += data
        done = rest.rfind(b"\n") + 1
        if done == 0 and len(rest) > LONGEST_LINE:
            done = len(rest)
        if done:
            yield at, rest[:done]
            at += done
            rest = rest[done:]
    if rest:
        yield at, rest


def _is_whole(history: History) -> bool:
    crc = size = 0
    for _, block in blocks(history.fd, 0, history.length):
        crc = crc32(block, crc)
        size += len(block)
    return (size, crc) == (history.length, history.crc)


def _open_file(path: str) -> Tuple[int, int]:
    """Open a file to read, and tell how many bytes it has; what is no file counts as missing."""
    if misplaced(path) is not None:
        return -1, 0
    fd = open_file(path, os.O_RDONLY)
    return fd, os.fstat(fd).st_size


def _versions(folder: StoreFolder) -> List[Tuple[str, int, int, int]]:
    """Tells one state of what holds jobs, or vouches for them, from another."""
    found: List[Tuple[str, int, int, int]] = []
    for name in sorted(os.listdir(folder.path)):
        if name in _VOUCHING or _HISTORY.fullmatch(name):
            status = os.lstat(os.path.join(folder.path, name))
            found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def _is_held(path: str) -> bool:
    try:
        return is_held(path)
    except OSError:
        return False


def _guess(line: bytes) -> Dict[str, Any]:
    """Take from a damaged header what still looks as it should."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    guessed: Dict[str, Any] = {}
    if isinstance(told.get("store"), str) and re.fullmatch("[0-9a-f]{32}", told["store"]):
        guessed["store"] = told["store"]
    with contextlib.suppress(InvalidValueError, TypeError):
        clock.from_iso(told.get("created_at", ""))
        guessed["created_at"] = told["created_at"]
    history = told.get("history") or {}
    with contextlib.suppress(ValueError, KeyError, TypeError):
        numbers = (history["length"], history["generation"], history["counts"]["completed"])
        is_named = history["file"] == f"history-{history['generation']}.jsonl"
        if is_named and all(type(number) is int for number in numbers):
            guessed["history"] = {**history, "crc": f"{int(history['crc'], 16):08x}"}
    return guessed


def new_identity() -> Dict[str, Any]:
    """What a header says of a store whose own says nothing any more."""
    return {"store": uuid.uuid4().hex, "created_at": clock.to_iso(clock.now())}
