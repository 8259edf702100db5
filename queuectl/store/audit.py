"""Which commits of a job file are whole, however damaged the others are.

Each commit line has a checksum of itself, and one of every byte before it. So where one commit line
is right, the commit behind it can be checked alone; what is not right is a range from the end of
the last commit line that is to the end of the next.
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Tuple
from zlib import crc32

from queuectl.errors import DamagedError
from queuectl.store.journal import COMMIT_LINES, Commit, parse_commit
from queuectl.store.look import Look, blocks
from queuectl.store.recovery import MISSING


class Range(NamedTuple):
    """Bytes that are not those that were written, or not where they were written.

    Attributes:
        start: the offset of the first commit that is concerned.
        stop: the offset behind the last.
        reason: what is wrong, in words.
    """

    start: int
    stop: int
    reason: str


class Audit(NamedTuple):
    """What became of a job file.

    Attributes:
        bad: the damaged ranges, in order.
        newest: the commit with the highest number whose line is right, if there is any.
        end: the offset behind what counts.
        lost_end: whether what follows is more than a torn tail: an end that the disk did not hold.
        missing: of how many commits not even a damaged line is there.
    """

    bad: List[Range]
    newest: Optional[Commit]
    end: int
    lost_end: bool = False
    missing: int = 0


def audit(look: Look) -> Audit:
    """Check every byte of a job file that is there."""
    bad: List[Range] = []
    before: List[Optional[Commit]] = []
    last: Optional[Commit] = None
    newest: Optional[Commit] = None
    missing = 0
    for start, commit, is_whole in _segments(look):
        if not is_whole:
            bad.append(Range(start, commit.end, _reason(last, commit)))
            before.append(last)
            if last is not None:
                missing += _missing(look, bad[-1], last.number, commit.number)
        if newest is None or commit.number > newest.number:
            newest = commit
        last = commit
    end = _bad_end(look, last, newest)
    if end is not None:
        bad.append(end)
        before.append(last)
        if look.note is not None:
            number = -1 if newest is None else newest.number
            missing += _missing(look, end, number, look.note.commit)
    if not look.header_is_right and (not bad or bad[0].start > 0):
        bad.insert(0, Range(0, 0, "there is no header"))
        before.insert(0, None)
    first = before[0] if before else None
    if first is not None and _may_be_cut(look, first):
        return Audit([], first, bad[0].start, lost_end=True)
    stop = max(0 if last is None else last.end, bad[-1].stop if bad else 0)
    return Audit(bad, newest, stop, missing=missing)


def _missing(look: Look, bad: Range, first: int, last: int) -> int:
    """How many of the commits behind the first, up to the last, have no line in a range at all."""
    number, done = last - first, bad.start
    for offset, block in blocks(look.fd, bad.start, bad.stop):
        for match in COMMIT_LINES.finditer(block):
            number, done = number - 1, offset + match.end()
    # One that was cut short has no line of its own, but something of it is left.
    return max(number - (done < bad.stop), 0)


def _may_be_cut(look: Look, last: Commit) -> bool:
    """Whether the next writer takes all behind this commit for a torn tail (see `recovery`)."""
    return look.may_lack_an_end and look.note is not None and last.number >= look.note.commit


def _segments(look: Look) -> Iterator[Tuple[int, Commit, bool]]:
    """Yield each commit whose line is right: where its lines begin, and whether they are right."""
    crc = at = 0
    for offset, block in blocks(look.fd, 0, look.end):
        done = 0
        for match in COMMIT_LINES.finditer(block):
            try:
                commit = parse_commit(look.path, match[0][:-1], offset + match.start())
            except DamagedError:
                # What is damaged goes on up to the next that is right.
                continue
            crc = crc32(block[done : match.end()], crc)
            yield at, commit, crc == commit.crc
            at, crc, done = commit.end, commit.crc, match.end()
        crc = crc32(block[done:], crc)


def _bad_end(look: Look, last: Optional[Commit], newest: Optional[Commit]) -> Optional[Range]:
    """Return what lies behind the last commit, if that is not a torn tail."""
    if last is None or newest is None:
        return Range(0, look.end, "there is no whole commit")
    if last.end < look.end:
        return Range(last.end, look.end, f"commit {last.number + 1} is damaged")
    if look.note is not None and look.note.commit > newest.number:
        reason = MISSING.format(look.note.commit)
        return Range(last.end, look.size, reason)
    return None


def _reason(last: Optional[Commit], commit: Commit) -> str:
    first = 0 if last is None else last.number + 1
    if last is None and commit.number > 0:
        return f"the header or commit {commit.number} is damaged"
    if first < commit.number:
        return f"commits {first} to {commit.number} are damaged"
    return f"commit {commit.number} is damaged"
