"""One consistent, checked view of all jobs of a file store, as of one commit.

It takes no lock: up to its last commit line the file never changes. Every byte is checked before
any is believed, with one crc32 pass over each file. Ids are found by scanning bytes, never by
parsing what is not asked for.
"""

from __future__ import annotations

import os
import re
from typing import Collection, Dict, Iterator, List, Match, Optional, Sequence, Set, Tuple
from zlib import crc32

from queuectl.errors import DamagedError
from queuectl.job import WAITING, Job
from queuectl.store.disk import Mapped, failure, map_file, open_file
from queuectl.store.head import HEADS
from queuectl.store.journal import REASON, SHORTER, Journal
from queuectl.store.record import PURGED, from_line, none_if_purged
from queuectl.store.watched import key_mark

_PURGED = PURGED.encode()
_WAITING = frozenset(state.encode() for state in WAITING)

# Up to so many ids are looked up one by one, from the end; more of them share one pass over
# everything.
_FEW = 8

# As `HEADS`, it finds nothing in the text of a job.
_PARENTS = re.compile(rb'"parents":\[([-0-9,]+)\]')


class Snapshot:
    """The jobs as they stood at one commit.

    Args:
        journal: the job file; it is left where it is.
        folder: the path of the store's folder, for the history that the header names.

    Raises:
        DamagedError: the bytes are not those that were written.
        FileNotFoundError: the history is gone, as it may be if the job file was replaced meanwhile.
    """

    def __init__(self, journal: Journal, folder: str) -> None:
        self._files: List[Tuple[str, Mapped, int]] = []
        last = journal.tail()
        live = map_file(journal.fd, last.end, journal.path)
        if crc32(memoryview(live)[: last.end]) != last.crc:
            good = journal.last_good()
            raise DamagedError(journal.path, 0 if good is None else good.end, REASON)
        self.commit = last
        history = journal.header.get("history")
        if history is not None:
            path = os.path.join(folder, history["file"])
            self._add_history(path, history["length"], history["crc"])
        # Behind the history, so that a search from the end finds the newest line of an id first.
        self._files.append((journal.path, live, last.end))

    def get(self, job_id: str) -> Optional[Job]:
        """Find the job of this id."""
        line = self._find_line(_encoded(job_id))
        return None if line is None else from_line(line)

    def find(self, prefix: str, limit: int) -> List[str]:
        """Return up to `limit` ids of jobs that begin with `prefix`."""
        found: List[str] = []
        seen: Set[str] = set()
        start = re.compile(rb'\{"id":"(' + re.escape(_encoded(prefix)) + rb'[^"]*)","seq":')
        for _, data, end in reversed(self._files):
            for match in start.finditer(data, 0, end):
                job_id = match[1].decode()
                if job_id not in seen:
                    seen.add(job_id)
                    if self.get(job_id) is not None:
                        found.append(job_id)
                        if len(found) == limit:
                            return found
        return found

    def newest_lines(self, job_ids: Sequence[str]) -> Dict[bytes, Optional[bytes]]:
        """Return the newest line of each of these ids, or nothing for those that no job has."""
        newest: Dict[bytes, Optional[bytes]] = {job_id.encode(): None for job_id in job_ids}
        if len(newest) <= _FEW:
            for job_id in newest:
                newest[job_id] = self._find_line(job_id)
            return newest
        places: Dict[bytes, Tuple[Mapped, int]] = {}
        for _, data, end in self._files:
            for match in HEADS.finditer(data, 0, end):
                if match[1] in newest:
                    places[match[1]] = (data, match.start())
        for job_id, (data, at) in places.items():
            newest[job_id] = none_if_purged(_line(data, at))
        return newest

    def holders(self, key: str) -> Dict[bytes, bytes]:
        """Return the newest lines, by id, of the jobs with a unique key that may not be over."""
        # What is over for good is in the history.
        _, data, end = self._files[-1]
        mark = key_mark(key)
        newest: Dict[bytes, int] = {}
        at = data.find(mark, 0, end)
        while at >= 0:
            start = data.rfind(b"\n", 0, at) + 1
            head = HEADS.match(data, start)
            if head is not None:
                newest[head[1]] = start
            at = data.find(mark, at + len(mark), end)
        return {job_id: _line(data, start) for job_id, start in newest.items()}

    def children(self, parents: Collection[int]) -> List[Job]:
        """Return the waiting jobs that were made to wait for one of these, by seq."""
        _, data, end = self._files[-1]
        newest: Dict[int, Tuple[bytes, int]] = {}
        for match in _PARENTS.finditer(data, 0, end):
            if any(abs(int(parent)) in parents for parent in match[1].split(b",")):
                start = data.rfind(b"\n", 0, match.start()) + 1
                head = HEADS.match(data, start)
                assert head is not None
                newest[int(head[2])] = (head[3], start)
        waiting = [seq for seq in sorted(newest) if newest[seq][0] in _WAITING]
        return [from_line(_line(data, newest[seq][1])) for seq in waiting]

    def heads(self) -> Iterator[Match[bytes]]:
        """Yield the beginnings of all lines, the last of a job behind its others."""
        for _, data, end in self._files:
            yield from HEADS.finditer(data, 0, end)

    def select(
        self, states: Sequence[str], limit: Optional[int], before: Optional[int]
    ) -> Iterator[Job]:
        """Yield the jobs in these states, newest first, at most `limit`, of those before a seq."""
        wanted = {state.encode() for state in states}
        newest = self._newest()
        left = len(newest) if limit is None else limit
        there = newest if before is None else (seq for seq in newest if seq < before)
        for seq in sorted(there, reverse=True):
            if left == 0:
                return
            data, at, state = newest[seq]
            if state in wanted:
                left -= 1
                yield from_line(_line(data, at))

    def dump(self) -> Tuple[int, Iterator[Job]]:
        """Return how many jobs there are, and all of them, oldest first."""
        newest = self._newest()
        there = sorted(seq for seq, (_, _, state) in newest.items() if state != _PURGED)
        return len(there), (from_line(_line(*newest[seq][:2])) for seq in there)

    def places_of_newest(self, finished: str) -> Tuple[List[int], List[int]]:
        """Find the newest lines of the jobs that the job file holds.

        Args:
            finished: the state whose jobs are told apart.

        Returns:
            The offsets of all others in the order of `seq`, and those of the finished in the order
            of the file.
        """
        _, data, end = self._files[-1]
        newest: Dict[int, Tuple[int, bytes]] = {}
        for match in HEADS.finditer(data, 0, end):
            newest[int(match[2])] = (match.start(), match[3])
        over = sorted(at for at, state in newest.values() if state == finished.encode())
        live = [
            newest[seq][0]
            for seq in sorted(newest)
            if newest[seq][1] not in (finished.encode(), _PURGED)
        ]
        return live, over

    def lines(self, places: Sequence[int]) -> Iterator[bytes]:
        """Yield the lines at these offsets of the job file, with their newlines."""
        _, data, _ = self._files[-1]
        for at in places:
            yield data[at : data.find(b"\n", at) + 1]

    def purged_from_history(self) -> Set[int]:
        """Find the jobs, by seq, that are in the history although they were purged."""
        *history, (_, live, end) = self._files
        purged = {int(match[2]) for match in HEADS.finditer(live, 0, end) if match[3] == _PURGED}
        found: Set[int] = set()
        if purged:
            for _, data, length in history:
                found.update(int(match[2]) for match in HEADS.finditer(data, 0, length))
        return purged & found

    def history_lines(self, without: Set[int]) -> Iterator[bytes]:
        """Yield the lines of the history, with newlines, without those of some jobs, by seq."""
        for _, data, length in self._files[:-1]:
            for match in HEADS.finditer(data, 0, length):
                if int(match[2]) not in without:
                    yield data[match.start() : data.find(b"\n", match.start()) + 1]

    def claimed_by(self, worker: str) -> Optional[Job]:
        """Find the job that this worker holds: at most one, and the last that it touched."""
        _, data, end = self._files[-1]
        at = data.rfind(b'"worker":"' + worker.encode() + b'"', 0, end)
        if at < 0:
            return None
        touched = from_line(_line(data, data.rfind(b"\n", 0, at) + 1))
        job = self.get(touched.id)
        return job if job is not None and job.worker == worker else None

    def _newest(self) -> Dict[int, Tuple[Mapped, int, bytes]]:
        """Find the newest line of each job, and its state, by seq."""
        newest: Dict[int, Tuple[Mapped, int, bytes]] = {}
        for _, data, end in self._files:
            for match in HEADS.finditer(data, 0, end):
                newest[int(match[2])] = (data, match.start(), match[3])
        return newest

    def _find_line(self, job_id: bytes) -> Optional[bytes]:
        mark = b'{"id":"' + job_id + b'","seq":'
        for _, data, end in reversed(self._files):
            at = data.rfind(b"\n" + mark, 0, end) + 1
            if at > 0 or data[: len(mark)] == mark:
                return none_if_purged(_line(data, at))
        return None

    def _add_history(self, path: str, length: int, crc: str) -> None:
        try:
            fd = open_file(path, os.O_RDONLY)
        except OSError as error:
            raise failure("open", path, error) from error
        try:
            if os.fstat(fd).st_size < length:
                raise DamagedError(path, os.fstat(fd).st_size, SHORTER)
            data = map_file(fd, length, path)
        finally:
            os.close(fd)
        if crc32(memoryview(data)[:length]) != int(crc, 16):
            raise DamagedError(path, 0, REASON)
        self._files.append((path, data, length))


def _encoded(job_id: str) -> bytes:
    # What a user types need not be an id, nor text: bytes that are none arrive as lone surrogates.
    return job_id.encode("utf-8", "surrogatepass")


def _line(data: Mapped, at: int) -> bytes:
    return data[at : data.find(b"\n", at)]
