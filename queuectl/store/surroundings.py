"""What lies beside the job file: settings, workers, output, modes, and what changes left behind."""

from __future__ import annotations

import os
import re
import stat
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from queuectl.config import SETTINGS
from queuectl.errors import DamagedError, InvalidValueError, StoreError
from queuectl.store import settings_file
from queuectl.store.folder import ASIDE, StoreFolder, owner_name
from queuectl.store.inventory import Inventory
from queuectl.store.lock import is_held
from queuectl.store.look import Look
from queuectl.store.members import Members

DAMAGE, NOTE = "damage", "note"

_OURS = re.compile(
    r"jobs\.jsonl(\.new|\.copy)?|jobs\.(lock|boot|boot\.new|unsynced)|rewrite\.lock"
    r"|settings\.json(\.new)?|history-\d+\.jsonl|torn-.*\.jsonl|workers|logs"
    rf"|{re.escape(ASIDE)}.*",
    re.ASCII,
)
_UNFINISHED = ("jobs.jsonl.new", "jobs.jsonl.copy", "jobs.boot.new", "settings.json.new")
_KINDS = {"json": stat.S_ISREG, "lock": stat.S_ISREG, "out": stat.S_ISREG, "wake": stat.S_ISFIFO}
_LOG = re.compile(r"([A-Za-z0-9._-]{1,64})\.(\d+)\.log", re.ASCII)


class Finding(NamedTuple):
    """Something about a store that somebody who looks after it should know.

    Attributes:
        level: `damage`, which stops commands or has cost something; or `note`, which needs nobody.
        file: which file or folder it is about.
        offset: where in it, in bytes, if it is about a place.
        message: what it is, in words.
        ids: the jobs that it concerns, as far as they are known.
    """

    level: str
    file: str
    offset: Optional[int]
    message: str
    ids: Tuple[str, ...] = ()


def look_around(folder: StoreFolder, look: Look, jobs: Inventory, now: float) -> List[Finding]:
    """Look at everything but the jobs themselves.

    Args:
        folder: the store's folder.
        look: its files.
        jobs: the jobs in it.
        now: when they were looked at, in seconds since the epoch.
    """
    return [
        *_modes(folder, look.names),
        *_settings(folder),
        *_workers(folder, jobs),
        *_leftovers(folder, look),
        *_orphans(folder, jobs, now),
    ]


def open_to_others(folder: StoreFolder, names: List[str]) -> Iterator[Tuple[str, int]]:
    """Yield what others may read or write, with its mode; links are none of ours."""
    for path in _ours(folder, names):
        status = _status(path)
        if status is not None and not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o077:
            yield path, stat.S_IMODE(status.st_mode)


def sound_settings(folder: StoreFolder) -> Tuple[Dict[str, str], List[Finding]]:
    """Return the stored settings that can be used, and what is wrong with the others."""
    path = folder.settings
    try:
        stored = settings_file.read(path)
    except DamagedError as error:
        return {}, [Finding(DAMAGE, path, error.offset, error.reason)]
    except StoreError:
        # Whose it is, and who may write it, is told by its mode.
        return {}, []
    sound, findings = {}, []
    for name, text in stored.items():
        if name not in SETTINGS:
            findings.append(Finding(NOTE, path, None, f"unknown setting {name}"))
        else:
            try:
                SETTINGS[name].read(text)
            except InvalidValueError as error:
                findings.append(Finding(DAMAGE, path, None, str(error)))
                continue
        sound[name] = text
    return sound, findings


def strangers(folder: StoreFolder) -> Iterator[str]:
    """Yield what is in `workers/` but is no file of a worker of ours."""
    for name in _listed(folder.workers):
        path = os.path.join(folder.workers, name)
        status = _status(path)
        if status is not None:
            kind = _KINDS.get(name.rpartition(".")[2])
            if kind is None or not kind(status.st_mode) or status.st_uid != os.geteuid():
                yield path


def _modes(folder: StoreFolder, names: List[str]) -> Iterator[Finding]:
    for path, mode in open_to_others(folder, names):
        level, what = (DAMAGE, "written") if mode & 0o022 else (NOTE, "read")
        yield Finding(level, path, None, f"it can be {what} by others: its mode is {mode:04o}")
    for path in _ours(folder, names):
        status = _status(path)
        if status is not None and status.st_uid != os.geteuid():
            yield Finding(DAMAGE, path, None, f"it belongs to {owner_name(status.st_uid)}")


def _settings(folder: StoreFolder) -> List[Finding]:
    return sound_settings(folder)[1]


def _workers(folder: StoreFolder, jobs: Inventory) -> Iterator[Finding]:
    foreign = set(strangers(folder))
    for path in sorted(foreign):
        yield Finding(DAMAGE, path, None, "it is no file of a worker")
    ids = {
        name.rpartition(".")[0]
        for name in _listed(folder.workers)
        if os.path.join(folder.workers, name) not in foreign
    }
    alive = {each for each in ids if _is_alive(os.path.join(folder.workers, f"{each}.lock"))}
    if ids - alive:
        what = "a dead worker" if len(ids - alive) == 1 else f"{len(ids - alive)} dead workers"
        message = f"files of {what}: the next start clears them"
        yield Finding(NOTE, folder.workers, None, message)
    members = Members(folder.workers)
    supervised = any(member.role == "supervisor" for member in map(members.read, alive) if member)
    left = tuple(job_id for job_id, worker in jobs.running if worker not in alive)
    if left and not supervised:
        message = f"{count(len(left), 'job')} of dead workers: the next start rescues them"
        yield Finding(NOTE, folder.job_file, None, message, left)


def _leftovers(folder: StoreFolder, look: Look) -> Iterator[Finding]:
    def note(name: str, message: str) -> Finding:
        return Finding(NOTE, os.path.join(folder.path, name), None, message)

    for name in look.names:
        if name.startswith(("torn-", ASIDE)):
            yield note(name, "kept aside; nothing needs it")
        elif name in _UNFINISHED and not look.is_rewriting:
            yield note(name, "left by a change that did not end")
    if os.path.basename(folder.unsynced) in look.names:
        message = "the disk did not confirm a change: the next writer copies the job file"
        yield note(os.path.basename(folder.unsynced), message)
    if look.header_is_right and not look.is_rewriting:
        yield from _history_leftovers(folder, look)


def _history_leftovers(folder: StoreFolder, look: Look) -> Iterator[Finding]:
    current = look.header["history"]
    for name in look.names:
        if name.startswith("history-") and (current is None or name != current["file"]):
            message = "no history of this job file: the next rewrite removes it"
            yield Finding(NOTE, os.path.join(folder.path, name), None, message)
    for history in look.histories:
        more = os.fstat(history.fd).st_size - history.length if history.fd >= 0 else 0
        if more > 0:
            message = f"{more} bytes of an unfinished rewrite, which count for nothing"
            yield Finding(NOTE, history.path, history.length, message)


def _orphans(folder: StoreFolder, jobs: Inventory, now: float) -> Iterator[Finding]:
    number = 0
    ids: Dict[str, None] = {}
    for part in _listed(folder.logs):
        path = os.path.join(folder.logs, part)
        for name in _listed(path):
            match = _LOG.fullmatch(name)
            if match is not None and not jobs.has(match[1]):
                status = _status(os.path.join(path, name))
                # What was written since may be that of a job which came since.
                if status is not None and status.st_mtime < now:
                    number += 1
                    ids[match[1]] = None
    if number:
        message = f"{count(number, 'file')} of output of jobs that are no longer there"
        yield Finding(NOTE, folder.logs, None, message, tuple(ids))


def count(number: int, noun: str) -> str:
    """Write how many there are of something: `1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ours(folder: StoreFolder, names: List[str]) -> List[str]:
    ours = [os.path.join(folder.path, name) for name in names if _OURS.fullmatch(name)]
    return [folder.path, *ours]


def _listed(path: str) -> List[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _status(path: str) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _is_alive(lock: str) -> bool:
    try:
        return is_held(lock)
    except OSError:
        # It cannot be asked; then nobody is called dead.
        return True
