"""The folder of a file store: where it is, what is in it, and whether it may be trusted.

Commands run what the store says, so a store that somebody else could have written is refused: the
folder, the job file and the settings must belong to the caller, and nobody else may write to them.
Everything in it is made 0600 or 0700 when it is opened, never by a umask, which the jobs would
inherit.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Iterable, List, NamedTuple, Optional
from zlib import crc32

from queuectl.errors import DamagedError, StoreError

NAME = "queuectl_data"
ASIDE = "before-repair-"
DANGLING = "it is a link to what is not there"


def find_folder(start: str, home: str) -> str:
    """Choose the nearest `queuectl_data` from `start` upward.

    The search ends at `home`, at the border of the file system, and at a folder of another owner.

    Args:
        start: the absolute path of the current folder.
        home: the user's home folder.

    Returns:
        An absolute path; that of `queuectl_data` in `start` if there is none yet.
    """
    here = os.stat(start)
    folder = start
    while True:
        path = os.path.join(folder, NAME)
        if os.path.isdir(path):
            return path
        parent = os.path.dirname(folder)
        if parent == folder or os.path.realpath(folder) == os.path.realpath(home):
            break
        above = os.stat(parent)
        if above.st_dev != here.st_dev or above.st_uid != here.st_uid:
            break
        folder = parent
    return os.path.join(start, NAME)


class Log(NamedTuple):
    """Kept output of a run: when it was last written to, in nanoseconds, its size, and whose."""

    changed: int
    size: int
    job_id: str
    run: int


class StoreFolder:
    """The paths of a file store.

    Args:
        path: the folder, absolute.
    """

    def __init__(self, path: str) -> None:
        # What comes before a closing slash would be taken for the folder above.
        self.path = path = path.rstrip("/") or "/"
        self.job_file = os.path.join(path, "jobs.jsonl")
        self.lock = os.path.join(path, "jobs.lock")
        self.settings = os.path.join(path, "settings.json")
        self.workers = os.path.join(path, "workers")
        self.logs = os.path.join(path, "logs")
        self.boot = os.path.join(path, "jobs.boot")
        self.unsynced = os.path.join(path, "jobs.unsynced")
        self.turn = os.path.join(path, "jobs.turn")
        self.rewrite_lock = os.path.join(path, "rewrite.lock")
        self.copied = os.path.join(path, "jobs.jsonl.copy")
        self.rewritten = os.path.join(path, "jobs.jsonl.new")

    def history(self, generation: int) -> str:
        """The name of a generation's history file, within the folder."""
        return f"history-{generation}.jsonl"

    def log(self, job_id: str, run: int) -> str:
        """Where the output of a run is kept.

        Spread over 256 folders, so that none grows too large.
        """
        return f"{self.logs}/{crc32(job_id.encode()) & 0xFF:02x}/{job_id}.{run}.log"

    def drop_logs(self, job_ids: Iterable[str]) -> None:
        """Remove all output that is kept of some jobs; each folder is listed once.

        Raises:
            StoreError: it cannot be removed.
        """
        dropped = set(job_ids)
        for folder in sorted({os.path.dirname(self.log(job_id, 0)) for job_id in dropped}):
            try:
                for name in os.listdir(folder):
                    job_id, _, run = name[: -len(".log")].rpartition(".")
                    if job_id in dropped and run.isdigit():
                        os.unlink(os.path.join(folder, name))
            except FileNotFoundError:
                pass
            except OSError as error:
                raise StoreError(f"cannot remove output in {folder}: {error.strerror}") from error

    def kept_logs(self) -> List[Log]:
        """Find all output that is kept, in one walk.

        Raises:
            StoreError: it cannot be looked at.
        """
        found: List[Log] = []
        try:
            for part in os.scandir(self.logs):
                for entry in os.scandir(part.path) if part.is_dir(follow_symlinks=False) else ():
                    job_id, _, run = entry.name[: -len(".log")].rpartition(".")
                    if entry.name.endswith(".log") and run.isdigit():
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            size, changed = status.st_size, status.st_mtime_ns
                            found.append(Log(changed, size, job_id, int(run)))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(f"cannot look through {self.logs}: {error.strerror}") from error
        return found

    def torn(self, moment: str) -> str:
        """A name, not used yet, for the file that keeps what is cut off the job file."""
        base = os.path.join(self.path, f"torn-{moment.replace(':', '')}")
        path, number = f"{base}.jsonl", 1
        while os.path.exists(path):
            number += 1
            path = f"{base}-{number}.jsonl"
        return path

    def aside(self, moment: str) -> str:
        """Where a repair puts a copy of the store: in it, where nobody else may look either."""
        return os.path.join(self.path, f"{ASIDE}{moment.replace(':', '')}")

    def has_remains(self) -> Optional[str]:
        """Name a file that only a store has, if the folder holds one beside the job file."""
        for name in sorted(os.listdir(self.path)):
            if name in ("settings.json", "workers", "logs", "jobs.boot") or name.startswith(
                "history-"
            ):
                return name
        return None

    def sync_names(self) -> None:
        """Wait until the disk holds the folder's name, and those above it; StoreError if it fails.

        Those above may be new too: all are looked at that are the caller's on this file system.
        """
        here = above = os.stat(self.path)
        folder = self.path
        # The first that is another's was not made here, but may hold what was.
        while folder != "/" and (above.st_dev, above.st_uid) == (here.st_dev, here.st_uid):
            folder = os.path.dirname(folder)
            self._sync_name(folder)
            above = os.stat(folder)

    def _sync_name(self, folder: str) -> None:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            # It may be passed through but not read; then there is no way to ask.
            return
        try:
            os.fsync(fd)
        except OSError as error:
            raise StoreError(f"cannot make the store {self.path}: {error.strerror}") from error
        finally:
            os.close(fd)

    def check_trust(self) -> None:
        """Refuse a folder that others own or can write.

        Raises:
            FileNotFoundError: there is no such folder.
            StoreError: it is not a folder, or not the caller's alone.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"cannot open the store {self.path}: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise StoreError(f"cannot open the store {self.path}: it is not a folder")
        refuse_foreign(f"store {self.path}", self.path, status)

    def make(self) -> None:
        """Make the folder where it is missing.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreError(f"cannot make the store {self.path}: {error.strerror}") from error


def refuse_foreign(what: str, path: str, status: os.stat_result) -> None:
    """Raise StoreError if a file or folder is another user's, or others can write to it."""
    if status.st_uid != os.geteuid():
        raise StoreError(f"{what} belongs to {owner_name(status.st_uid)}: use your own")
    if status.st_mode & 0o022:
        raise StoreError(f"{what} can be written by others: chmod go-w {path}")


def refuse_dangling(path: str) -> None:
    """Raise DamagedError if a path is that of a link to nothing: what it led to is missed."""
    if os.path.islink(path) and not os.path.exists(path):
        raise DamagedError(path, 0, DANGLING)


def owner_name(uid: int) -> str:
    """The name of a user."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
