"""What lies beside the job file: settings, workers, output, modes, and what changes left behind."""

from __future__ import annotations

import os
import re
import stat
from typing import Dict, Iterator, List, Set, Tuple

from queuectl.config import SETTINGS
from queuectl.errors import DamagedError, InvalidValueError, StoreError
from queuectl.queues import is_rule, read_rules
from queuectl.store import settings_file
from queuectl.store.entries import listed, look_at_entries, misplaced, status_of
from queuectl.store.finding import DAMAGE, NOTE, Finding, count
from queuectl.store.folder import ASIDE, StoreFolder
from queuectl.store.inventory import Inventory
from queuectl.store.lock import is_held
from queuectl.store.look import Look
from queuectl.store.members import Members

_UNFINISHED = ("jobs.jsonl.new", "jobs.jsonl.copy", "jobs.boot.new", "settings.json.new")
_KINDS = {"json": stat.S_ISREG, "lock": stat.S_ISREG, "out": stat.S_ISREG, "wake": stat.S_ISFIFO}
_LOG = re.compile(r"([A-Za-z0-9._-]{1,64})\.(\d+)\.log", re.ASCII)


def look_around(folder: StoreFolder, look: Look, jobs: Inventory, now: float) -> List[Finding]:
    """Look at everything but the jobs themselves.

    Args:
        folder: the store's folder.
        look: its files.
        jobs: the jobs in it.
        now: when they were looked at, in seconds since the epoch.
    """
    return [
        *look_at_entries(folder, look.names),
        *_settings(folder),
        *_workers(folder, jobs),
        *_leftovers(folder, look),
        *_orphans(folder, jobs, now),
    ]


def sound_settings(folder: StoreFolder) -> Tuple[Dict[str, str], List[Finding]]:
    """Return the stored settings that can be used, and what is wrong with the others."""
    path = folder.settings
    if misplaced(path) is not None:
        return {}, []
    try:
        stored = settings_file.read(path)
    except DamagedError as error:
        return {}, [Finding(DAMAGE, path, error.offset, error.reason)]
    except StoreError:
        # Whose it is, and who may write it, is told by its mode.
        return {}, []
    sound, findings = {}, []
    for name, text in stored.items():
        if is_rule(name):
            try:
                read_rules({name: text})
            except InvalidValueError as error:
                findings.append(Finding(DAMAGE, path, None, str(error)))
                continue
        elif name not in SETTINGS:
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
    for name in listed(folder.workers):
        path = os.path.join(folder.workers, name)
        status = status_of(path)
        if status is not None:
            kind = _KINDS.get(name.rpartition(".")[2])
            if kind is None or not kind(status.st_mode) or status.st_uid != os.geteuid():
                yield path


def living_workers(folder: StoreFolder) -> Set[str]:
    """The ids of all whose lock in `workers/` is held, or cannot be asked about."""
    names = [name for name in listed(folder.workers) if name.endswith(".lock")]
    return {
        name[: -len(".lock")] for name in names if _is_alive(os.path.join(folder.workers, name))
    }


def _settings(folder: StoreFolder) -> List[Finding]:
    return sound_settings(folder)[1]


def _workers(folder: StoreFolder, jobs: Inventory) -> Iterator[Finding]:
    foreign = set(strangers(folder))
    for path in sorted(foreign):
        yield Finding(DAMAGE, path, None, "it is no file of a worker")
    ids = {
        name.rpartition(".")[0]
        for name in listed(folder.workers)
        if os.path.join(folder.workers, name) not in foreign
    }
    alive = living_workers(folder)
    if ids - alive:
        what = "a dead worker" if len(ids - alive) == 1 else f"{len(ids - alive)} dead workers"
        message = f"files of {what}: the next start clears them"
        yield Finding(NOTE, folder.workers, None, message)
    members = Members(folder.workers)
    told = (members.read(each) for each in alive if members.path(each, "json") not in foreign)
    supervised = any(member.role == "supervisor" for member in told if member)
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
    for part in listed(folder.logs):
        path = os.path.join(folder.logs, part)
        for name in listed(path):
            match = _LOG.fullmatch(name)
            if match is not None and not jobs.has(match[1]):
                status = status_of(os.path.join(path, name))
                # What was written since may be that of a job which came since.
                if status is not None and status.st_mtime < now:
                    number += 1
                    ids[match[1]] = None
    if number:
        message = f"{count(number, 'file')} of output of jobs that are no longer there"
        yield Finding(NOTE, folder.logs, None, message, tuple(ids))


def _is_alive(lock: str) -> bool:
    try:
        return os.path.isfile(lock) and is_held(lock)
    except OSError:
        # It cannot be asked; then nobody is called dead.
        return True
