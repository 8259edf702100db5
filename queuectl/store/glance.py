"""A glance at a store's newest lines, for what may be wrong but must never wait: suggestions.

It takes no lock, writes nothing, reads no more than the ends of the files, and checks nothing but
the header and the last commit line: what it finds decides nothing.
"""

from __future__ import annotations

import os
import stat
from typing import Callable, Dict, List, NamedTuple

from queuectl.errors import StoreError
from queuectl.store.folder import StoreFolder
from queuectl.store.head import HEADS
from queuectl.store.journal import Journal
from queuectl.store.record import PURGED

# The end of a file is read in steps, each four times as long, as long as it holds too little.
_FIRST_REACH = 1 << 18
_LAST_REACH = 1 << 24


class Glimpse(NamedTuple):
    """The newest line of a job that was seen, unchecked.

    Attributes:
        seq: its place in the order of enqueueing.
        job_id: its id; any bytes at all, if the file is damaged.
        state: its state.
        line: the line.
    """

    seq: int
    job_id: bytes
    state: str
    line: bytes


Wanted = Callable[[Glimpse], bool]


def glance(folder: StoreFolder, wanted: Wanted, most: int) -> List[Glimpse]:
    """Look for jobs in the ends of a store's files, those enqueued last first.

    Args:
        folder: the store's folder.
        wanted: whether a job is looked for.
        most: how many jobs are enough.

    Raises:
        OSError, StoreError, DamagedError: there is no store, or it is not fit to be read.
    """
    folder.check_trust()
    journal = Journal(folder.job_file)
    try:
        known: Dict[bytes, Glimpse] = {}
        found = _look(journal.fd, journal.tail().end, wanted, most, known)
        history = journal.header.get("history")
    finally:
        journal.close()
    if history is not None and len(found) < most:
        fd = _open_to_read(os.path.join(folder.path, history["file"]))
        try:
            found = _look(fd, history["length"], wanted, most, known)
        finally:
            os.close(fd)
    return found


def _look(
    fd: int, end: int, wanted: Wanted, most: int, known: Dict[bytes, Glimpse]
) -> List[Glimpse]:
    """Take in what is before the end of a file, behind what is known; return what is wanted."""
    newer = dict(known)
    reach = _FIRST_REACH
    while True:
        start = max(end - reach, 0)
        data = os.pread(fd, end - start, start)
        for match in HEADS.finditer(data):
            line = data[match.start() : data.find(b"\n", match.end())]
            known[match[1]] = Glimpse(int(match[2]), match[1], match[3].decode(), line)
        known.update(newer)
        found = [seen for seen in known.values() if seen.state != PURGED and wanted(seen)]
        if start == 0 or reach >= _LAST_REACH or len(found) >= most:
            return sorted(found, reverse=True)[:most]
        reach *= 4


def _open_to_read(path: str) -> int:
    # Whoever opened a named pipe would wait for ever.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreError(f"cannot open {path}: it is not a file")
    return fd
