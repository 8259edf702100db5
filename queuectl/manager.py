"""The queue as programs use it: every rule that is not a matter of atomicity.

A rule decides on a job that was read, and the store refuses the result if the job moved on
meanwhile; then it is read and decided again. So no rule ever needs a lock, and none can act on what
is no longer so.
"""

from __future__ import annotations

import math
import os
import uuid
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from queuectl import clock
from queuectl import job as rules
from queuectl.config import Settings
from queuectl.errors import (
    AmbiguousIdError,
    ConflictError,
    DuplicateIdError,
    InvalidValueError,
    NotFoundError,
    QueueError,
    RequestError,
    WrongStateError,
)
from queuectl.job import Job, JobState
from queuectl.store.base import Counts, Lost, Member, Notice, Store
from queuectl.text import as_utf8

NO_LIMIT = math.inf
"""The timeout of a new job that may run for ever, whatever the setting says."""

_PREFIX_LENGTH = 4
_CANDIDATES = 5


class NewJob(NamedTuple):
    """A job to enqueue; what is not given comes from the settings.

    Attributes:
        command: the shell line.
        id: its id; a random UUID if none is given.
        max_retries: attempts in all.
        timeout: seconds that an attempt may run, or `NO_LIMIT`; none for the setting's value.
        cwd: the folder to run in; the current one if none is given.
    """

    command: str
    id: Optional[str] = None
    max_retries: Optional[int] = None
    timeout: Optional[float] = None
    cwd: Optional[str] = None


class QueueManager:
    """A job queue.

    Args:
        store: where its jobs are kept.
        environ: where settings are looked up; the process's own environment by default.
    """

    def __init__(self, store: Store, environ: Optional[Mapping[str, str]] = None) -> None:
        self.store = store
        self._environ = environ
        self._settings: Optional[Settings] = None
        self._stored: Optional[Mapping[str, str]] = None

    @classmethod
    def open(
        cls,
        location: Optional[str] = None,
        *,
        create: bool = True,
        notice: Notice = lambda text: None,
    ) -> QueueManager:
        """Open the queue of a store.

        Args:
            location: the store's folder; by default `QUEUECTL_STORE`, else the nearest
                `queuectl_data`.
            create: whether to make the store where there is none.
            notice: told, in one line each, what a user should know.

        Raises:
            StoreError, DamagedError, StoreLockedError: see `queuectl.errors`.
        """
        from queuectl.store.opening import locate, open_store

        return cls(open_store(locate(location), create, notice))

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def __enter__(self) -> QueueManager:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        """The settings as they are now.

        Raises:
            InvalidValueError: a variable or a stored value is none of its setting.
        """
        stored = self.store.settings()
        if self._settings is None or stored is not self._stored:
            self._settings = Settings(stored, self._environ)
            self._stored = stored
        return self._settings

    @property
    def last_settings(self) -> Settings:
        """The settings, as they were last if they can no longer be read.

        What began must be able to end.
        """
        try:
            return self.settings
        except QueueError:
            if self._settings is None:
                raise
            return self._settings

    @property
    def known_settings(self) -> Settings:
        """The settings as they were read last, as by a `claim`."""
        return self.settings if self._settings is None else self._settings

    def enqueue(
        self,
        command: str,
        *,
        id: Optional[str] = None,
        max_retries: Optional[int] = None,
        timeout: Optional[float] = None,
        cwd: Optional[str] = None,
    ) -> Job:
        """Add a job; once this returns, the job survives a crash.

        Args:
            command: the shell line.
            id: its id; a random UUID by default.
            max_retries: attempts in all; the setting by default.
            timeout: seconds that an attempt may run, or `NO_LIMIT`; the setting `job_timeout` by
                default.
            cwd: the folder to run in; the current one by default.

        Raises:
            InvalidValueError: the command or the id can never be right.
            DuplicateIdError: a job has this id.
        """
        return self.enqueue_many([NewJob(command, id, max_retries, timeout, cwd)])[0]

    def enqueue_many(self, requests: Sequence[NewJob]) -> List[Job]:
        """Add jobs, all or none; see `enqueue`.

        Raises:
            DuplicateIdError: also if two of them have the same id.
        """
        settings = self.settings
        now = clock.now()
        cwd: Optional[str] = None
        jobs: List[Job] = []
        for request in requests:
            if request.cwd is None and cwd is None:
                cwd = current_folder()
            jobs.append(
                rules.enqueue(
                    request.id if request.id is not None else str(uuid.uuid4()),
                    request.command,
                    now,
                    max_retries=(
                        settings["max_retries"]
                        if request.max_retries is None
                        else request.max_retries
                    ),
                    timeout=_or_no_limit(
                        settings["job_timeout"] if request.timeout is None else request.timeout
                    ),
                    cwd=request.cwd or cwd or "/",
                )
            )
        given = [request.id for request in requests if request.id is not None]
        seen = set()
        for job_id in given:
            if job_id in seen:
                raise DuplicateIdError(job_id)
            seen.add(job_id)
        return self.store.add(jobs, given)

    def find(self, job_id: str) -> Job:
        """Return the job of this id, or the only one whose id begins so.

        Args:
            job_id: an id, or at least four of its first characters.

        Raises:
            NotFoundError: there is none.
            AmbiguousIdError: several begin so.
        """
        try:
            rules.validate_id(job_id)
        except InvalidValueError as error:
            raise NotFoundError(job_id) from error
        job = self.store.get(job_id)
        if job is None and len(job_id) >= _PREFIX_LENGTH:
            candidates = self.store.find(job_id, _CANDIDATES)
            if len(candidates) > 1:
                raise AmbiguousIdError(job_id, candidates)
            job = self.store.get(candidates[0]) if candidates else None
        if job is None:
            raise NotFoundError(job_id)
        return job

    def jobs(
        self, states: Sequence[str] = JobState.ALL, limit: Optional[int] = None
    ) -> Iterator[Job]:
        """Yield the jobs in these states, newest first, at most `limit`."""
        return self.store.select(states, limit)

    def counts(self) -> Counts:
        """Return how many jobs there are in each state."""
        return self.store.counts()

    def scheduled(self, counts: Counts) -> int:
        """Return how many of the pending jobs wait for their time."""
        if counts.delayed == 0:
            return 0
        now = clock.to_iso(clock.now())
        return sum(
            job.run_at is not None and job.run_at > now for job in self.jobs([JobState.PENDING])
        )

    def retry_dead(self, job_ids: Optional[Sequence[str]] = None) -> List[Job]:
        """Make dead jobs pending again, with all their attempts, all or none.

        Args:
            job_ids: which; all dead jobs by default.

        Returns:
            The jobs as they are now.

        Raises:
            NotFoundError, AmbiguousIdError: an id is none.
            WrongStateError: a job is not dead.
        """

        def retry(dead: List[Job]) -> List[Job]:
            now = clock.now()
            retried = [rules.retry(job, now) for job in dead]
            self.store.save(retried)
            return retried

        return self._change_dead(job_ids, retry)

    def purge_dead(self, job_ids: Optional[Sequence[str]] = None) -> List[Job]:
        """Delete dead jobs and their output, all or none; see `retry_dead`.

        Returns:
            The jobs as they were.
        """

        def purge(dead: List[Job]) -> List[Job]:
            self.store.remove(dead)
            return dead

        return self._change_dead(job_ids, purge)

    def configure(self, name: str, text: Optional[str]) -> None:
        """Store a setting, or take it out again.

        Args:
            name: the setting.
            text: its value as text; none for its default.

        Raises:
            InvalidValueError: there is no such setting, or it cannot be that.
        """
        from queuectl.config import setting

        entry = setting(name)
        self.store.configure({entry.name: None if text is None else entry.write(entry.read(text))})

    def claim(
        self,
        worker: str,
        done: Optional[Job] = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Optional[Job]:
        """Claim the oldest job that is due and, in the same commit, save the one that is done.

        Args:
            worker: who claims.
            done: the job whose result is saved, if there is one.
            wanted: asked in the last moment whether to claim at all.

        Raises:
            ClaimLostError: what it has done is another's by now; nothing was claimed.
            ConflictError: what it has done was changed meanwhile; nothing was claimed.
        """
        horizon = self.settings.retry_policy.horizon
        return self.store.claim(worker, clock.now(), horizon, done, wanted)

    def conclude(
        self, job: Job, error: Optional[str], exit_code: Optional[int], interrupted: bool
    ) -> Job:
        """Decide what becomes of a job whose run ended; the result is still to be saved.

        Args:
            job: the job as it was claimed.
            error: what went wrong, in words; nothing if nothing did.
            exit_code: what its shell ended with, if it ended by itself.
            interrupted: whether a shutdown ended it.
        """
        now = clock.now()
        if interrupted:
            return rules.release(job, now)
        if error is None:
            return rules.complete(job, now)
        return rules.fail(
            job, now, error, self.last_settings.retry_policy.delay(job.attempts), exit_code
        )

    def rescue(self, lost: Lost) -> Optional[Job]:
        """Take the job of a dead worker back into the queue, or into the DLQ.

        Returns:
            The job as it is now; nothing if the worker held none, or another supervisor was faster.
        """
        job = lost.job
        while job is not None and job.worker == lost.member.id:
            delay = self.last_settings.retry_policy.delay(job.attempts)
            rescued = rules.rescue(job, clock.now(), delay)
            try:
                self.store.save([rescued], durable=False)
                return rescued
            except ConflictError:
                job = self.store.get(job.id)
        return None

    def trim_output(self) -> None:
        """Remove the oldest output until as much is kept as the setting `keep_output` allows.

        That of dead jobs stays, and of jobs that wait or run that of the last run.
        """
        limit = self.last_settings["keep_output"]
        if limit is not None:
            self.store.trim_output(limit, self._first_runs_to_keep)

    def _first_runs_to_keep(self) -> Dict[str, int]:
        unfinished = (JobState.DEAD, JobState.PENDING, JobState.FAILED, JobState.PROCESSING)
        return {
            job.id: 1 if job.state == JobState.DEAD else job.runs for job in self.jobs(unfinished)
        }

    def is_drained(self) -> bool:
        """Tell whether nothing is running, waiting for a worker, or waiting for its retry."""
        counts = self.store.counts()
        if counts.processing or counts.failed or counts.pending > counts.delayed:
            return False
        return not counts.delayed or not self.store.claimable(
            clock.now(), self.settings.retry_policy.horizon
        )

    def members(self, role: str) -> List[Member]:
        """Return the living workers or supervisors, oldest first."""
        return self.store.members(role)

    def _change_dead(
        self, job_ids: Optional[Sequence[str]], change: Callable[[List[Job]], List[Job]]
    ) -> List[Job]:
        while True:
            if job_ids is None:
                dead = list(self.jobs([JobState.DEAD]))
            else:
                dead = list({job.id: job for job in map(self.find, job_ids)}.values())
            for job in dead:
                if job.state != JobState.DEAD:
                    raise WrongStateError(f"job {job.id!r} is {job.state}, not in the DLQ")
            try:
                return change(dead) if dead else []
            except ConflictError:
                continue


def _or_no_limit(timeout: Optional[float]) -> Optional[float]:
    """Turn `NO_LIMIT` into what a job has for it."""
    return None if timeout == NO_LIMIT else timeout


def current_folder() -> str:
    """Return the current folder as the user calls it: `$PWD` where it is the same one.

    Raises:
        RequestError: it was deleted.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise RequestError("the current folder was deleted: change to one that exists") from error
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, here):
            return as_utf8(named)
    except OSError:
        pass
    return as_utf8(here)
