"""A store for QueueCTL that keeps its jobs in an SQLite database: `sqlite:///srv/queue`.

The URL names a folder. In it are the database and, as in QueueCTL's own store, the workers and what
jobs printed. Every change is one transaction, which begins by taking the database's lock: what it
decides on cannot change before it is written, and after a crash it is there whole or not at all.

Each of them opens the database anew. That costs a fraction of a millisecond, and nothing has to be
kept from the workers that `start` forks: SQLite does not survive that.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import uuid
from typing import Any, Collection, Dict, Iterator, List, Mapping, Optional, Sequence
from urllib.parse import quote

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import (
    DamagedError,
    InvalidValueError,
    NoStoreError,
    StoreError,
    StoreFullError,
    StoreGoneError,
    StoreLockedError,
)
from queuectl.job import Job, JobState
from queuectl.queues import closed_queues
from queuectl.store.base import Counts, Notice
from queuectl.store.checks import is_kept
from queuectl.store.compact import encode
from queuectl.store.disk import sync_folder
from queuectl.store.local import LocalStore
from queuectl.store.plain import PlainStore
from queuectl.store.record import from_line, to_line
from queuectl.values import DEFAULT_QUEUE

_PATIENCE = 30.0  # seconds
_SCHEMA = """
BEGIN;
CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, state TEXT, queue TEXT,
    priority INTEGER, run_at TEXT, record BLOB);
CREATE INDEX next ON jobs (state, priority DESC, seq);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE meta (id TEXT, created_at TEXT, enqueued INTEGER);
CREATE TABLE totals (name TEXT PRIMARY KEY, number INTEGER);
"""


class SqliteStore(LocalStore, PlainStore):
    """A store in a folder with a database.

    Args:
        url: `sqlite://` and the absolute path of the folder.
        create: whether to make the store where there is none.
        notice: told if it was made.
    """

    def __init__(self, url: str, create: bool, notice: Notice) -> None:
        path = url[len("sqlite://") :]
        if not os.path.isabs(path):
            raise InvalidValueError(f"{url} names no absolute path, as sqlite:///srv/queue does")
        super().__init__(os.path.realpath(path))
        self.url = "sqlite://" + self.folder.path
        self._path = os.path.join(self.folder.path, "jobs.sqlite")
        self._settings: Dict[str, str] = {}
        self._open: Optional[sqlite3.Connection] = None
        self._id: Optional[str] = None
        if not os.path.exists(self._path):
            if not create:
                raise NoStoreError(self.folder.path)
            self._make(notice)
        self.folder.check_trust()
        self._id = self._meta("id")

    @contextlib.contextmanager
    def commit(self) -> Iterator[None]:
        with self._connected() as self._open:
            try:
                self._open.execute("BEGIN IMMEDIATE")
                yield
                self._open.execute("COMMIT")
            finally:
                # One that is closed before it was committed is rolled back.
                self._open = None

    def put(self, jobs: Sequence[Job], enqueued: int, totals: Mapping[str, int]) -> None:
        for job in jobs:
            values = (job.seq, job.id, job.state, job.queue, job.priority, job.run_at, to_line(job))
            self._query("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
        self._query("UPDATE meta SET enqueued = enqueued + ?", enqueued)
        for name, number in totals.items():
            self._query("INSERT OR IGNORE INTO totals VALUES (?, 0)", name)
            self._query("UPDATE totals SET number = number + ? WHERE name = ?", number, name)

    def drop(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._query("DELETE FROM jobs WHERE seq = ?", job.seq)

    def put_settings(self, settings: Dict[str, str]) -> None:
        self._query("DELETE FROM settings")
        for name, text in settings.items():
            self._query("INSERT INTO settings VALUES (?, ?)", name, encode(text))

    def next_job(
        self,
        now: float,
        horizon: float,
        queues: Optional[Collection[str]] = None,
        done: Optional[Job] = None,
    ) -> Optional[Job]:
        closed = closed_queues(self.rules(), self.running())
        # A retry far ahead may be due all the same, as `is_due` says.
        query = (
            "SELECT record FROM jobs WHERE state IN ('pending', 'failed')"
            " AND (run_at IS NULL OR run_at <= ? OR state = 'failed') ORDER BY priority DESC, seq"
        )
        with self._connected() as db:
            for (line,) in db.execute(query, [clock.to_iso(now)]):
                job = from_line(line)
                is_served = job.queue not in closed and (queues is None or job.queue in queues)
                if (
                    is_served
                    and rules.is_due(job, now, horizon)
                    and (done is None or job.seq != done.seq)
                    and not is_kept(job, self._by_seq)
                ):
                    return job
        return None

    def get(self, job_id: str) -> Optional[Job]:
        return next(self._jobs("WHERE id = ?", job_id), None)

    def select(
        self, states: Sequence[str], limit: Optional[int] = None, before: Optional[int] = None
    ) -> Iterator[Job]:
        condition = f"WHERE state IN ({', '.join('?' * len(states))})"
        values: List[Any] = list(states)
        if before is not None:
            condition += " AND seq < ?"
            values.append(before)
        values.append(-1 if limit is None else limit)
        return self._jobs(f"{condition} ORDER BY seq DESC LIMIT ?", *values)

    def counts(self) -> Counts:
        rows = self._query("SELECT state, COUNT(*), COUNT(run_at) FROM jobs GROUP BY state")
        delayed = sum(row[2] for row in rows if row[0] == JobState.PENDING)
        return Counts(delayed=delayed, **{state: number for state, number, _ in rows})

    def running(self) -> Dict[str, int]:
        query = "SELECT queue, COUNT(*) FROM jobs WHERE state = 'processing' GROUP BY queue"
        return {DEFAULT_QUEUE: 0, **dict(self._query(query))}

    def enqueued(self) -> int:
        return int(self._meta("enqueued"))

    def totals(self) -> Dict[str, int]:
        return dict(self._query("SELECT name, number FROM totals"))

    def age(self) -> float:
        return max(self.now() - clock.from_iso(self._meta("created_at")), 0.0)

    def settings(self) -> Dict[str, str]:
        rows = self._query("SELECT name, value FROM settings")
        stored = {name: json.loads(text) for name, text in rows}
        if stored != self._settings:
            self._settings = stored
        return self._settings

    def require_present(self) -> None:
        with self._connected():
            pass

    def _by_seq(self, seq: int) -> Optional[Job]:
        return next(self._jobs("WHERE seq = ?", seq), None)

    def _jobs(self, condition: str, *values: Any) -> Iterator[Job]:
        return (
            from_line(line)
            for (line,) in self._query(f"SELECT record FROM jobs {condition}", *values)
        )

    def _meta(self, name: str) -> Any:
        return self._query(f"SELECT {name} FROM meta")[0][0]

    def _query(self, query: str, *values: Any) -> List[Any]:
        with self._connected() as db:
            return db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The database; that of the commit, if this is one. Only here its errors are translated."""
        if self._open is not None:
            yield self._open
            return
        try:
            # It must not be made anew where it was removed.
            address = f"file:{quote(os.fsencode(self._path))}?mode=rw"
            with contextlib.closing(
                sqlite3.connect(address, timeout=_PATIENCE, isolation_level=None, uri=True)
            ) as db:
                # A commit that was acknowledged survives a loss of power.
                db.execute("PRAGMA synchronous = EXTRA")
                if self._id not in (None, *db.execute("SELECT id FROM meta").fetchone()):
                    raise StoreGoneError(f"store {self.folder.path} was removed while in use")
                yield db
        except sqlite3.OperationalError as error:
            raise self._failure(str(error)) from error
        except sqlite3.DatabaseError as error:
            raise DamagedError(self._path, 0, str(error)) from error

    def _failure(self, text: str) -> Exception:
        if not os.path.exists(self._path):
            return StoreGoneError(f"store {self.folder.path} was removed while in use")
        if "locked" in text:
            return StoreLockedError(f"store locked for over {_PATIENCE:g}s: {self._path}")
        if "full" in text:
            return StoreFullError(f"cannot write {self._path}: {text}; nothing was changed")
        return StoreError(f"cannot use {self._path}: {text}")

    def _make(self, notice: Notice) -> None:
        """Make the database beside its place, so that it is there whole or not at all."""
        self.folder.make()
        self.folder.check_trust()
        with self.lock:
            if os.path.exists(self._path):
                return
            new = self._path + ".new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            os.close(os.open(new, os.O_CREAT | os.O_WRONLY, 0o600))
            with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
                db.executescript(_SCHEMA)
                made = (uuid.uuid4().hex, clock.to_iso(clock.now()))
                db.execute("INSERT INTO meta VALUES (?, ?, 0)", made)
                db.execute("COMMIT")
            os.rename(new, self._path)
            sync_folder(self.folder.path)
            self.folder.sync_names()
        notice(f"created store {self.url}")
