"""What a loss of power or a failing disk leaves of a job file, and what vouches for the rest.

    jobs.boot       the boot of the machine in which the file was checked last, and the number of
                    the last commit that the disk was known to hold
    jobs.unsynced   is there if the disk refused to confirm what it was given

A loss of power may leave holes in what was not yet synced. So in each boot the first writer checks
the whole file, and takes everything from the first bad byte on for a torn tail; but only behind the
last commit that the disk was known to hold: that was acknowledged, so a bad byte before it is
damage. The note of it is not synced itself: an older one says less, and what it says is still true.

A failed fsync means that the kernel may have dropped what it was given, and that a second one would
succeed without meaning anything: so the next writer copies the file to a new one, and until then no
fsync counts, whoever asked for it. The mark of it is not synced: after a loss of power nobody shows
any more what the disk does not hold, and the check of that boot finds it missing.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Callable, NamedTuple, Optional

from queuectl import machine
from queuectl.errors import DamagedError
from queuectl.store.disk import (
    copy_range,
    failure,
    open_file,
    replace_file,
    sync_data,
    sync_folder,
)
from queuectl.store.folder import StoreFolder
from queuectl.store.journal import REASON, Commit, Journal

Cut = Callable[[Journal, str], None]
"""Cuts what follows the last commit, which is put into words."""

_NOTE = re.compile(rb"([0-9a-zA-Z-]{1,64}) (\d{16,18})\n")
_NOTE_SIZE = 128
MISSING = "what follows up to commit {} is missing"
_LOST = "an end that the disk did not hold"


class Note(NamedTuple):
    """The boot in which the file was checked, and the last commit that the disk held then."""

    boot: str
    commit: int


def checked_up_to(folder: StoreFolder) -> Optional[int]:
    """The last commit that the disk was known to hold, if the file was checked in this boot.

    Raises:
        StoreError: that cannot be found out.
    """
    note = read_note(folder)
    return None if note is None or note.boot != machine.boot_id() else note.commit


def missing(path: str, end: int, commit: int) -> DamagedError:
    """Put into words that commits which the disk held do not follow the last one."""
    return DamagedError(path, end, MISSING.format(commit))


def cut_lost(folder: StoreFolder, journal: Journal, cut: Cut) -> Optional[Commit]:
    """Under the lock, cut off what a loss of power or a failing disk spoiled.

    Returns:
        The commit that is the last one now; nothing if nothing had to be cut.

    Raises:
        DamagedError: what is spoiled had been acknowledged.
    """
    good = journal.last_good()
    if good is None:
        raise DamagedError(journal.path, journal.header_end, "there is no whole commit")
    size = os.fstat(journal.fd).st_size
    note = read_note(folder)
    if good.end == size:
        if note is not None and good.number < note.commit:
            raise missing(journal.path, good.end, note.commit)
        return None
    # Without a note nobody knows what the disk held: then what is whole must be.
    if good.number < (journal.tail().number if note is None else note.commit):
        raise DamagedError(journal.path, good.end, REASON)
    journal.go_to(good)
    cut(journal, _LOST)
    return good


def note_checked(folder: StoreFolder, commit: int) -> None:
    """Note, for good, that the file was checked in this boot, and that the disk holds it.

    Args:
        folder: whose.
        commit: the number of the last commit that the disk holds.
    """
    replace_file(folder.boot, _text(commit))


def note_synced(folder: StoreFolder, commit: int) -> None:
    """Note that the disk holds this commit, in a boot in which the file was checked already."""
    # Without the note the commit is as safe; only what is damaged might pass for torn.
    with contextlib.suppress(OSError):
        fd = os.open(folder.boot, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.pwrite(fd, _text(commit), 0)
        finally:
            os.close(fd)


def mark_unsynced(folder: StoreFolder) -> None:
    """Tell the next writer that the disk may not hold what it was given."""
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(folder.unsynced, flags, 0o600))


def is_unsynced(folder: StoreFolder) -> bool:
    """Whether `mark_unsynced` left its mark."""
    return os.access(folder.unsynced, os.F_OK)


def replace_unsynced(folder: StoreFolder, journal: Journal, cut: Cut) -> None:
    """Under the lock, copy the file to a new one, which the disk has never refused anything of."""
    cut_lost(folder, journal, cut)
    try:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(folder.copied, flags, 0o600)
            try:
                copy_range(journal.fd, fd, 0, os.fstat(journal.fd).st_size)
                sync_data(fd)
            finally:
                os.close(fd)
            os.rename(folder.copied, folder.job_file)
        except OSError:
            # On a disk that was full before, it must not take what little room there is.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(folder.copied)
            raise
        sync_folder(folder.path)
        os.unlink(folder.unsynced)
    except OSError as error:
        raise failure("replace", folder.job_file, error) from error


def read_note(folder: StoreFolder) -> Optional[Note]:
    """Read what `note_checked` and `note_synced` wrote; StoreError if that cannot be read."""
    try:
        with open(open_file(folder.boot, os.O_RDONLY), "rb") as file:
            words = _NOTE.fullmatch(file.read(_NOTE_SIZE))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure("read", folder.boot, error) from error
    # One that is spoiled is none: it must not vouch for less than what is there.
    return None if words is None else Note(words[1].decode(), int(words[2]))


def _text(commit: int) -> bytes:
    # Always of one length, so that it can be written in place.
    return f"{machine.boot_id()} {commit:016d}\n".encode("ascii")
