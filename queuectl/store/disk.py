"""What the store asks of the disk: to hold what it was given, or to say why it does not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from typing import Union

from queuectl.errors import OutcomeUnknownError, StoreError, StoreFullError

Mapped = Union[mmap.mmap, bytes]

_CHUNK = 1 << 20


def open_file(path: str, flags: int) -> int:
    """Open a file that is there; OSError if that cannot be, StoreError if it is no file."""
    try:
        # Whoever opened a named pipe would wait for ever.
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.EISDIR):
            raise
    else:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
    raise StoreError(f"cannot open {path}: it is not a file")


def copy_range(source: int, target: int, start: int, stop: int) -> None:
    """Copy bytes from one file to the end of what was written of another.

    Args:
        source: a descriptor to read from.
        target: a descriptor to write to, at its position.
        start: the first byte.
        stop: the offset behind the last one.

    Raises:
        OSError: reading or writing failed.
    """
    while start < stop:
        data = os.pread(source, min(_CHUNK, stop - start), start)
        if not data:
            raise OSError(errno.EIO, "the file is shorter than it was")
        start += len(data)
        write_all(target, data)


def write_all(fd: int, data: bytes) -> None:
    """Write bytes to a file, at its position; OSError if that cannot be."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def map_file(fd: int, length: int, path: str) -> Mapped:
    """Let the first bytes of an open file be read as if they were in memory; StoreError if not."""
    try:
        return mmap.mmap(fd, length, access=mmap.ACCESS_READ) if length else b""
    except OSError as error:
        raise failure("read", path, error) from error


def sync_data(fd: int) -> None:
    """Wait until the disk holds a file's bytes and length; OSError if it does not say so."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        # On macOS fsync stops at the drive's own cache.
        fcntl.fcntl(fd, full_sync)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_folder(path: str) -> None:
    """Wait until the disk holds the names in a folder; OSError if it does not say so."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def failure(action: str, path: str, error: OSError) -> Exception:
    """Put what the system said about a file into words.

    Returns:
        A StoreFullError if there is no room, a FileNotFoundError if the file is gone, else a
        StoreError.
    """
    if error.errno == errno.ENOENT:
        return FileNotFoundError(error.errno, error.strerror, path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFullError(f"cannot {action} {path}: {error.strerror}; nothing was changed")
    return StoreError(f"cannot {action} {path}: {error.strerror}")


def unconfirmed(path: str, error: OSError) -> OutcomeUnknownError:
    """Put into words that the disk does not say whether it holds what it was given."""
    return OutcomeUnknownError(
        "the disk did not confirm the change, so its outcome is unknown: "
        f"{path}: {error.strerror}"
    )


def replace_file(path: str, data: bytes) -> None:
    """Put a file in the place of another, so that a crash leaves one or the other, whole.

    Raises:
        OutcomeUnknownError: the new one is there, but may not be after a loss of power.
        StoreError: it cannot be written; the old one is still there.
    """
    new = path + ".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(new, flags, 0o600)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(new, path)
    except OSError as error:
        # On a disk that was full before, it must not take what little room there is.
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise failure("write", path, error) from error
    try:
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise unconfirmed(path, error) from error
