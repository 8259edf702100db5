"""Making a file store where there is none, and refusing to where one seems to have been damaged.

A store exists once its job file does, which appears under its name as a whole. So a crash in the
middle leaves either no store or a new one; and a folder that holds anything else of a store but no
job file has lost it.
"""

from __future__ import annotations

import os
import stat
import uuid
from zlib import crc32

from queuectl import clock
from queuectl.errors import DamagedError, NoStoreError, StoreError
from queuectl.store import recovery
from queuectl.store.base import Notice
from queuectl.store.disk import replace_file
from queuectl.store.folder import StoreFolder, refuse_dangling, refuse_foreign
from queuectl.store.journal import commit_line, header_line
from queuectl.store.lock import StoreLock

EMPTY_COUNTS = {
    "pending": 0,
    "processing": 0,
    "completed": 0,
    "failed": 0,
    "dead": 0,
    "cancelled": 0,
    "delayed": 0,
}


def open_folder(folder: StoreFolder, lock: StoreLock, create: bool, notice: Notice) -> None:
    """Make sure that there is a store in the folder which may be used.

    Args:
        folder: where.
        lock: its lock.
        create: whether to make one.
        notice: told if one was made.

    Raises:
        NoStoreError: there is none, and none is to be made.
        StoreError: it may not be used, or cannot be made.
        DamagedError: its job file is missing.
    """
    try:
        folder.check_trust()
        if _holds_store(folder):
            refuse_dangling(folder.settings)
            return
    except FileNotFoundError:
        pass
    if not create:
        raise NoStoreError(folder.path)
    folder.make()
    try:
        folder.check_trust()
    except FileNotFoundError as error:
        raise StoreError(f"cannot make the store {folder.path}: {error.strerror}") from error
    with lock:
        if _holds_store(folder):
            return
        # Whoever made the folder may have died before the disk held it.
        folder.sync_names()
        _make(folder)
    notice(f"created store {folder.path}")


def _holds_store(folder: StoreFolder) -> bool:
    """Tell whether there is a store in the folder; DamagedError if there are but remains of one."""
    if _is_there(folder):
        return True
    try:
        remains = folder.has_remains()
    except PermissionError as error:
        raise StoreError(f"cannot open the store {folder.path}: {error.strerror}") from error
    # The job file comes first: what was found may belong to a store made since we looked for it.
    if _is_there(folder):
        return True
    if remains is not None:
        raise DamagedError(folder.job_file, 0, f"the job file is missing beside {remains}")
    return False


def _is_there(folder: StoreFolder) -> bool:
    try:
        status = os.stat(folder.job_file)
    except FileNotFoundError:
        refuse_dangling(folder.job_file)
        return False
    except OSError as error:
        raise StoreError(f"cannot open the store {folder.path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        # Whoever opened a named pipe would wait for ever.
        raise StoreError(f"cannot open {folder.job_file}: it is not a file")
    refuse_foreign(folder.job_file, folder.job_file, status)
    return True


def _make(folder: StoreFolder) -> None:
    header = header_line(
        {
            "store": uuid.uuid4().hex,
            "created_at": clock.to_iso(clock.now()),
            "history": None,
            "totals": {"enqueued": 0, "purged": 0},
        }
    )
    meta = {
        "seq": 0,
        "front": 0,
        "news": 0,
        "purged": 0,
        "done": 0,
        "bound": 0,
        "lines": 0,
        "counts": EMPTY_COUNTS,
        "running": {},
        "lifetime": {},
    }
    replace_file(folder.job_file, header + commit_line(0, meta, crc32(header)))
    recovery.note_checked(folder, 0)
