"""Repairing a store: what is whole is kept, the rest is made anew, and a copy is laid aside first.

The copy has its name only when the disk holds all of it, and nothing is changed before. Then each
file is replaced as a whole, the job file by a rename as in a rewrite: so after a crash the store is
as it was or repaired, and the next repair goes on.

Nobody can begin to work on the store meanwhile, for its lock is held. That of `start` must have
ended: its workers hold claims that the repaired store may not know.
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple
from zlib import crc32

from queuectl import clock
from queuectl.errors import OutcomeUnknownError, StoreError, StoreFullError
from queuectl.job import JobState
from queuectl.store import recovery, settings_file
from queuectl.store.aside import copy_aside, remove_all
from queuectl.store.disk import (
    failure,
    sync_data,
    sync_folder,
    write_all,
)
from queuectl.store.doctor import Examined, examine, examine_look
from queuectl.store.entries import (
    holds_jobs,
    may_work_with,
    misplaced,
    open_to_others,
    ours,
    refuse_unreadable,
    too_narrow,
)
from queuectl.store.finding import DAMAGE, Finding
from queuectl.store.folder import DANGLING, StoreFolder, refuse_foreign
from queuectl.store.journal import Journal, header_line
from queuectl.store.lock import StoreLock, take_liveness
from queuectl.store.look import Look, generations, look_at, new_identity
from queuectl.store.record import HEADS, PURGED, write_record
from queuectl.store.rewrite import batches, remove_histories
from queuectl.store.surroundings import living_workers, sound_settings, strangers
from queuectl.values import DEFAULT_QUEUE

HELD = "Kept from a damaged commit: look whether the command is right before you retry it"
_WAITING = ("pending", "failed", "delayed")


class Repaired(NamedTuple):
    """What a repair found and did.

    Attributes:
        findings: what was found before.
        copy: the folder with the copy; nothing if nothing had to be done.
        left: what is damaged still.
        lost: the ids of jobs of which no whole line was left.
        reverted: of jobs of which only an older line was whole.
        unchecked: of jobs kept as damaged commits say.
        held: of jobs kept from damaged commits, but with the dead, for they would have been run.
        unnamed: how many jobs were lost whose ids are not known.
        unreadable: how many lines did not even tell whose they were.
        missing: of how many commits nothing was left.
    """

    findings: List[Finding]
    copy: Optional[str] = None
    left: Sequence[Finding] = ()
    lost: Sequence[str] = ()
    reverted: Sequence[str] = ()
    unchecked: Sequence[str] = ()
    held: Sequence[str] = ()
    unnamed: int = 0
    unreadable: int = 0
    missing: int = 0


def repair(folder: StoreFolder, lock: StoreLock) -> Repaired:
    """Repair a store, if anything is wrong with it.

    Raises:
        NoStoreError: there is none.
        StoreError: it may not be repaired, or cannot be; then it is as it was.
        StoreLockedError: somebody holds its lock for too long.
    """
    now = clock.now()
    refuse_unreadable(folder)
    with look_at(folder, lock) as look:
        examined = examine_look(folder, look, now)
        findings = examined.findings
        if not _is_needed(folder, findings):
            return Repaired(findings)
        status = os.stat(folder.path)
        if status.st_uid != os.geteuid():
            refuse_foreign(f"store {folder.path}", folder.path, status)
        _refuse_out_of_reach(folder)
        try:
            with _alone(folder, lock), contextlib.ExitStack() as stack:
                if not look.is_current():
                    # Somebody worked on it meanwhile.
                    look = stack.enter_context(Look(folder))
                    examined = examine_look(folder, look, clock.now())
                copy = copy_aside(folder)
                _Repair(folder, look, examined, copy).run()
        except OSError as error:
            raise failure("repair", folder.path, error) from error
    jobs = examined.jobs
    return Repaired(
        findings,
        copy,
        [each for each in examine(folder, lock) if each.level == DAMAGE],
        jobs.lost,
        jobs.reverted,
        jobs.unchecked,
        jobs.held,
        jobs.unnamed,
        jobs.unreadable,
        examined.survey.missing_commits,
    )


def _is_needed(folder: StoreFolder, findings: List[Finding]) -> bool:
    is_damaged = any(finding.level == DAMAGE for finding in findings)
    return is_damaged or any(open_to_others(folder, os.listdir(folder.path)))


def _refuse_out_of_reach(folder: StoreFolder) -> None:
    """Raise StoreError, with what helps, if there may be more of the store than can be reached."""
    names = os.listdir(folder.path)
    for path, mode, advice in too_narrow(folder, names):
        if not may_work_with(path, mode):
            raise StoreError(f"cannot repair {folder.path}: Permission denied: {advice}")
    for path in ours(folder, names):
        if holds_jobs(path) and misplaced(path) == DANGLING:
            raise StoreError(
                f"cannot repair {folder.path}: {path} is a link to {os.readlink(path)}, which is "
                "not there: bring that back, or remove the link"
            )


@contextlib.contextmanager
def _alone(folder: StoreFolder, lock: StoreLock) -> Iterator[None]:
    """Hold every lock of the store; StoreError if somebody works on it."""
    turn = take_liveness(folder.rewrite_lock)
    if turn is None:
        raise StoreError(f"cannot repair {folder.path} while it is rewritten: try again")
    try:
        with lock:
            if living_workers(folder):
                raise StoreError(
                    f"cannot repair {folder.path} while start runs on it: queuectl stop"
                )
            yield
    finally:
        os.close(turn)


def _make(path: str) -> int:
    """Make a file in the place of what was left there: where others could write, maybe a link."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


class _Repair:
    """One repair, of what was examined."""

    def __init__(self, folder: StoreFolder, look: Look, examined: Examined, copy: str) -> None:
        self._folder = folder
        self._copy = copy
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
        # Nobody else sees these before the store is changed.
        self._prepared = [folder.rewritten]
        self._look = look
        self._survey = examined.survey
        self._jobs = examined.jobs
        self._jobs_are_damaged = examined.jobs_are_damaged or bool(examined.jobs.unnamed)

    def run(self) -> None:
        """Repair everything that can be; where there is no room for that, change nothing."""
        note = None
        try:
            if self._jobs_are_damaged:
                note = self._prepare_job_file()
            self._repair_settings()
        except OutcomeUnknownError:
            # The settings are others now.
            raise
        except BaseException:
            self._undo()
            raise
        self._move_aside()
        for path, mode in list(open_to_others(self._folder, os.listdir(self._folder.path))):
            if os.stat(path).st_uid == os.geteuid():
                os.chmod(path, mode & ~0o077)
        if note is not None:
            self._replace_job_file(*note)

    def _undo(self) -> None:
        """Take away everything that was made, so that there is as much room as before."""
        remove_all(self._copy)
        for path in self._prepared:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _repair_settings(self) -> None:
        sound, findings = sound_settings(self._folder)
        if any(finding.level == DAMAGE for finding in findings):
            settings_file.write(self._folder.settings, sound)

    def _move_aside(self) -> None:
        """Move what is no file of the store's to the copy."""
        for path in ours(self._folder, os.listdir(self._folder.path)):
            # Those who wait for a lock wait at the file that they know.
            if misplaced(path) is not None and not path.endswith(".lock"):
                os.rename(path, os.path.join(self._copy, os.path.basename(path)))
        for path in list(strangers(self._folder)):
            os.rename(path, os.path.join(self._copy, "workers", os.path.basename(path)))

    def _prepare_job_file(self) -> Tuple[int, Optional[Dict[str, Any]]]:
        """Write the new job file beside the old; return its last commit's number, and its history.

        The history is what its header says of it.
        """
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
        }
        note = self._look.note
        number = max(-1 if newest is None else newest.number, 0 if note is None else note.commit)
        self._write_job_file(header, places, number, meta)
        return number + 1, history

    def _replace_job_file(self, commit: int, history: Optional[Dict[str, Any]]) -> None:
        os.rename(self._folder.rewritten, self._folder.job_file)
        # Which syncs the folder: the new name is there before the old histories go.
        try:
            recovery.note_checked(self._folder, commit)
        except StoreFullError as error:
            raise StoreError(
                f"no room for {self._folder.boot}; the job file is repaired, "
                f"and as it was in {self._copy}"
            ) from error
        for path in (self._folder.unsynced, self._folder.copied):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        remove_histories(self._folder, history)

    def _done_before(self) -> int:
        """How many jobs completed in the life of the store, as far as a commit tells."""
        audit = self._survey.audit
        return 0 if audit is None or audit.newest is None else int(audit.newest.meta["done"])

    def _running(self) -> Dict[str, int]:
        """How many jobs of each queue but the usual one are left as processing."""
        running: Dict[str, int] = {}
        for _, place in self._survey.places:
            head = HEADS.match(self._survey.line(place)) if place.state == "processing" else None
            if head is not None and head[5] not in (None, DEFAULT_QUEUE.encode()):
                queue = head[5].decode("ascii")
                running[queue] = running.get(queue, 0) + 1
        return running

    def _bound(self) -> int:
        """How many of the jobs that are left wait, and were made to wait for others."""
        waiting = (place for _, place in self._survey.places if place.state in _WAITING)
        heads = (HEADS.match(self._survey.line(place)) for place in waiting)
        return sum(head is not None and bool(head[9]) for head in heads)

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
        self._prepared.append(os.path.join(self._folder.path, name))
        fd = _make(self._prepared[-1])
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
