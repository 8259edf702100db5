"""The job file as readers and writers use it: the journal, under the rules of the store.

How a commit works: take the lock; reopen the job file if it was replaced; read what others
appended; cut a torn tail; decide; append with one write; release; and, where a user was promised
durability, fsync. What a death in between does:

- before the write: nothing happened; in the write: a torn tail is left, which the next writer cuts;
- after the write, before the fsync: the kernel has it, so only a loss of power can undo it, and
  nothing was acknowledged yet.

What a loss of power or a failing disk left is made good first (see `recovery`). Any other bad byte
is damage.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Collection,
    Dict,
    Iterator,
    Optional,
    Sequence,
    TypeVar,
)

from queuectl import clock
from queuectl.errors import (
    DamagedError,
    OutcomeUnknownError,
    StoreError,
    StoreGoneError,
    StoreLockedError,
)
from queuectl.job import Job, JobState
from queuectl.store import recovery
from queuectl.store.base import Notice
from queuectl.store.disk import failure, sync_folder, unconfirmed
from queuectl.store.folder import StoreFolder
from queuectl.store.journal import Commit, Journal
from queuectl.store.lock import StoreLock
from queuectl.store.watched import Watched
from queuectl.totals import add_changes
from queuectl.values import DEFAULT_QUEUE

if TYPE_CHECKING:
    from queuectl.store.index import Index
    from queuectl.store.snapshot import Snapshot

T = TypeVar("T")

_MUCH = 1 << 16  # bytes that are too many to be read while others wait for the lock


class JobFile:
    """The job file, opened.

    Args:
        folder: the store's folder, which must hold one.
        lock: the store's lock.
        notice: told what was cut off.

    Attributes:
        index: which jobs can be claimed; kept only by those who asked for it with `load_index`.
    """

    def __init__(self, folder: StoreFolder, lock: StoreLock, notice: Notice) -> None:
        self._folder = folder
        self._lock = lock
        self._notice = notice
        self.index: Optional[Index] = None
        self._watched: Optional[Watched] = None
        self._head: Optional[ModuleType] = None
        self._boot_checked = False
        self._vouched = 0
        self._folder_synced = False
        self.journal = self._open()

    def close(self) -> None:
        """Close it."""
        self.journal.close()

    def read(self, look: Callable[[Snapshot], T]) -> T:
        """Look at all jobs as of the last commit; no lock is taken unless they seem damaged.

        Raises:
            DamagedError: it is damaged.
        """
        try:
            return look(self._snapshot())
        except DamagedError:
            # It may have been read while a writer cut a torn tail, or await the check of the first
            # writer.
            with self._lock_to_confirm():
                return look(self._snapshot())

    def tail(self) -> Commit:
        """Return the last commit, at a cost that does not depend on the size of the file."""
        self.reopen_if_replaced()
        try:
            return self.journal.tail()
        except DamagedError:
            with self._lock_to_confirm():
                return self.journal.tail()

    def load_index(self) -> Index:
        """Read the whole file into an index, and keep that up to date from now on."""
        if self.index is None:
            self.index = self._new_index()
            self.journal.rewind()
            self.follow()
        return self.index

    def follow(self) -> int:
        """Read what was committed since the last look.

        Return how many bytes follow the last commit.
        """
        try:
            return self._follow()
        except DamagedError:
            with self._lock_to_confirm():
                self._start_over()
                return self._follow()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock, having read everything, so that `append` may follow.

        Raises:
            StoreGoneError: the store was removed.
        """
        much: float = _MUCH
        while True:
            with self._lock:
                if self._catch_up(much):
                    yield
                    return
            # So that what is much does not keep everybody else waiting. What comes meanwhile does,
            # whatever it is: else one among busy ones might never have its turn.
            self.follow()
            much = math.inf

    def writing_newest(
        self,
        job_ids: Sequence[str],
        write: Callable[[Watched], T],
        keys: Collection[str] = (),
    ) -> T:
        """Call `write` under the lock with the newest lines of these jobs, ready to `append`.

        The store is scanned for them before the lock is taken; under it only what came since is
        looked at.

        Args:
            job_ids: the jobs.
            write: what to do.
            keys: unique keys whose holders it needs too.
        """
        while True:
            watched = self.read(lambda snapshot: self._look_up(snapshot, job_ids, keys))
            journal, self._watched = self.journal, watched
            try:
                if self.index is not None:
                    # Much may have come, after a rewrite everything: that must not keep others
                    # waiting.
                    self.follow()
                with self._lock:
                    if self._catch_up(math.inf) and self.journal is journal:
                        return write(watched)
            finally:
                self._watched = None

    @contextlib.contextmanager
    def expecting(self, line: Optional[bytes]) -> Iterator[None]:
        """Have the index know the first line of the next `append`. Only while `writing`.

        So what that lets be claimed can be claimed by the same commit.
        """
        if line is None:
            yield
            return
        self._visit(self.journal.end, line + b"\n")
        try:
            yield
        except BaseException:
            # It was not written.
            self._start_over()
            raise

    def append(
        self,
        lines: Sequence[bytes],
        before: Sequence[Optional[Job]],
        after: Sequence[Optional[Job]],
        front: Optional[int] = None,
    ) -> int:
        """Commit the lines of changed jobs. Only while `writing`.

        Args:
            lines: one for each job.
            before: the jobs as they were; nothing for a new one.
            after: the jobs as they are; nothing for one that was purged.
            front: the front of the queue after it, if all that it holds is a claim in order and
                ends of claims: then nobody else needs to read it.

        Returns:
            The offset of the first line.
        """
        old = self.journal.meta
        counts, running = dict(old["counts"]), dict(old["running"])
        seq, purged, bound = old["seq"], old["purged"], old["bound"]
        # A file that was made before has none.
        lifetime = dict(old.get("lifetime", ()), completed=old["done"])
        add_changes(lifetime, zip(before, after))
        for was, now in zip(before, after):
            if was is None:
                seq += 1
            else:
                _count(counts, running, was, -1)
                bound -= _is_bound(was)
            if now is None:
                purged += 1
            else:
                _count(counts, running, now, 1)
                bound += _is_bound(now)
        meta = {
            "seq": seq,
            "front": old["front"] if front is None else front,
            "news": old["news"] + (front is None),
            "purged": purged,
            "done": lifetime.pop("completed"),
            "bound": bound,
            "lines": old["lines"] + len(lines),
            "counts": counts,
            "running": running,
            "lifetime": lifetime,
        }
        try:
            offset = self.journal.append(lines, meta)
        except FileNotFoundError as error:
            raise self._gone() from error
        if self.index is not None and front is not None:
            self.index.pass_to(front)
        elif self.index is not None:
            self._visit(offset, b"\n".join([*lines, b""]))
            self.index.front = meta["front"]
        return offset

    def sync(self) -> None:
        """Wait until the disk holds what this process committed.

        Raises:
            OutcomeUnknownError: it does not say so. The next writer is told not to trust the file.
            StoreGoneError: it is not asked to: the store was removed.
        """
        try:
            number = self.journal.number
            self.journal.sync()
            if not self._folder_synced:
                sync_folder(self._folder.path)
                self._folder_synced = True
            if recovery.is_unsynced(self._folder):
                # What another's failed sync dropped may be ours. Whoever syncs after it is told
                # that all is well, by a kernel that reports a failure only once.
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if self._boot_checked and number:
                recovery.note_synced(self._folder, number)
        except FileNotFoundError as error:
            raise self._gone() from error
        except (OutcomeUnknownError, OSError) as error:
            recovery.mark_unsynced(self._folder)
            if isinstance(error, OutcomeUnknownError):
                raise
            raise unconfirmed(self._folder.path, error) from error

    def sync_all(self) -> None:
        """Wait until the disk holds what anybody committed, also where a sync failed before.

        Raises:
            OutcomeUnknownError: it does not say so.
        """
        if recovery.is_unsynced(self._folder):
            with self.writing():
                # Whoever writes has the file replaced by one that the disk holds.
                pass
        self.sync()

    def was_replaced(self) -> bool:
        """Tell whether another file has taken its place; then nothing is added to it any more.

        Raises:
            StoreGoneError: it is gone.
        """
        try:
            status = os.stat(self._folder.job_file)
        except FileNotFoundError as error:
            raise self._gone() from error
        except OSError as error:
            raise failure("open", self._folder.job_file, error) from error
        return (status.st_dev, status.st_ino) != self.journal.inode

    def reopen_if_replaced(self) -> bool:
        """Open the file anew if another one has taken its place.

        Raises:
            StoreGoneError: it is gone, or belongs to a store that was made anew.
        """
        if not self.was_replaced():
            return False
        old, new = self.journal, self._open()
        if new.header["store"] != old.header["store"]:
            new.close()
            raise self._gone()
        self.journal = new
        old.close()
        # Whoever replaced it may have died before the disk held the new name.
        self._folder_synced = False
        self._start_over()
        return True

    def cut_tail(self, journal: Journal, what: str = "an unfinished change") -> None:
        """Cut what follows the last commit, and keep it aside. Only under the lock."""
        kept = self._folder.torn(clock.to_iso(clock.now()))
        size = journal.cut_tail(kept)
        self._notice(f"cut {what}, {size} bytes, off {journal.path}; kept in {kept}")

    def _open(self) -> Journal:
        try:
            return Journal(self._folder.job_file)
        except FileNotFoundError as error:
            raise self._gone() from error

    def _gone(self) -> StoreGoneError:
        return StoreGoneError(f"store {self._folder.path} was removed while in use")

    def _start_over(self) -> None:
        self.journal.rewind()
        if self.index is not None:
            held = self.index.held
            self.index = self._new_index()
            self.index.held = held

    def _follow(self) -> int:
        last, rest = self.journal.look()
        if last is not None:
            self._take_in(last, math.inf)
        return rest

    def _take_in(self, last: Commit, much: float) -> bool:
        """Move on to this commit; False, and no move, if that takes reading more than so much."""
        journal, index = self.journal, self.index
        if self._watched is None and self._is_quiet(last):
            journal.go_to(last)
            if index is not None:
                index.pass_to(last.meta["front"])
            return True
        if index is not None and last.end - journal.end > much:
            return False
        journal.read_to(last, None if index is None and self._watched is None else self._visit)
        if index is not None:
            index.front = last.meta["front"]
        return True

    def _is_quiet(self, last: Commit) -> bool:
        """Whether nothing came that the lines must be read for, as mostly while jobs are run.

        Else each of many workers would spend more time on what the others do than on its own jobs.
        """
        if self.journal.end == 0:
            return self.index is None
        return bool(last.meta["news"] == self.journal.meta["news"])

    def _visit(self, offset: int, block: bytes) -> None:
        if self._head is None:
            # Each commit comes here, and would pay for the look at what is imported.
            with self._importing():
                from queuectl.store import head
            self._head = head
        heads, read_plan = self._head.HEADS, self._head.read_plan
        put = None if self.index is None else self.index.put
        watched = self._watched
        for match in heads.finditer(block):
            if put is not None:
                seq, state, run_at = match.group(2, 3, 4)
                # Most lines have none; that is told by the last group which is there.
                plan = read_plan(*match.groups()[4:]) if match.lastindex == 9 else None
                put(int(seq), state, run_at, offset + match.start(), plan)
            if watched is not None:
                watched.see(block, match)

    def _catch_up(self, much: float) -> bool:
        """Under the lock: see everything that was committed, and leave nothing behind it.

        Returns False if the file was replaced, or more than so many bytes of it are to be read.
        """
        if self._mend():
            return False
        # What is damaged now is damaged: nobody else can be writing.
        last, rest = self.journal.look()
        if last is not None and not self._take_in(last, much):
            return False
        if self.journal.number < self._vouched:
            raise recovery.missing(self.journal.path, self.journal.end, self._vouched)
        if rest > 0:
            self.cut_tail(self.journal)
        return True

    def _mend(self) -> bool:
        """Under the lock: repair what a loss of power or a failing disk left.

        Returns True if the file is another one now.
        """
        replaced = self.reopen_if_replaced()
        # First, as nothing can be synced while the mark is there.
        if recovery.is_unsynced(self._folder):
            recovery.replace_unsynced(self._folder, self.journal, self.cut_tail)
            replaced = self.reopen_if_replaced()
        if not self._boot_checked:
            self._check_boot()
        return replaced

    def _look_up(
        self, snapshot: Snapshot, job_ids: Sequence[str], keys: Collection[str]
    ) -> Watched:
        if self.journal.end == 0 and self.index is None:
            self.journal.go_to(snapshot.commit)
        holders = {key: snapshot.holders(key) for key in keys}
        return Watched(snapshot.newest_lines(job_ids), holders)

    def _snapshot(self) -> Snapshot:
        with self._importing():
            from queuectl.store.snapshot import Snapshot
        self.reopen_if_replaced()
        while True:
            try:
                return Snapshot(self.journal, self._folder.path)
            except FileNotFoundError as error:
                if not self.reopen_if_replaced():
                    raise DamagedError(str(error.filename), 0, "the file is missing") from error

    def _new_index(self) -> Index:
        with self._importing():
            from queuectl.store.index import Index
        return Index()

    @contextlib.contextmanager
    def _importing(self) -> Iterator[None]:
        """Import what only some commands need: one may have no descriptor left for that."""
        try:
            yield
        except OSError as error:
            raise failure("open", self._folder.job_file, error) from error

    @contextlib.contextmanager
    def _lock_to_confirm(self) -> Iterator[None]:
        """Hold the lock to look again at what seems damaged.

        A store that cannot be locked is looked at without.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._lock)
                self._mend()
            except (StoreError, StoreLockedError):
                self.reopen_if_replaced()
            yield

    def _check_boot(self) -> None:
        """Once for each boot of the machine, cut off what a loss of power spoiled."""
        if not os.access(self._folder.path, os.W_OK):
            # Some changes need a file of their own: better none is made than a few.
            error = OSError(errno.EACCES, os.strerror(errno.EACCES))
            raise failure("write to", self._folder.path, error)
        vouched = recovery.checked_up_to(self._folder)
        if vouched is None:
            good = recovery.cut_lost(self._folder, self.journal, self.cut_tail)
            if good is not None:
                self._start_over()
            number = (good or self.journal.tail()).number
            self.sync()
            recovery.note_checked(self._folder, number)
        else:
            self._vouched = vouched
        self._boot_checked = True


def _is_bound(job: Job) -> bool:
    return bool(job.parents) and job.waits


def _count(counts: Dict[str, Any], running: Dict[str, int], job: Job, by: int) -> None:
    counts[job.state] += by
    if job.state == JobState.PENDING and job.run_at is not None:
        counts["delayed"] += by
    if job.state == JobState.PROCESSING and job.queue != DEFAULT_QUEUE:
        count = running.get(job.queue, 0) + by
        if count:
            running[job.queue] = count
        else:
            del running[job.queue]
