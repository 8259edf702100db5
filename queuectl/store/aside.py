"""The copy of a store that a repair lays aside before it changes anything.

It has its name only when the disk holds all of it.
"""

from __future__ import annotations

import os

from queuectl import clock
from queuectl.store.disk import copy_range, open_file, sync_folder
from queuectl.store.entries import is_ours
from queuectl.store.folder import ASIDE, StoreFolder


def copy_aside(folder: StoreFolder) -> str:
    """Copy all files but output and what was kept aside before; return where to.

    Raises:
        OSError: it cannot be copied; nothing of the copy is left.
    """
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
        remove_all(part, path)
        raise
    return path


def _copy_files(source: str, target: str) -> None:
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        if name.startswith(("torn-", ASIDE)) or name.endswith((".out", ".lock")):
            continue
        if not os.path.isfile(path) or (os.path.islink(path) and not is_ours(name)):
            continue
        old = open_file(path, os.O_RDONLY)
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


def remove_all(*folders: str) -> None:
    """Remove folders with all that is in them, as far as they are there."""
    import shutil

    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
