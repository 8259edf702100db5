"""Whether what lies in a store's folder is what should be there: its kind, its owner, its mode.

A link is followed, as every command does, but nothing is changed through one.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Iterator, List, Optional, Tuple

from queuectl.errors import StoreError
from queuectl.store.finding import DAMAGE, NOTE, Finding
from queuectl.store.folder import ASIDE, DANGLING, StoreFolder, owner_name

_OURS = re.compile(
    r"jobs\.jsonl(\.new|\.copy)?|jobs\.(lock|boot|boot\.new|unsynced|turn)|rewrite\.lock"
    r"|settings\.json(\.new)?|serve\.token|history-\d+\.jsonl|torn-.*\.jsonl|workers|logs"
    rf"|{re.escape(ASIDE)}.*",
    re.ASCII,
)
_WORKED_IN = re.compile(r"jobs\.(jsonl|lock|boot)|rewrite\.lock|history-\d+\.jsonl", re.ASCII)
_READ = re.compile(r"jobs\.(jsonl|boot)|history-\d+\.jsonl", re.ASCII)
_BITS = (("r", 0o400), ("w", 0o200), ("x", 0o100))
_FOLDERS = ("workers", "logs")
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
}


def look_at_entries(folder: StoreFolder, names: List[str]) -> Iterator[Finding]:
    """Look at the kind, the mode and the owner of everything that a store has names for.

    Args:
        folder: the store's folder.
        names: what is in it.
    """
    for path in ours(folder, names):
        wrong = misplaced(path)
        if wrong is not None:
            yield Finding(DAMAGE, path, None, wrong)
        elif os.path.islink(path):
            target, message = os.stat(path), f"it is a link to {os.path.realpath(path)}"
            if target.st_uid != os.geteuid() or target.st_mode & 0o022:
                yield Finding(DAMAGE, path, None, f"{message}, which others can write")
            else:
                yield Finding(NOTE, path, None, message)
    for path, mode in open_to_others(folder, names):
        level, what = (DAMAGE, "written") if mode & 0o022 else (NOTE, "read")
        yield Finding(level, path, None, f"it can be {what} by others: its mode is {mode:04o}")
    for path, mode, advice in too_narrow(folder, names):
        # Root may do what no mode allows.
        level = NOTE if may_work_with(path, mode) else DAMAGE
        yield Finding(level, path, None, f"its owner cannot work with it: {advice}")
    for path in ours(folder, names):
        status = status_of(path)
        if status is not None and status.st_uid != os.geteuid():
            yield Finding(DAMAGE, path, None, f"it belongs to {owner_name(status.st_uid)}")


def misplaced(path: str) -> Optional[str]:
    """Say in words that what lies at a path of the store's is not of the kind that it expects."""
    name = os.path.basename(path)
    if _OURS.fullmatch(name) is None or name.startswith(ASIDE):
        return None
    wanted = "folder" if name in _FOLDERS else "file"
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "device")
    except FileNotFoundError:
        return DANGLING if os.path.islink(path) else None
    except OSError as error:
        return f"it cannot be followed: {error.strerror}"
    return None if kind == wanted else f"it is a {kind}, not a {wanted}"


def open_to_others(folder: StoreFolder, names: List[str]) -> Iterator[Tuple[str, int]]:
    """Yield what others may read or write, with its mode; links are none of ours."""
    for path in ours(folder, names):
        status = status_of(path)
        if status is not None and not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o077:
            yield path, stat.S_IMODE(status.st_mode)


def too_narrow(folder: StoreFolder, names: List[str]) -> Iterator[Tuple[str, int, str]]:
    """Yield what its owner's mode keeps him from working with.

    Each with the bits that are needed, and the command that gives them.
    """
    parts = [os.path.join(folder.logs, part) for part in listed(folder.logs)]
    for path in [*ours(folder, names), *parts]:
        status, name = status_of(path), os.path.basename(path)
        if status is None or status.st_uid != os.geteuid():
            continue
        if stat.S_ISDIR(status.st_mode) and not name.startswith(ASIDE):
            needed = 0o700
        elif stat.S_ISREG(status.st_mode):
            needed = 0o600 if _WORKED_IN.fullmatch(name) else 0o400 * (name == "settings.json")
        else:
            continue
        if needed & ~status.st_mode:
            given = "".join(letter for letter, bit in _BITS if needed & bit)
            yield path, needed, f"chmod u+{given} {path}"


def refuse_unreadable(folder: StoreFolder) -> None:
    """Raise StoreError, with what helps, if the modes of a store keep it from being examined."""
    for path, mode, advice in too_narrow(folder, listed(folder.path)):
        is_needed = path == folder.path or _READ.fullmatch(os.path.basename(path)) is not None
        if is_needed and not may_work_with(path, mode & 0o500):
            raise StoreError(f"cannot read {path}: Permission denied: {advice}")


def may_work_with(path: str, mode: int) -> bool:
    """Whether the caller may do with a file or folder what such a mode lets its owner do."""
    return os.access(path, mode >> 6)


def is_ours(name: str) -> bool:
    """Whether a store has a name like this for something."""
    return _OURS.fullmatch(name) is not None


def holds_jobs(path: str) -> bool:
    """Whether a path is that of a job file or of a history."""
    name = os.path.basename(path)
    return _READ.fullmatch(name) is not None and name != "jobs.boot"


def ours(folder: StoreFolder, names: List[str]) -> List[str]:
    """The paths of the folder, and of what it holds that a store has a name for."""
    found = [os.path.join(folder.path, name) for name in names if _OURS.fullmatch(name)]
    return [folder.path, *found]


def listed(path: str) -> List[str]:
    """What is in a folder; nothing where that cannot be told."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def status_of(path: str) -> Optional[os.stat_result]:
    """What the system knows of a path, itself if it is a link; nothing if it is gone."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
