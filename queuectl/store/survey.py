"""The newest whole line of each job of a store, however damaged the rest is.

A line of a commit that was checked replaces the one before it, as the journal has it. For a line of
a damaged commit nothing vouches: it counts only if it is exactly what would be written for the job
that it tells, is of the job that is known by its number, and is newer than what is known.

Nothing is kept of a job but a number of 64 bits: where its line is, its state, and whether it was
checked.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple
from zlib import crc32

from queuectl.errors import DamagedError, InvalidValueError
from queuectl.job import Job, JobState
from queuectl.soundness import check_fit, to_record
from queuectl.store.audit import Audit, Range, audit
from queuectl.store.head import HEADS
from queuectl.store.journal import REASON, SHORTER, Commit, is_content, parse_commit
from queuectl.store.look import LONGEST_LINE, History, Look, blocks
from queuectl.store.record import PURGED, from_line, purged_line, to_line

_DELAYED = "delayed"
_STATES = ("", *JobState.ALL, _DELAYED, PURGED)
_CODES = {state: code for code, state in enumerate(_STATES)}
_PAGE = 4096
_COMMIT = b'{"commit":'
_HEAD = re.compile(rb'.{0,3}"id":"([A-Za-z0-9._-]{1,64})"(?:,"seq":(\d{1,15}),)?')
_SEQ_LIMIT = 1 << 53
_NEAR = 1 << 16
_WOULD_RUN = (JobState.PENDING, _DELAYED, JobState.FAILED, JobState.PROCESSING)
_RUN = ("command", "cwd", "timeout", "shell", "env")
_PURGED_JOB = Job("", "", PURGED, 0, 0, "", "", rev=_SEQ_LIMIT).__dict__
"""What a line that takes a job out of the store does not tell."""


class Place(NamedTuple):
    """Where a job's newest whole line is.

    Attributes:
        source: the number of the file: the job file comes behind the histories.
        offset: of the line.
        state: the job's; `delayed` is pending with a time, `purged` means that it is gone.
        unchecked: whether nothing vouches for it.
        held: whether nothing vouches for its command either.
    """

    source: int
    offset: int
    state: str
    unchecked: bool = False
    held: bool = False

    @property
    def would_run(self) -> bool:
        """Whether it is of a job that would be run, with a command for which nothing vouches."""
        return self.held and self.state in _WOULD_RUN


class Places:
    """A place by `seq`, in pages, so that a gap costs nothing."""

    def __init__(self) -> None:
        self._pages: Dict[int, array[int]] = {}

    def get(self, seq: int) -> Optional[Place]:
        """Return the place of a job, if it has one."""
        page = self._pages.get(seq // _PAGE)
        packed = 0 if page is None else page[seq % _PAGE]
        return _unpack(packed) if packed else None

    def state(self, seq: int) -> str:
        """Return the state of a job, or nothing."""
        page = self._pages.get(seq // _PAGE)
        return "" if page is None else _STATES[page[seq % _PAGE] & 15]

    def put(self, seq: int, place: Optional[Place]) -> None:
        """Set the place of a job, or take it out."""
        page = self._pages.get(seq // _PAGE)
        if page is None:
            page = self._pages[seq // _PAGE] = array("q", bytes(8 * _PAGE))
        page[seq % _PAGE] = 0 if place is None else _pack(place)

    def __iter__(self) -> Iterator[Tuple[int, Place]]:
        for number in sorted(self._pages):
            for at, packed in enumerate(self._pages[number]):
                if packed:
                    yield number * _PAGE + at, _unpack(packed)


def _pack(place: Place) -> int:
    code = _CODES[place.state] | (place.unchecked << 4) | (place.held << 5)
    return place.offset << 16 | place.source << 6 | code


def _unpack(packed: int) -> Place:
    state, unchecked, held = _STATES[packed & 15], bool(packed & 16), bool(packed & 32)
    return Place(packed >> 6 & 1023, packed >> 16, state, unchecked, held)


class Fragment(NamedTuple):
    """What can be read of a line that is not whole.

    Attributes:
        source: the number of its file.
        offset: of the line.
        id: the job's, if it can be read.
        seq: its number, if that can.
    """

    source: int
    offset: int
    id: Optional[str]
    seq: Optional[int]


class Wrong(NamedTuple):
    """Something that is wrong at a place in a file, in words, and the jobs that it concerns."""

    path: str
    offset: int
    reason: str
    ids: Tuple[str, ...] = ()


class Survey:
    """What there is of a store.

    Args:
        look: its files.

    Attributes:
        audit: what became of the job file; nothing if it is missing.
        places: the newest whole lines.
        fragments: the lines that are not whole.
        damage: what is wrong, in the order in which it was found.
        files: path and descriptor of each file, by the number of the source.
        job_lines: how many whole lines of jobs the job file has.
        history_is_whole: whether the history is what the header says.
        history_lines: how many lines it has.
        purged_from_history: how many of them are of jobs that are gone.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self.audit: Optional[Audit] = audit(look) if look.fd >= 0 else None
        self.places = Places()
        self.fragments: List[Fragment] = []
        self.damage: List[Wrong] = []
        named = [(history.path, history.fd) for history in look.histories]
        self.files: List[Tuple[str, int]] = [*named, (look.path, look.fd)]
        self.history_is_whole = look.header_is_right or bool(look.header.get("history"))
        self.job_lines = 0
        self.history_lines = 0
        self.purged_from_history = 0
        self._counts: Dict[str, int] = dict.fromkeys(_STATES, 0)
        for source, history in enumerate(look.histories):
            self._read_history(source, history)
        if self.audit is None:
            self.damage.insert(0, Wrong(look.path, 0, "the job file is missing"))
        else:
            self._read_job_file(self.audit)

    @property
    def missing_commits(self) -> int:
        """Of how many commits nothing is left."""
        if self.audit is not None:
            return self.audit.missing
        return 0 if self.look.note is None else self.look.note.commit + 1

    def line(self, place: Place) -> bytes:
        """Read the line at a place, without its newline."""
        fd = self.files[place.source][1]
        size = 1024
        while True:
            data = os.pread(fd, size, place.offset)
            end = data.find(b"\n")
            if end >= 0 or len(data) < size or size > LONGEST_LINE:
                return data[: end if end >= 0 else len(data)]
            size *= 8

    def _read_history(self, source: int, history: History) -> None:
        if history.fd < 0:
            self.history_is_whole = False
            self.damage.append(Wrong(history.path, 0, "the file is missing"))
            return
        crc = size = 0
        for _, block in blocks(history.fd, 0, history.length):
            crc = crc32(block, crc)
            size += len(block)
        is_whole = history.crc in (None, crc) and size == history.length
        checked = is_whole and history.crc is not None
        first = len(self.fragments)
        self._read(source, history.fd, 0, size, checked)
        if not is_whole:
            self.history_is_whole = False
            torn = self.fragments[first:]
            offset = size if size < history.length else torn[0].offset if torn else 0
            reason = SHORTER if size < history.length else REASON
            self.damage.append(Wrong(history.path, offset, reason, _ids(torn)))
        elif history.jobs not in (None, self.history_lines):
            self.history_is_whole = False
            reason = f"the header counts {history.jobs} jobs in it, there are {self.history_lines}"
            self.damage.append(Wrong(history.path, 0, reason))

    def _read_job_file(self, found: Audit) -> None:
        source = len(self.look.histories)
        commits = _Commits(self.look, self._counts, self.places)
        commits.is_clean = commits.is_clean and self.history_is_whole
        at = 0
        for bad in found.bad:
            self._read(source, self.look.fd, at, bad.start, True, commits)
            commits.is_clean = False
            first = len(self.fragments)
            ids = self._read_damaged(source, bad, found.newest)
            # Those whose lines are not whole first, for the commit may be large.
            concerned = tuple(dict.fromkeys([*_ids(self.fragments[first:]), *ids]))
            self.damage.append(Wrong(self.look.path, bad.start, bad.reason, concerned))
            at = bad.stop
        self._read(source, self.look.fd, at, found.end, True, commits)
        if commits.wrong is not None:
            self.damage.append(commits.wrong)

    def _read(
        self,
        source: int,
        fd: int,
        start: int,
        stop: int,
        checked: bool,
        commits: Optional[_Commits] = None,
    ) -> None:
        for offset, block in blocks(fd, start, stop):
            at = offset
            for line in block.splitlines(keepends=True):
                if commits is None:
                    self.history_lines += 1
                if not checked:
                    self._take_unchecked(source, at, line, _SEQ_LIMIT)
                elif commits is None or not commits.take(line, at):
                    self._take(source, at, line, commits)
                at += len(line)

    def _take(self, source: int, at: int, line: bytes, commits: Optional[_Commits]) -> None:
        match = HEADS.match(line)
        if match is None:
            self._note_fragment(source, at, line)
            reason = "the line is no job"
            self.damage.append(Wrong(self.files[source][0], at, reason, _ids(self.fragments[-1:])))
            return
        seq, state = int(match[2]), match[3].decode()
        if state == JobState.PENDING and match[4] is not None:
            state = _DELAYED
        if state not in _CODES or state == "":
            self._note_fragment(source, at, line)
            reason = f"{state!r} is no state"
            self.damage.append(Wrong(self.files[source][0], at, reason, (match[1].decode(),)))
            return
        if commits is not None:
            self.job_lines += 1
            commits.take_job(seq, state, at)
        self._put(seq, Place(source, at, state))

    def _put(self, seq: int, place: Place) -> None:
        old = self.places.get(seq)
        if old is not None:
            self._counts[old.state] -= 1
            if place.state == PURGED and old.source < len(self.look.histories):
                self.purged_from_history += 1
        self._counts[place.state] += 1
        self.places.put(seq, place)

    def _read_damaged(self, source: int, bad: Range, newest: Optional[Commit]) -> List[str]:
        """Read what nothing vouches for; return the ids of the jobs that it tells of."""
        # A number that no job was given yet can only stand where the last commits are damaged.
        is_inside = newest is not None and bad.stop <= newest.end
        limit = newest.meta["seq"] if newest is not None and is_inside else _SEQ_LIMIT
        ids: Dict[str, None] = {}
        is_surely_wrong = self._is_of_one_line(bad)
        for offset, block in blocks(self.look.fd, bad.start, bad.stop):
            at = offset
            for line in block.splitlines(keepends=True):
                if is_surely_wrong and is_content(line):
                    self._note_fragment(source, at, line)
                elif is_content(line):
                    job_id = self._take_unchecked(source, at, line, limit)
                    if job_id is not None:
                        ids[job_id] = None
                at += len(line)
        return list(ids)

    def _is_of_one_line(self, bad: Range) -> bool:
        """Whether a damaged commit is of one job line, which is then what is wrong.

        For both the commit line and the one before it are right.
        """
        if bad.stop - bad.start > LONGEST_LINE:
            return False
        before = os.pread(self.look.fd, _PAGE, max(bad.start - _PAGE, 0))[: bad.start]
        lines = os.pread(self.look.fd, bad.stop - bad.start, bad.start).splitlines(keepends=True)
        try:
            last = parse_commit(self.look.path, before[before.rindex(b"\n", 0, -1) + 1 : -1], 0)
            this = parse_commit(self.look.path, lines[-1][:-1], 0)
            number = this.meta["lines"] - last.meta["lines"]
        except (DamagedError, ValueError, IndexError, KeyError, TypeError):
            return False
        return len(lines) == 2 and number == 1 and this.number == last.number + 1

    def _take_unchecked(self, source: int, at: int, line: bytes, limit: int) -> Optional[str]:
        """Take a line in if it is whole, and return its id."""
        job = whole_job(line)
        if job is None or not 0 < job.seq <= limit:
            self._note_fragment(source, at, line)
            return None
        self.job_lines += source == len(self.look.histories)
        known = self.places.get(job.seq)
        before = None if known is None else json.loads(self.line(known))
        state = _DELAYED if job.state == JobState.PENDING and job.run_at else job.state
        place = Place(source, at, state, unchecked=True, held=True)
        if known is None or before is None:
            self._put(job.seq, place)
        elif before["id"] != job.id:
            # One of the two is spoilt.
            if known.unchecked and self._order(job.seq, place) > self._order(job.seq, known):
                self._put(job.seq, place)
                self.fragments.append(Fragment(source, known.offset, before["id"], None))
                return job.id
            # The one that was there is kept; but what came may be a newer line of it, of which only
            # the id is spoilt: both are named.
            self.fragments.append(Fragment(source, at, before["id"], job.seq))
            self.fragments.append(Fragment(source, at, job.id, None))
            return str(before["id"])
        elif "rev" in before and before["rev"] < job.rev:
            older = from_line(self.line(known))
            is_same = all(getattr(older, name) == getattr(job, name) for name in _RUN)
            self._put(job.seq, place._replace(held=known.held or not is_same))
        return job.id

    def _order(self, seq: int, place: Place) -> int:
        """How well a number fits those of the lines before and behind it.

        2 if it follows, or is followed, without a gap, as in a commit of new jobs; 1 if it lies
        between them, as in a file that was rewritten; 0 if it does not.
        """
        fd = self.files[place.source][1]
        start = max(place.offset - _NEAR, 0)
        lines = os.pread(fd, place.offset - start, start).splitlines()
        before = _number(lines[-1] if lines else b"", 0)
        behind = os.pread(fd, 2 * _NEAR, place.offset).splitlines()
        after = _number(behind[1] if len(behind) > 1 else b"", 1)
        if seq in (before and before + 1, after and after - 1):
            return 2
        return int(before is not None and after is not None and before < seq < after)

    def _note_fragment(self, source: int, at: int, line: bytes) -> None:
        match = _HEAD.match(line)
        job_id = None if match is None else match[1].decode()
        seq = int(match[2]) if match is not None and match[2] else None
        known = None if seq is None else self.places.get(seq)
        if known is not None:
            job_id = str(json.loads(self.line(known))["id"])
        self.fragments.append(Fragment(source, at, job_id, seq))


class _Commits:
    """Holds what the commit lines say against what the job lines say, as long as all is whole."""

    def __init__(self, look: Look, counts: Dict[str, int], places: Places) -> None:
        self.is_clean = look.header_is_right
        self.wrong: Optional[Wrong] = None
        self._path = look.path
        self._counts = counts
        totals = look.header.get("totals", {})
        self._seq, self._purged = totals.get("enqueued", 0), totals.get("purged", 0)
        self._lines = 0

    def take(self, line: bytes, at: int) -> bool:
        """Look at a line; return False if it is that of a job."""
        if line.startswith(_COMMIT):
            if self.is_clean and self.wrong is None:
                self._check(parse_commit(self._path, line[:-1], at).meta, at)
            return True
        return not is_content(line)

    def take_job(self, seq: int, state: str, at: int) -> None:
        """Count a job's line."""
        self._lines += 1
        self._purged += state == PURGED
        if seq > self._seq:
            if seq > self._seq + 1 and self.is_clean and self.wrong is None:
                reason = f"job number {seq} follows {self._seq}"
                self.wrong = Wrong(self._path, at, reason)
            self._seq = seq

    def _check(self, meta: Dict[str, Any], at: int) -> None:
        counts = {state: self._counts[state] for state in JobState.ALL}
        counts[JobState.PENDING] += self._counts[_DELAYED]
        found = {
            "seq": self._seq,
            "purged": self._purged,
            "lines": self._lines,
            "jobs": self._seq - self._purged,
            **counts,
            _DELAYED: self._counts[_DELAYED],
        }
        said = {**meta, **meta["counts"], "jobs": sum(counts.values())}
        for name, number in found.items():
            if said.get(name) != number:
                reason = f"the commit says {said.get(name)} {name}, the lines say {number}"
                self.wrong = Wrong(self._path, at, reason)
                return


def whole_job(line: bytes) -> Optional[Job]:
    """Read a line that nothing vouches for; nothing unless it is exactly what would be written."""
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            return None
        if values.get("state") == PURGED and type(values["seq"]) is int:
            job = Job(**{**_PURGED_JOB, **values})
            return job if purged_line(job) + b"\n" == line else None
        job = to_record(values)
        check_fit(job)
    except (ValueError, TypeError, KeyError, RecursionError, InvalidValueError):
        return None
    return job if to_line(job) + b"\n" == line else None


def _number(line: bytes, behind: int) -> Optional[int]:
    """The number of the job that a line tells of.

    For that of a header or a commit it is that of the last job there was, or the one behind it.
    """
    match = HEADS.match(line)
    if match is not None:
        return int(match[2])
    try:
        told = json.loads(line)
        last = told["seq"] if "seq" in told else told["totals"]["enqueued"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return last + behind if type(last) is int else None


def _ids(fragments: List[Fragment]) -> Tuple[str, ...]:
    return tuple(dict.fromkeys(each.id for each in fragments if each.id is not None))
