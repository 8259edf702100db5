"""The default store: a job file in a folder, with settings, output and members beside it.

This module keeps the promises of the contract; `jobfile` those of the file. A claim is the commit
of a line that says `processing` and names the worker; it holds until a later line of that job. A
result is accepted if the line that it follows from is still the newest, so of two results of one
claim, or of one that is over, only the first counts.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

from queuectl import clock
from queuectl import job as rules
from queuectl.config import MAX_WORKERS
from queuectl.errors import (
    ClaimLostError,
    ConflictError,
    DamagedError,
    DuplicateIdError,
    KeyTakenError,
    StoreGoneError,
)
from queuectl.job import Job, JobState
from queuectl.queues import Rules, closed_queues, is_rule, read_rules
from queuectl.store import creation, settings_file
from queuectl.store.base import Activity, Counts, Feed, Member, Notice, Watch
from queuectl.store.disk import failure
from queuectl.store.jobfile import JobFile
from queuectl.store.journal import Journal
from queuectl.store.local import LocalStore
from queuectl.store.record import from_line, none_if_purged, purged_line, to_line
from queuectl.store.watched import NOTHING, Watched
from queuectl.values import DEFAULT_QUEUE

if TYPE_CHECKING:
    from queuectl.store.watch import FileActivity, FileTally

_SYNC_INTERVAL = 0.5


class FileStore(LocalStore):
    """A store in a folder.

    Args:
        path: the folder, absolute.
        create: whether to make the store where there is none.
        notice: told, in one line each, what a user should know: a store that was made, a torn tail
            that was cut.

    Raises:
        NoStoreError: there is none, and none is to be made.
        StoreError: it may not be used, or needs a newer QueueCTL.
        DamagedError: it is not what was written.
    """

    def __init__(self, path: str, create: bool = True, notice: Notice = lambda text: None) -> None:
        super().__init__(path)
        # However it was reached, it has one name: by that a rescuer knows the jobs of this store
        # from those of others.
        self.url = os.path.realpath(self.folder.path)
        self._notice = notice
        creation.open_folder(self.folder, self.lock, create, notice)
        self._file = JobFile(self.folder, self.lock, notice)
        self._settings: Dict[str, str] = {}
        self._settings_version: Optional[Tuple[int, int, int]] = None
        self._rules: Rules = {}
        self._rules_of: Optional[Dict[str, str]] = None
        self._held: Optional[Tuple[Journal, int, Job]] = None
        self._activity: Optional[FileActivity] = None
        self._tally: Optional[FileTally] = None
        self._synced_state: Optional[Tuple[Tuple[int, int], int]] = None
        self._synced_at = 0.0

    def close(self) -> None:
        self._file.close()
        for looked in (self._activity, self._tally):
            if looked is not None:
                looked.close()
        super().close()

    def add(
        self, jobs: Sequence[Job], given_ids: Sequence[str] = (), also: Sequence[Job] = ()
    ) -> List[Job]:
        keys = {job.unique for job in jobs if job.unique is not None}

        def write(watched: Watched) -> List[Job]:
            for job_id in given_ids:
                # One that is given twice was taken already.
                if job_id not in watched or watched.take(job_id) is not None:
                    raise DuplicateIdError(job_id)
            before = [self._require_successor(job, watched) for job in also]
            if keys:
                _require_free([job for job in jobs if not job.is_over], also, watched)
            # A purge that died left the output of other jobs of these ids.
            self.folder.drop_logs(given_ids)
            first = self._file.journal.meta["seq"] + 1
            seq_of: Dict[str, int] = {}
            if any(job.after or job.after_any for job in jobs):
                seq_of.update((job.id, job.seq) for job in also)
                seq_of.update((job.id, first + number) for number, job in enumerate(jobs))
            added = [rules.placed(job, first + at, seq_of) for at, job in enumerate(jobs)]
            after = [*added, *also]
            self._file.append(
                [to_line(job) for job in after], [*[None] * len(added), *before], after
            )
            return added

        if given_ids or also or keys:
            watched_ids = [*given_ids, *(job.id for job in also)]
            added = self._file.writing_newest(watched_ids, write, keys)
        else:
            with self._file.writing():
                added = write(NOTHING)
        self.tell_news(len(added))
        for job in also:
            self._tell_of_end(job)
        self._file.sync()
        return added

    def get(self, job_id: str) -> Optional[Job]:
        return self._file.read(lambda snapshot: snapshot.get(job_id))

    def find(self, prefix: str, limit: int) -> List[str]:
        return self._file.read(lambda snapshot: snapshot.find(prefix, limit))

    def select(
        self, states: Sequence[str], limit: Optional[int] = None, before: Optional[int] = None
    ) -> Iterator[Job]:
        return self._file.read(lambda snapshot: snapshot.select(states, limit, before))

    def dump(self) -> Tuple[int, Iterator[Job]]:
        return self._file.read(lambda snapshot: snapshot.dump())

    def watch(self, job_ids: Collection[str]) -> Watch:
        from queuectl.store.watch import FileWatch

        return FileWatch(self._another_file(), job_ids)

    def feed(self) -> Optional[Feed]:
        from queuectl.store.feed import FileFeed

        return FileFeed(self._another_file())

    def activity(self, failures: int) -> Activity:
        if self._activity is None:
            from queuectl.store.watch import FileActivity

            self._activity = FileActivity(self._another_file())
        return self._activity.look(failures)

    def enqueued(self) -> int:
        return int(self._file.tail().meta["seq"])

    def totals(self) -> Dict[str, int]:
        meta = self._file.tail().meta
        return {"completed": meta["done"], **meta.get("lifetime", {})}

    def counts(self) -> Counts:
        return Counts(**self._file.tail().meta["counts"])

    def running(self) -> Dict[str, int]:
        return _running(self._file.tail().meta)

    def bound(self) -> int:
        return int(self._file.tail().meta["bound"])

    def tally(self) -> Dict[str, Counts]:
        if self._tally is None:
            from queuectl.store.watch import FileTally

            self._tally = FileTally(self._another_file())
        return self._tally.look()

    def oldest(self, now: float, horizon: float) -> Optional[Job]:
        self._file.reopen_if_replaced()
        self._file.load_index()
        self._file.follow()
        # A new one, if the file was read anew.
        offset = self._file.load_index().oldest(now, horizon)
        return None if offset is None else from_line(self._file.journal.line_at(offset))

    def size(self) -> Optional[int]:
        self._file.reopen_if_replaced()
        history = self._file.journal.header["history"]
        size = os.fstat(self._file.journal.fd).st_size
        return size + (0 if history is None else int(history["length"]))

    def children(self, parents: Sequence[Job]) -> List[Job]:
        numbers = {job.seq for job in parents if job.dependents}
        if not numbers:
            return []
        return self._file.read(lambda snapshot: snapshot.children(numbers))

    def holder(self, key: str) -> Optional[Job]:
        holders = self._file.read(lambda snapshot: snapshot.holders(key))
        return Watched({}, {key: holders}).holder(key, ())

    def current(self, claimed: Job) -> Optional[Job]:
        self._file.reopen_if_replaced()
        self._file.follow()
        assert self._held is not None
        journal, offset, job = self._held
        newest = self._file.load_index().held_at
        if (self._file.journal, newest) == (journal, offset):
            return job
        line = none_if_purged(self._file.journal.line_at(newest)) if newest else None
        return None if line is None else from_line(line)

    def claim(
        self,
        worker: str,
        now: float,
        horizon: float,
        done: Optional[Job] = None,
        wanted: Callable[[], bool] = lambda: True,
        queues: Optional[Collection[str]] = None,
    ) -> Optional[Job]:
        if done is None and not self.claimable(now, horizon, queues):
            return None
        self._file.load_index()

        def write(watched: Watched) -> Optional[Job]:
            return self._end_and_claim(worker, now, horizon, done, wanted, queues, watched)

        if done is None or self._holds(done):
            with self._file.writing():
                claimed = write(NOTHING)
        else:
            claimed = self._file.writing_newest([done.id], write)
        if done is not None:
            self._tell_of_end(done)
        return claimed

    def save(self, jobs: Sequence[Job], durable: bool = True) -> None:
        # One that fails or is claimed had its key already.
        pending = [job for job in jobs if job.state == JobState.PENDING]
        keys = {job.unique for job in pending if job.unique is not None}

        def write(watched: Watched) -> None:
            before = [self._require_successor(job, watched) for job in jobs]
            begun: List[Job] = []
            others: List[Job] = []
            for was, job in zip(before, jobs):
                (begun if was.is_over else others).append(job)
            _require_free(begun, others, watched)
            self._file.append([to_line(job) for job in jobs], before, jobs)

        self._file.writing_newest([job.id for job in jobs], write, keys)
        for job in jobs:
            self._tell_of_end(job)
        if durable:
            self._file.sync()

    def remove(self, jobs: Sequence[Job], also: Sequence[Job] = ()) -> None:
        def write(watched: Watched) -> None:
            for job in jobs:
                self._require_successor(replace(job, rev=job.rev + 1), watched)
            before = [self._require_successor(job, watched) for job in also]
            # First, as it may make the room that the commit needs. If we die now, jobs are left
            # that have no output.
            self.folder.drop_logs(job.id for job in jobs)
            self._file.append(
                [*map(purged_line, jobs), *map(to_line, also)],
                [*jobs, *before],
                [*[None] * len(jobs), *also],
            )

        self._file.writing_newest([job.id for job in (*jobs, *also)], write)
        for job in (*jobs, *also):
            self._tell_of_end(job)
        self._file.sync()

    def next_due(self, queues: Optional[Collection[str]] = None) -> Optional[float]:
        index = self._file.load_index()
        return index.next_due(queues, self._closed(self._file.journal.meta))

    def claimable(
        self, now: float, horizon: float, queues: Optional[Collection[str]] = None
    ) -> bool:
        self._file.reopen_if_replaced()
        self._file.load_index()
        self._file.follow()
        closed = self._closed(self._file.journal.meta)
        return self._file.load_index().next(now, horizon, queues, closed) is not None

    def awaits_retry(self, queues: Optional[Collection[str]] = None) -> bool:
        paused = [name for name, rule in self._queue_rules().items() if rule.paused]
        return self._file.load_index().awaits_retry(queues, paused)

    def require_present(self) -> None:
        self._file.reopen_if_replaced()

    def enroll(self, member: Member) -> None:
        try:
            # Whoever works on for long may find no descriptor left when they are needed.
            import queuectl.store.head
            import queuectl.store.index
            import queuectl.store.rewrite  # noqa: F401
        except OSError as error:
            raise failure("join", self.folder.workers, error) from error
        super().enroll(member)

    def claimed_by(self, worker: str) -> Optional[Job]:
        return self._file.read(lambda snapshot: snapshot.claimed_by(worker))

    def settings(self) -> Dict[str, str]:
        version = None
        try:
            status = os.stat(self.folder.settings)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise failure("read", self.folder.settings, error) from error
        if version != self._settings_version:
            self._settings = settings_file.read(self.folder.settings)
            self._settings_version = version
        return self._settings

    def configure(self, changes: Dict[str, Optional[str]]) -> None:
        self.require_present()
        with self.lock:
            self.require_present()
            # Read anew: two changes within a tick of the clock look the same to `settings`.
            stored = {**settings_file.read(self.folder.settings), **changes}
            settings_file.write(
                self.folder.settings,
                {name: text for name, text in stored.items() if text is not None},
            )
        if any(map(is_rule, changes)):
            self.tell_news(MAX_WORKERS)

    def age(self) -> float:
        made = clock.from_iso(self._file.journal.header["created_at"])
        return max(clock.now() - made, 0.0)

    def sync(self) -> None:
        self._file.reopen_if_replaced()
        self._file.sync_all()

    def tend(self) -> None:
        self._file.reopen_if_replaced()
        now = time.monotonic()
        if now >= self._synced_at + _SYNC_INTERVAL:
            self._synced_at = now
            state = (self._file.journal.inode, os.fstat(self._file.journal.fd).st_size)
            if state != self._synced_state:
                self._file.sync_all()
                self._synced_state = state

    def rewrite_due(self) -> bool:
        from queuectl.store.rewrite import is_worthwhile

        return is_worthwhile(self._file.tail(), self._file.journal.header)

    def rewrite(self) -> bool:
        from queuectl.store.rewrite import rewrite

        self.require_present()
        try:
            return rewrite(self.folder, self.lock, self._file.cut_tail)
        except (DamagedError, StoreGoneError):
            # It may have been read while a writer cut a torn tail, or await the check of the first
            # writer; and what is gone may be the history alone.
            self._file.read(lambda snapshot: None)
            return False

    def _end_and_claim(
        self,
        worker: str,
        now: float,
        horizon: float,
        done: Optional[Job],
        wanted: Callable[[], bool],
        queues: Optional[Collection[str]],
        watched: Watched,
    ) -> Optional[Job]:
        """The commit of `claim`; `watched` has a `done` which this process does not hold."""
        index = self._file.load_index()
        written: List[bytes] = []
        before: List[Job] = []
        after: List[Job] = []
        front: Optional[int] = index.front
        if done is not None:
            held = self._holds(done)
            before.append(
                self._require_held(done) if held else self._require_successor(done, watched)
            )
            after.append(done)
            written.append(to_line(done))
            if done.waits or done.dependents or not held:
                front = None
        claimed = None
        closed = self._closed(self._file.journal.meta, done)
        frees = done is not None and done.is_over and done.dependents
        with self._file.expecting(written[0] if frees else None):
            chosen = index.next(now, horizon, queues, closed)
            if chosen is not None and wanted():
                waiting = from_line(self._file.journal.line_at(chosen.offset))
                claimed = rules.claim(waiting, worker, now)
                before.append(waiting)
                after.append(claimed)
                written.append(to_line(claimed))
                if front is not None:
                    front = chosen.front
            offset = self._file.append(written, before, after, front) if written else 0
        self._held = None
        if claimed is not None:
            offset += sum(len(line) + 1 for line in written[:-1])
            index.hold(claimed.seq, offset)
            self._held = (self._file.journal, offset, claimed)
        return claimed

    def _holds(self, job: Job) -> bool:
        """Whether this process claimed the job last."""
        return self._held is not None and self._held[2].seq == job.seq

    def _require_held(self, done: Job) -> Job:
        """Return the job that this process claimed, if `done` follows from its newest line."""
        assert self._held is not None
        journal, offset, current = self._held
        newest = self._file.load_index().held_at
        if (self._file.journal, newest) != (journal, offset):
            line = none_if_purged(self._file.journal.line_at(newest)) if newest else None
            if line is None:
                raise ClaimLostError(done.id)
            current = from_line(line)
        if current.runs != done.runs or current.state != JobState.PROCESSING:
            raise ClaimLostError(done.id)
        if current.rev + 1 != done.rev:
            raise ConflictError(done.id)
        return current

    def _require_successor(self, job: Job, watched: Watched) -> Job:
        """Return the job that `job` follows from, if that is the newest.

        Takes its line, so that it has one successor.
        """
        if job.id not in watched:
            raise ConflictError(job.id)
        current = watched.take(job.id)
        if current is not None and current.seq != job.seq:
            # The id was removed and given to another job.
            current = None
        if current is None or current.rev + 1 != job.rev:
            over = (
                current is None or current.runs != job.runs or current.state != JobState.PROCESSING
            )
            raise ClaimLostError(job.id) if over and job.runs else ConflictError(job.id)
        return current

    def _another_file(self) -> JobFile:
        """The job file, opened once more, to be at another place in it."""
        return JobFile(self.folder, self.lock, self._notice)

    def _queue_rules(self) -> Rules:
        stored = self.settings()
        if stored is not self._rules_of:
            self._rules, self._rules_of = read_rules(stored), stored
        return self._rules

    def _closed(self, meta: Dict[str, Any], done: Optional[Job] = None) -> Collection[str]:
        """The queues from which nothing may be claimed, once `done` is saved."""
        queue_rules = self._queue_rules()
        if not queue_rules:
            return ()
        running = _running(meta)
        if done is not None:
            running[done.queue] -= 1
        return closed_queues(queue_rules, running)

    def _tell_of_end(self, job: Job) -> None:
        """Tell the supervisors of what may be claimed now that could not before."""
        if job.waits:
            self.tell_news(1)
        elif job.dependents or self._rules_of is None or job.queue in self._rules:
            self.tell_news(job.dependents + 1)


def _require_free(jobs: Iterable[Job], others: Sequence[Job], watched: Watched) -> None:
    """Raise KeyTakenError unless these jobs can have their unique keys.

    Args:
        jobs: they had none before.
        others: those that are saved in the same commit.
        watched: has the holders of the keys.
    """
    ids = {job.id for job in others}
    taken = {job.unique: job.id for job in others if not job.is_over}
    for job in jobs:
        if job.unique is None:
            continue
        holder = watched.holder(job.unique, ids)
        other = taken.setdefault(job.unique, job.id) if holder is None else holder.id
        if other != job.id:
            raise KeyTakenError(job.unique, other)


def _running(meta: Dict[str, Any]) -> Dict[str, int]:
    """How many jobs of each queue are processing, as of a commit."""
    running = dict(meta["running"])
    running[DEFAULT_QUEUE] = meta["counts"][JobState.PROCESSING] - sum(running.values())
    return running
