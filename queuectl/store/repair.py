"""Repairing a store: what is whole is kept, the rest is made anew, and a copy is laid aside first.

The copy has its name only when the disk holds all of it, and nothing is changed before. Then each
file is replaced as a whole, the job file by a rename as in a rewrite: so after a crash the store is
as it was or repaired, and the next repair goes on.

Nobody can begin to work on the store meanwhile, for its lock is held. That of `start` must have
ended: its workers hold claims that the repaired store may not know.
"""

from __future__ import annotations

import contextlib
import os
import stat
from array import array
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence
from zlib import crc32

from queuectl import clock
from queuectl.errors import StoreError
from queuectl.store import recovery, settings_file
from queuectl.store.disk import copy_range, failure, sync_data, sync_folder, write_all
from queuectl.store.doctor import Examined, examine, examine_look
from queuectl.store.folder import ASIDE, StoreFolder, refuse_foreign
from queuectl.store.journal import Journal, header_line
from queuectl.store.lock import StoreLock, take_liveness
from queuectl.store.look import Look, generations, new_identity
from queuectl.store.members import Members
from queuectl.store.record import HEADS, PURGED
from queuectl.store.rewrite import batches, remove_histories
from queuectl.store.surroundings import DAMAGE, Finding, open_to_others, sound_settings, strangers
from queuectl.values import DEFAULT_QUEUE

_WAITING = ("pending", "failed", "delayed")


class Repaired(NamedTuple):
    """What a repair found and did.

    Attributes:
        findings: what was found before.
        copy: the folder with the copy; nothing if nothing had to be done.
        left: what is damaged still.
        lost: the ids of jobs of which no whole line was left.
        reverted: of jobs of which only an older line was whole.
        unchecked: of jobs kept from damaged commits.
        unnamed: how many jobs were lost whose ids are not known.
        unreadable: how many lines did not even tell whose they were.
    """

    findings: List[Finding]
    copy: Optional[str] = None
    left: Sequence[Finding] = ()
    lost: Sequence[str] = ()
    reverted: Sequence[str] = ()
    unchecked: Sequence[str] = ()
    unnamed: int = 0
    unreadable: int = 0


def repair(folder: StoreFolder, lock: StoreLock) -> Repaired:
    """Repair a store, if anything is wrong with it.

    Raises:
        NoStoreError: there is none.
        StoreError: it may not be repaired, or cannot be; then it is as it was.
        StoreLockedError: somebody holds its lock for too long.
    """
    findings = examine(folder, lock)
    if not _is_needed(folder, findings):
        return Repaired(findings)
    status = os.stat(folder.path)
    if status.st_uid != os.geteuid():
        refuse_foreign(f"store {folder.path}", folder.path, status)
    try:
        with _alone(folder, lock), Look(folder) as look:
            examined = examine_look(folder, look, clock.now())
            copy = _copy_aside(folder)
            _Repair(folder, look, examined).run(copy)
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
        jobs.unnamed,
        jobs.unreadable,
    )


def _is_needed(folder: StoreFolder, findings: List[Finding]) -> bool:
    is_damaged = any(finding.level == DAMAGE for finding in findings)
    return is_damaged or any(open_to_others(folder, os.listdir(folder.path)))


@contextlib.contextmanager
def _alone(folder: StoreFolder, lock: StoreLock) -> Iterator[None]:
    """Hold every lock of the store; StoreError if somebody works on it."""
    turn = take_liveness(folder.rewrite_lock)
    if turn is None:
        raise StoreError(f"cannot repair {folder.path} while it is rewritten: try again")
    try:
        with lock:
            if Members(folder.workers).living():
                raise StoreError(
                    f"cannot repair {folder.path} while start runs on it: queuectl stop"
                )
            yield
    finally:
        os.close(turn)


def _copy_aside(folder: StoreFolder) -> str:
    """Copy all files but output and what was kept aside before; return where to."""
    path = folder.aside(clock.to_iso(clock.now()))
    part = path + ".part"
    try:
        os.mkdir(part, 0o700)
        _copy_files(folder.path, part)
        if os.path.isdir(folder.workers):
            os.mkdir(os.path.join(part, "workers"), 0o700)
            _copy_files(folder.workers, os.path.join(part, "workers"))
        sync_folder(part)
        os.rename(part, path)
        sync_folder(folder.path)
    except OSError:
        import shutil

        shutil.rmtree(part, ignore_errors=True)
        raise
    return path


def _copy_files(source: str, target: str) -> None:
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        if name.startswith(("torn-", ASIDE)) or name.endswith((".out", ".lock")):
            continue
        if not stat.S_ISREG(os.lstat(path).st_mode):
            continue
        old = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            new = os.open(os.path.join(target, name), flags, 0o600)
            try:
                copy_range(old, new, 0, os.fstat(old).st_size)
                os.fsync(new)
            finally:
                os.close(new)
        finally:
            os.close(old)
    sync_folder(target)


def _make(path: str) -> int:
    """Make a file in the place of what was left there: where others could write, maybe a link."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


class _Repair:
    """One repair, of what was examined."""

    def __init__(self, folder: StoreFolder, look: Look, examined: Examined) -> None:
        self._folder = folder
        self._look = look
        self._survey = examined.survey
        self._jobs = examined.jobs
        self._jobs_are_damaged = examined.jobs_are_damaged or bool(examined.jobs.unnamed)

    def run(self, copy: str) -> None:
        """Repair everything that can be."""
        for path, mode in list(open_to_others(self._folder, os.listdir(self._folder.path))):
            if os.stat(path).st_uid == os.geteuid():
                os.chmod(path, mode & ~0o077)
        self._repair_settings()
        if self._jobs_are_damaged:
            self._replace_job_file()
        for path in list(strangers(self._folder)):
            os.rename(path, os.path.join(copy, "workers", os.path.basename(path)))

    def _repair_settings(self) -> None:
        sound, findings = sound_settings(self._folder)
        if any(finding.level == DAMAGE for finding in findings):
            settings_file.write(self._folder.settings, sound)

    def _replace_job_file(self) -> None:
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
        # Which syncs the folder: the new name is there before the old histories go.
        recovery.note_checked(self._folder, number + 1)
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
        fd = _make(os.path.join(self._folder.path, name))
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
            journal.sync()
        # The history's name must be there when the header is that names it.
        sync_folder(self._folder.path)
        os.rename(new, self._folder.job_file)

    def _lines(self, numbers: array[int]) -> Iterator[bytes]:
        for seq in numbers:
            place = self._survey.places.get(seq)
            if place is not None:
                yield self._survey.line(place) + b"\n"
