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
from typing import Iterator, List, NamedTuple, Optional, Sequence

from queuectl import clock
from queuectl.errors import OutcomeUnknownError, StoreError, StoreFullError
from queuectl.store import settings_file
from queuectl.store.aside import copy_aside, remove_all
from queuectl.store.disk import failure
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
from queuectl.store.lock import StoreLock, take_liveness
from queuectl.store.look import Look, look_at
from queuectl.store.rebuild import Rebuild
from queuectl.store.surroundings import living_workers, sound_settings, strangers


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


class _Repair:
    """One repair, of what was examined."""

    def __init__(self, folder: StoreFolder, look: Look, examined: Examined, copy: str) -> None:
        self._folder = folder
        self._copy = copy
        self._jobs_are_damaged = examined.jobs_are_damaged or bool(examined.jobs.unnamed)
        self._rebuild = Rebuild(folder, look, examined.survey, examined.jobs)

    def run(self) -> None:
        """Repair everything that can be; where there is no room for that, change nothing."""
        try:
            if self._jobs_are_damaged:
                self._rebuild.prepare()
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
        if self._jobs_are_damaged:
            try:
                self._rebuild.put_in_place()
            except StoreFullError as error:
                raise StoreError(
                    f"no room for {self._folder.boot}; the job file is repaired, "
                    f"and as it was in {self._copy}"
                ) from error

    def _undo(self) -> None:
        """Take away everything that was made, so that there is as much room as before."""
        remove_all(self._copy)
        self._rebuild.undo()

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
