"""Rewriting the job file: what is superseded is left out, what is completed moves to the history.

Completed jobs are the only ones that nothing happens to any more, so the history is only ever added
to. The new job file is filled beside the old one without the lock, while others go on; only the
last few lines are copied under it.
The new header names the history and its length, so the rename is the one commit point: before it,
what was added to the history lies beyond the length that counts, and is cut at the next attempt;
after it, the old file is gone.
"""

from __future__ import annotations

import contextlib
import os
from itertools import chain
from typing import Any, Callable, Dict, Iterator, List, Optional
from zlib import crc32

from queuectl.errors import StoreGoneError
from queuectl.job import JobState
from queuectl.store.disk import failure, sync_data, sync_folder, write_all
from queuectl.store.folder import StoreFolder
from queuectl.store.journal import Commit, Journal, header_line, lines_between
from queuectl.store.lock import StoreLock, take_liveness
from queuectl.store.snapshot import Snapshot

_LEAST = 100_000
_LITTLE = 1 << 16
_BATCH = 1 << 20


def is_worthwhile(tail: Commit, header: Dict[str, Any]) -> bool:
    """Tell whether superseded lines outnumber both the live ones and 100,000.

    Args:
        tail: the job file's last commit.
        header: its header.
    """
    counts = tail.meta["counts"]
    moved = header["history"]["counts"]["completed"] if header["history"] else 0
    live = sum(counts.values()) - counts["delayed"] - moved
    return bool(tail.meta["lines"] - live > max(live, _LEAST))


def rewrite(folder: StoreFolder, lock: StoreLock, cut_tail: Callable[[Journal], None]) -> bool:
    """Rewrite the job file, unless another process does so already.

    Args:
        folder: the store's folder.
        lock: the store's lock.
        cut_tail: cuts what follows the last commit of the old file.

    Returns:
        Whether the file was rewritten.

    Raises:
        StoreError: it could not be; the old file is still in force.
        DamagedError: the old file is damaged.
    """
    try:
        turn = take_liveness(folder.rewrite_lock)
        if turn is None:
            return False
        try:
            with contextlib.closing(Journal(folder.job_file)) as source:
                return _Rewrite(folder, source).run(lock, cut_tail)
        finally:
            os.close(turn)
    except FileNotFoundError as error:
        raise StoreGoneError(f"store {folder.path} was removed while in use") from error
    except OSError as error:
        raise failure("rewrite", folder.job_file, error) from error


class _Rewrite:
    """One rewrite, from a snapshot of the old file to the rename of the new one."""

    def __init__(self, folder: StoreFolder, source: Journal) -> None:
        self._folder = folder
        self._source = source
        self._lines = 0

    def run(self, lock: StoreLock, cut_tail: Callable[[Journal], None]) -> bool:
        """Rewrite; where there is no room for it, leave as much as there was."""
        try:
            return self._run(lock, cut_tail)
        except BaseException:
            if not self._was_replaced():
                self._undo()
            raise

    def _undo(self) -> None:
        """Remove what was made: on a disk that is full it would be in the way of the workers."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder.rewritten)
        history = self._source.header["history"]
        remove_histories(self._folder, history)
        if history is not None:
            os.truncate(os.path.join(self._folder.path, history["file"]), history["length"])

    def _run(self, lock: StoreLock, cut_tail: Callable[[Journal], None]) -> bool:
        snapshot = Snapshot(self._source, self._folder.path)
        self._source.go_to(snapshot.commit)
        live, finished = snapshot.places_of_newest(finished=JobState.COMPLETED)
        purged = snapshot.purged_from_history()
        lines = snapshot.lines(finished)
        if purged:
            lines = chain(snapshot.history_lines(without=purged), lines)
        history = self._extend_history(lines, len(finished) - len(purged), anew=bool(purged))
        self._make_new(snapshot.commit, history)
        with contextlib.closing(Journal(self._folder.rewritten)) as new:
            new.go_behind_header()
            self._fill(new, snapshot.lines(live))
            while self._copy_news(new) > _LITTLE:
                pass
            new.sync()
            with lock:
                if self._was_replaced():
                    return False
                self._copy_news(new)
                if os.fstat(self._source.fd).st_size > self._source.end:
                    cut_tail(self._source)
                new.number = self._source.number
                new.append([], {**self._source.meta, "lines": self._lines})
                new.sync()
                os.rename(self._folder.rewritten, self._folder.job_file)
                sync_folder(self._folder.path)
        remove_histories(self._folder, history)
        return True

    def _extend_history(
        self, lines: Iterator[bytes], count: int, anew: bool
    ) -> Optional[Dict[str, Any]]:
        """Add completed jobs to the history; return what the new header says of it.

        Args:
            lines: their lines; all that are to be kept, if it begins anew.
            count: how many jobs it gains.
            anew: whether to begin the next generation, for jobs that were purged cannot be cut out.
        """
        old = self._source.header["history"]
        if old is None and count == 0:
            return None
        generation, length, crc, completed = 1, 0, 0, count
        if old is not None:
            generation = old["generation"] + 1
            completed += old["counts"]["completed"]
            if not anew:
                generation, length, crc = old["generation"], old["length"], int(old["crc"], 16)
        name = self._folder.history(generation)
        fd = os.open(
            os.path.join(self._folder.path, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            os.ftruncate(fd, length)
            os.lseek(fd, length, os.SEEK_SET)
            for batch in batches(lines):
                write_all(fd, batch)
                crc = crc32(batch, crc)
                length += len(batch)
            sync_data(fd)
        finally:
            os.close(fd)
        sync_folder(self._folder.path)
        return {
            "generation": generation,
            "file": name,
            "length": length,
            "crc": f"{crc:08x}",
            "counts": {"completed": completed},
        }

    def _make_new(self, commit: Commit, history: Optional[Dict[str, Any]]) -> None:
        header = {key: self._source.header[key] for key in ("store", "created_at")}
        header["history"] = history
        header["totals"] = {"enqueued": commit.meta["seq"], "purged": commit.meta["purged"]}
        fd = os.open(
            self._folder.rewritten,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC,
            0o600,
        )
        try:
            write_all(fd, header_line(header))
        finally:
            os.close(fd)

    def _fill(self, new: Journal, lines: Iterator[bytes]) -> None:
        for batch in batches(lines):
            new.extend(batch)
            self._lines += batch.count(b"\n")

    def _copy_news(self, new: Journal) -> int:
        """Copy the lines that were committed since the last look.

        Return how many bytes they have.
        """
        news: List[bytes] = []
        self._source.follow(lambda offset, block: news.extend(lines_between(block)))
        self._fill(new, iter(news))
        return sum(map(len, news))

    def _was_replaced(self) -> bool:
        status = os.stat(self._folder.job_file)
        return (status.st_dev, status.st_ino) != self._source.inode


def remove_histories(folder: StoreFolder, current: Optional[Dict[str, Any]]) -> None:
    """Remove those of other generations than the one that a header names.

    Who still reads one will see that the job file was replaced.
    """
    for name in os.listdir(folder.path):
        if name.startswith("history-") and (current is None or name != current["file"]):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder.path, name))


def batches(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Put lines together to as much as is worth a write."""
    batch: List[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= _BATCH:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)
