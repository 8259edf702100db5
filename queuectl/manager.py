"""The queue as programs use it: every rule that is not a matter of atomicity.

A rule decides on a job that was read, and the store refuses the result if the job moved on
meanwhile; then it is read and decided again. So no rule ever needs a lock, and none can act on what
is no longer so.
"""

from __future__ import annotations

import contextlib
import os
from itertools import islice
from typing import (
    Any,
    BinaryIO,
    Callable,
    Collection,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
)

from queuectl import changes, clock
from queuectl import job as rules
from queuectl.admission import Receipt, admit, restore
from queuectl.changes import Cancelled, Retried
from queuectl.config import Settings
from queuectl.errors import (
    AmbiguousIdError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    QueueError,
    RequestError,
    WrongStateError,
)
from queuectl.family import doomed, is_kept
from queuectl.filter import DEAD_JOBS, EVERY_JOB, JobFilter
from queuectl.job import WAITING, Job, JobState
from queuectl.newjob import NewJob
from queuectl.outputs import open_output, why_none
from queuectl.queues import QueueRule, read_rules, rule_changes
from queuectl.reasons import Reason, reasons
from queuectl.retry import RetryPolicy
from queuectl.store.base import Counts, Lost, Member, Notice, Store
from queuectl.values import validate_id, validate_queue
from queuectl.waiting import until_over

_PREFIX_LENGTH = 4
_CANDIDATES = 5
_PURGE_INTERVAL = 3600.0  # seconds between two looks for what is too old, over all starts


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

    def enqueue(self, command: str, **options: Any) -> Job:
        """Add a job; once this returns, the job survives a crash.

        Args:
            command: the shell line.
            **options: the other attributes of `NewJob`, such as `id`, `max_retries`, `priority`,
                `after`; what is not given comes from the settings.

        Returns:
            The new job; or the one that holds its unique key, if `on_conflict` is `skip`, as it is
            by default.

        Raises:
            InvalidValueError: something can never be right.
            DuplicateIdError: a job has this id.
            KeyTakenError: a job has this unique key, and `on_conflict` is `error`.
            NotFoundError, AmbiguousIdError: a job that it is to follow is none.
            WrongStateError: a job that it is to follow was cancelled, or one that it is to replace
                is running.
        """
        return self.submit([NewJob(command, **options)]).jobs[0]

    def enqueue_many(self, requests: Sequence[NewJob]) -> List[Job]:
        """Add jobs, all or none; see `enqueue`.

        They may follow each other, by the ids that they are given here.

        Raises:
            DuplicateIdError: also if two of them have the same id.
            InvalidValueError: also if they wait for each other in a circle.
        """
        return self.submit(requests).jobs

    def submit(self, requests: Sequence[NewJob]) -> Receipt:
        """Add jobs as `enqueue_many` does, and tell what else a user should know."""
        return admit(self.store, requests, self.settings, clock.now(), self.find)

    def restore(self, jobs: Sequence[Job]) -> List[Job]:
        """Add jobs as they are, in whatever state, as when a queue is moved here; all or none."""
        return restore(self.store, jobs)

    def find(self, job_id: str) -> Job:
        """Return the job of this id, or the only one whose id begins so.

        Args:
            job_id: an id, or at least four of its first characters.

        Raises:
            NotFoundError: there is none.
            AmbiguousIdError: several begin so.
        """
        try:
            validate_id(job_id)
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

    def jobs(self, wanted: JobFilter = EVERY_JOB, limit: Optional[int] = None) -> Iterator[Job]:
        """Yield the jobs that are wanted, newest first, at most `limit`."""
        if wanted.is_plain:
            return self.store.select(wanted.states, limit)
        found = filter(wanted.takes, self.store.select(wanted.states))
        return islice(found, limit)

    def wait(self, job_ids: Sequence[str], timeout: Optional[float] = None) -> List[Job]:
        """Wait until jobs have ended: completed, dead or cancelled.

        Args:
            job_ids: which.
            timeout: for how many seconds at the most; none for as long as it takes.

        Returns:
            The jobs as they were when they had ended, in the order of the ids.

        Raises:
            NotFoundError, AmbiguousIdError: an id is none, or that of a job purged meanwhile.
            WaitTimeoutError: the time is over.
        """
        jobs = [self.find(job_id) for job_id in job_ids]
        ended: Dict[str, Job] = {}
        for job_id, job in until_over(self.store, {job.id: job.seq for job in jobs}, timeout):
            if job is None:
                raise NotFoundError(job_id)
            ended[job_id] = job
        return [ended[job.id] for job in jobs]

    def logs(self, job_id: str, run: Optional[int] = None) -> BinaryIO:
        """Open what a job printed, also while it runs.

        Args:
            job_id: which.
            run: of which run; the newest that printed anything by default.

        Returns:
            A file of bytes as they were printed, to read, to iterate over its lines, and to be
            closed by the caller.

        Raises:
            NotFoundError, AmbiguousIdError: the id is none.
            RequestError: there is no output.
            StoreError: it cannot be read.
        """
        job = self.find(job_id)
        found = open_output(self.store, job, run)
        if found is None:
            raise RequestError(why_none(job, run))
        return os.fdopen(found.fd, "rb")

    def counts(self) -> Counts:
        """Return how many jobs there are in each state."""
        return self.store.counts()

    def scheduled(self, counts: Counts) -> int:
        """Return how many of the pending jobs wait for their time."""
        if counts.delayed == 0:
            return 0
        now = clock.to_iso(clock.now())
        return sum(
            job.run_at is not None and job.run_at > now
            for job in self.store.select([JobState.PENDING])
        )

    def blocked(self) -> int:
        """Return how many waiting jobs wait for others."""
        if self.store.bound() == 0:
            return 0
        bound = [job for job in self.store.select(WAITING) if job.parents]
        wanted = {abs(seq) for job in bound for seq in job.parents}
        states = {job.seq: job for job in self.store.select(JobState.ALL) if job.seq in wanted}
        return sum(is_kept(job, states) for job in bound)

    def waiting_for(self, job: Job) -> List[Reason]:
        """Return every reason for which a job that waits cannot be claimed now."""
        if not job.waits:
            return []
        ids = (*job.after, *job.after_any) if job.parents else ()
        parents = [parent for parent in map(self.store.get, ids) if parent is not None]
        return reasons(
            job,
            clock.now(),
            parents={parent.id: parent for parent in parents},
            rule=read_rules(self.store.settings()).get(job.queue, QueueRule()),
            running=self.store.running().get(job.queue, 0),
            supervisors=self.members("supervisor"),
        )

    def retry(self, job_ids: Sequence[str]) -> List[Job]:
        """Make failed, dead and cancelled jobs pending at once, all or none.

        Returns:
            The jobs as they are now.

        Raises:
            NotFoundError, AmbiguousIdError: an id is none.
            WrongStateError: a job is in another state.
            KeyTakenError: another job has the unique key of one.
        """
        return changes.retry(self.store, lambda: self._named(job_ids)).jobs

    def retry_all(self, wanted: JobFilter) -> Retried:
        """Make all jobs pending that are wanted, but those whose unique key another has."""
        return changes.retry(self.store, lambda: list(self.jobs(wanted)), lenient=True)

    def retry_dead(self, job_ids: Optional[Sequence[str]] = None) -> List[Job]:
        """Make dead jobs pending again, with all their attempts; see `retry`.

        Args:
            job_ids: which; by default all, but those whose unique key another has.
        """
        if job_ids is None:
            return self.retry_all(DEAD_JOBS).jobs
        return changes.retry(self.store, lambda: self._dead(job_ids)).jobs

    def cancel(self, job_ids: Sequence[str]) -> Cancelled:
        """End jobs, all or none, and with them those that were to follow them.

        One that runs is ended by who runs it, within a second.

        Raises:
            NotFoundError, AmbiguousIdError: an id is none.
            WrongStateError: a job is over.
        """
        return changes.cancel(self.store, lambda: self._named(job_ids))

    def followers(self, jobs: Sequence[Job]) -> List[Job]:
        """Return the jobs that are cancelled if these are, as they would be then."""
        return doomed(self.store, jobs, clock.now(), "cancelled")

    def cancel_all(self, wanted: JobFilter) -> Cancelled:
        """End the jobs that are wanted and not over; see `cancel`."""
        return changes.cancel(
            self.store, lambda: [job for job in self.jobs(wanted) if not job.is_over]
        )

    def edit(self, job_id: str, **values: Any) -> Job:
        """Change a job that waits, or is dead.

        Args:
            job_id: which.
            **values: any of `command`, `priority`, `run_at`, `queue` and `max_retries`.

        Raises:
            NotFoundError, AmbiguousIdError: there is no such job.
            WrongStateError: it is in another state, or has used its attempts.
            InvalidValueError: it can never be that.
        """
        return changes.edit(self.store, lambda: self.find(job_id), values)

    def purge_dead(self, job_ids: Optional[Sequence[str]] = None) -> Cancelled:
        """Delete dead jobs and their output, all or none; what was to follow them is cancelled.

        Args:
            job_ids: which; all by default, a part at a time.
        """
        if job_ids is None:
            return self.purge(DEAD_JOBS)
        while True:
            with contextlib.suppress(ConflictError):
                return changes.purge(self.store, self._dead(job_ids))

    def purge(self, wanted: JobFilter) -> Cancelled:
        """Delete all jobs that are wanted and over, and their output, a part at a time."""
        over = [job for job in self.jobs(wanted) if job.is_over]
        return changes.purge_in_parts(self.store, over)

    def queue_rules(self) -> Dict[str, QueueRule]:
        """Return what is set for queues, by name; the others have none."""
        return read_rules(self.store.settings())

    def set_queue(self, name: str, **values: Any) -> QueueRule:
        """Change what is set for a queue.

        Args:
            name: the queue; no job need be in it yet.
            **values: `concurrency`, none for no limit, or `paused`.

        Raises:
            InvalidValueError: the name, or a value, can never be right.
        """
        rule = self.queue_rules().get(validate_queue(name), QueueRule())._replace(**values)
        self.store.configure(rule_changes(name, values))
        return rule

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
        queues: Optional[Collection[str]] = None,
    ) -> Optional[Job]:
        """Claim the next job that is due and, in the same commit, save the one that is done.

        Args:
            worker: who claims.
            done: the job whose result is saved, if there is one.
            wanted: asked in the last moment whether to claim at all.
            queues: from which queues; none for all.

        Raises:
            ClaimLostError: what it has done is another's by now; nothing was claimed.
            ConflictError: what it has done was changed meanwhile; nothing was claimed.
        """
        if done is not None and done.dependents and done.state == JobState.CANCELLED:
            changes.finish(self.store, done)
            done = None
        horizon = self.settings.retry_policy.horizon
        return self.store.claim(worker, clock.now(), horizon, done, wanted, queues)

    def finish(self, done: Job) -> None:
        """Save the result of a run by itself; raises what `claim` does."""
        changes.finish(self.store, done)

    def conclude(
        self,
        job: Job,
        error: Optional[str],
        exit_code: Optional[int] = None,
        *,
        interrupted: bool = False,
        timed_out: bool = False,
        signal: Optional[int] = None,
    ) -> Job:
        """Decide what becomes of a job whose run ended; the result is still to be saved.

        Args:
            job: the job as it was claimed.
            error: what went wrong, in words; nothing if nothing did.
            exit_code: what its shell ended with, if it ended by itself.
            interrupted: whether a shutdown ended it.
            timed_out: whether it was ended because its time was over.
            signal: the number of the signal that ended its shell, if one did.
        """
        now = clock.now()
        if interrupted:
            return rules.release(job, now)
        was_left_alone = not (timed_out or job.cancel_requested) or error is None
        if exit_code is not None and exit_code in job.success_codes and was_left_alone:
            return rules.complete(job, now, exit_code)
        return rules.fail(
            job,
            now,
            error or f"Exit code {exit_code}",
            self._policy(job).delay(job.attempts),
            exit_code,
            signal=signal,
            timed_out=timed_out,
        )

    def rescue(self, lost: Lost) -> Optional[Job]:
        """Take the job of a dead worker back into the queue, or into the DLQ.

        Returns:
            The job as it is now; nothing if the worker held none, or another supervisor was faster.
        """
        job = lost.job
        while job is not None and job.worker == lost.member.id:
            rescued = rules.rescue(job, clock.now(), self._policy(job).delay(job.attempts))
            try:
                changes.finish(self.store, rescued)
                return rescued
            except ConflictError:
                job = self.store.get(job.id)
        return None

    def purge_is_due(self) -> bool:
        """Tell, at little cost, whether `purge_old` may find something to do."""
        keep = self.last_settings["keep_finished"]
        if keep is None:
            return False
        if keep.isdigit():
            counts = self.store.counts()
            return counts.completed + counts.cancelled > int(keep)
        # What is younger than its store is kept, and what comes with an import, so long more.
        age = clock.parse_duration(keep)
        return self.store.age() >= age and self.store.take_turn(min(_PURGE_INTERVAL, age))

    def purge_old(self) -> Cancelled:
        """Delete the finished jobs that the setting `keep_finished` does not keep; none that died.

        Those that ended so long ago, or all but so many that ended last.
        """
        keep = self.last_settings["keep_finished"]
        wanted = JobFilter((JobState.COMPLETED, JobState.CANCELLED))
        if keep is None:
            return Cancelled([], [])
        if not keep.isdigit():
            return self.purge(
                wanted._replace(ended_before=clock.now() - clock.parse_duration(keep))
            )
        ends = sorted(((job.finished_at or "", job.seq) for job in self.jobs(wanted)), reverse=True)
        old = {seq for _, seq in ends[int(keep) :]}
        return changes.purge_in_parts(
            self.store, [job for job in self.jobs(wanted) if job.seq in old]
        )

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
            job.id: 1 if job.state == JobState.DEAD else job.runs
            for job in self.store.select(unfinished)
        }

    def is_drained(self, queues: Optional[Collection[str]] = None) -> bool:
        """Tell whether there is nothing left to do without somebody's help.

        Nothing is running, can be claimed, or waits for its retry. Nobody waits for what is
        scheduled, for a queue that is paused, or for jobs that follow one of these.

        Args:
            queues: in which queues; none for all.
        """
        running = self.store.running()
        if any(running.values() if queues is None else map(running.get, queues)):
            return False
        if self.store.claimable(clock.now(), self.settings.retry_policy.horizon, queues):
            return False
        return not (self.store.counts().failed and self.store.awaits_retry(queues))

    def members(self, role: str) -> List[Member]:
        """Return the living workers or supervisors, oldest first."""
        return self.store.members(role)

    def _policy(self, job: Job) -> RetryPolicy:
        """The backoff of a job: its own if it has one."""
        policy = self.last_settings.retry_policy
        if job.backoff_base is None or job.backoff_max is None:
            return policy
        return policy._replace(base=job.backoff_base, maximum=job.backoff_max)

    def _named(self, job_ids: Sequence[str]) -> List[Job]:
        return list({job.id: job for job in map(self.find, job_ids)}.values())

    def _dead(self, job_ids: Sequence[str]) -> List[Job]:
        dead = self._named(job_ids)
        for job in dead:
            if job.state != JobState.DEAD:
                raise WrongStateError(f"job {job.id!r} is {job.state}, not in the DLQ")
        return dead
