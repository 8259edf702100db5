"""A job file made anew of the lines that are whole, with what is finished in a history.

Everything that takes room is written before the old files are touched. A job that would be run,
though nothing vouches for its command, is written as a dead one.
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from typing import Any, Dict, Iterator, List, Match, Optional
from zlib import crc32

from queuectl import clock
from queuectl.job import JobState
from queuectl.store import recovery
from queuectl.store.disk import sync_data, sync_folder, write_all
from queuectl.store.folder import StoreFolder
from queuectl.store.head import HEADS
from queuectl.store.inventory import Inventory
from queuectl.store.journal import Journal, header_line
from queuectl.store.look import Look, generations, new_identity
from queuectl.store.record import PURGED, write_record
from queuectl.store.rewrite import batches, remove_histories
from queuectl.store.survey import Survey
from queuectl.values import DEFAULT_QUEUE

HELD = "Kept from a damaged commit: look whether the command is right before you retry it"


class Rebuild:
    """One new job file.

    Args:
        folder: the store's folder.
        look: its files.
        survey: the lines in them.
        jobs: the jobs of those.
    """

    def __init__(self, folder: StoreFolder, look: Look, survey: Survey, jobs: Inventory) -> None:
        self._folder = folder
        self._look = look
        self._survey = survey
        self._jobs = jobs
        # Nobody else sees these before they are put in place.
        self._made: List[str] = []
        self._commit = 0
        self._header: Dict[str, Any] = {}
        now = clock.to_iso(clock.now())
        self._changes = {
            "state": JobState.DEAD,
            "run_at": None,
            "worker": None,
            "cancel_requested": False,
            "updated_at": now,
            "finished_at": now,
            "last_error": HELD,
        }

    def prepare(self) -> None:
        """Write the new job file beside the old, and its history; OSError if that cannot be."""
        places = array("q")
        finished = array("q")
        purged = 0
        keeps_history = self._keeps_history()
        for seq, place in self._survey.places:
            if place.source < len(self._look.histories):
                finished.append(seq)
            elif place.state != PURGED or keeps_history:
                places.append(seq)
                purged += place.state == PURGED
        history = self._look.header.get("history") if keeps_history else self._history(finished)
        newest = None if self._survey.audit is None else self._survey.audit.newest
        seq = max([0 if newest is None else int(newest.meta["seq"]), *places[-1:], *finished[-1:]])
        gone = seq - self._jobs.total
        header = {
            **new_identity(),
            **{k: v for k, v in self._look.header.items() if k in ("store", "created_at")},
            "history": history,
            "totals": {"enqueued": seq, "purged": gone - purged},
        }
        meta = {
            "seq": seq,
            # Nothing is known of the order of claims: so nothing counts as claimed in order.
            "front": 0,
            "news": 0,
            "purged": gone,
            "done": max(self._jobs.counts["completed"], self._done_before()),
            "bound": self._bound(),
            "lines": len(places),
            "counts": self._jobs.counts,
            "running": self._running(),
            "lifetime": {} if newest is None else newest.meta.get("lifetime", {}),
        }
        note = self._look.note
        number = max(-1 if newest is None else newest.number, 0 if note is None else note.commit)
        self._write_job_file(header, places, number, meta)
        self._commit, self._header = number + 1, header

    def put_in_place(self) -> None:
        """Replace the old job file, and remove what belonged to it.

        Raises:
            StoreFullError: it is replaced, but there is no room for the note of the boot.
            StoreError, OSError: the disk fails.
        """
        os.rename(self._folder.rewritten, self._folder.job_file)
        # Which syncs the folder: the new name is there before the old histories go.
        recovery.note_checked(self._folder, self._commit)
        for path in (self._folder.unsynced, self._folder.copied):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        remove_histories(self._folder, self._header["history"])

    def undo(self) -> None:
        """Take away what was prepared."""
        for path in self._made:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _done_before(self) -> int:
        """How many jobs completed in the life of the store, as far as a commit tells."""
        audit = self._survey.audit
        return 0 if audit is None or audit.newest is None else int(audit.newest.meta["done"])

    def _bound(self) -> int:
        """How many of the jobs that are left wait, and were made to wait for others."""
        heads = self._heads(JobState.PENDING, JobState.FAILED, "delayed")
        return sum(bool(head[9]) for head in heads)

    def _running(self) -> Dict[str, int]:
        """How many jobs of each queue but the usual one are left as processing."""
        running: Dict[str, int] = {}
        for head in self._heads(JobState.PROCESSING):
            queue = DEFAULT_QUEUE if head[5] is None else head[5].decode("ascii")
            if queue != DEFAULT_QUEUE:
                running[queue] = running.get(queue, 0) + 1
        return running

    def _heads(self, *states: str) -> Iterator[Match[bytes]]:
        for _, place in self._survey.places:
            if place.state in states and not place.would_run:
                head = HEADS.match(self._survey.line(place))
                if head is not None:
                    yield head

    def _keeps_history(self) -> bool:
        """Whether the history can stay as it is: whole, and every line of it stands for a job."""
        kept = sum(place.source < len(self._look.histories) for _, place in self._survey.places)
        all_stand = kept + self._survey.purged_from_history == self._survey.history_lines
        return self._survey.history_is_whole and all_stand

    def _history(self, finished: array[int]) -> Optional[Dict[str, Any]]:
        """Write the finished jobs to a history of the next generation."""
        if not finished:
            return None
        generation = max([0, *generations(self._look.names)]) + 1
        name = self._folder.history(generation)
        self._made.append(os.path.join(self._folder.path, name))
        fd = _make(self._made[-1])
        length = crc = 0
        try:
            for batch in batches(self._lines(finished)):
                write_all(fd, batch)
                crc = crc32(batch, crc)
                length += len(batch)
            sync_data(fd)
        finally:
            os.close(fd)
        return {
            "generation": generation,
            "file": name,
            "length": length,
            "crc": f"{crc:08x}",
            "counts": {"completed": len(finished)},
        }

    def _write_job_file(
        self, header: Dict[str, Any], places: array[int], number: int, meta: Dict[str, Any]
    ) -> None:
        new = self._folder.rewritten
        self._made.append(new)
        fd = _make(new)
        try:
            write_all(fd, header_line(header))
        finally:
            os.close(fd)
        with contextlib.closing(Journal(new)) as journal:
            journal.go_behind_header()
            for batch in batches(self._lines(places)):
                journal.extend(batch)
            journal.number = number
            journal.append([], meta)
            sync_data(journal.fd)
        # The history's name must be there when the header is that names it.
        sync_folder(self._folder.path)

    def _lines(self, numbers: array[int]) -> Iterator[bytes]:
        for seq in numbers:
            place = self._survey.places.get(seq)
            if place is not None:
                line = self._survey.line(place)
                yield (self._held(line) if place.would_run else line) + b"\n"

    def _held(self, line: bytes) -> bytes:
        """Let nobody run a job before somebody looked at it: nothing vouches for its command."""
        values = json.loads(line)
        values.update(self._changes, rev=values["rev"] + 1)
        return write_record(values)


def _make(path: str) -> int:
    """Make a file in the place of what was left there: where others could write, maybe a link."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
