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
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
)

from queuectl import clock
from queuectl.admission import Receipt, admit, restore
from queuectl.errors import (
    AmbiguousIdError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    RequestError,
    WrongStateError,
)
from queuectl.family import doomed, is_kept
from queuectl.job import WAITING, Job, JobState
from queuectl.newjob import NewJob
from queuectl.queues import QueueRule, read_rules, rule_changes
from queuectl.store.base import Counts, Member, Node, Notice
from queuectl.values import validate_id, validate_queue
from queuectl.work import Work

if TYPE_CHECKING:
    # What enqueueing does not need is imported where it is used: it would double the time that
    # our own modules take there.
    from queuectl.changes import Cancelled, Retried
    from queuectl.filter import JobFilter
    from queuectl.reasons import Reason

_PREFIX_LENGTH = 4
_CANDIDATES = 5


class QueueManager(Work):
    """A job queue.

    Args:
        store: where its jobs are kept.
        environ: where settings are looked up; the process's own environment by default.
    """

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
            location: the store's folder or URL; by default `QUEUECTL_STORE`, else the nearest
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
        return admit(self.store, requests, self.settings, self.store.now(), self.find)

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

    def jobs(
        self, wanted: Optional[JobFilter] = None, limit: Optional[int] = None
    ) -> Iterator[Job]:
        """Yield the jobs that are wanted, all by default, newest first, at most `limit`."""
        if wanted is None:
            return self.store.select(JobState.ALL, limit)
        if wanted.is_plain:
            return self.store.select(wanted.states, limit, wanted.before)
        found = filter(wanted.takes, self.store.select(wanted.states, None, wanted.before))
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
        from queuectl.waiting import until_over

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
        from queuectl.outputs import open_output, why_none

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
        now = clock.to_iso(self.store.now())
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
        from queuectl.reasons import reasons

        if not job.waits:
            return []
        ids = (*job.after, *job.after_any) if job.parents else ()
        parents = [parent for parent in map(self.store.get, ids) if parent is not None]
        return reasons(
            job,
            self.store.now(),
            horizon=self.settings.retry_policy.horizon,
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
        from queuectl import changes

        return changes.retry(self.store, lambda: self._named(job_ids)).jobs

    def retry_all(self, wanted: JobFilter) -> Retried:
        """Make all jobs pending that are wanted, but those whose unique key another has."""
        from queuectl import changes

        return changes.retry(self.store, lambda: list(self.jobs(wanted)), lenient=True)

    def retry_dead(self, job_ids: Optional[Sequence[str]] = None) -> List[Job]:
        """Make dead jobs pending again, with all their attempts; see `retry`.

        Args:
            job_ids: which; by default all, but those whose unique key another has.
        """
        from queuectl import changes
        from queuectl.filter import DEAD_JOBS

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
        from queuectl import changes

        return changes.cancel(self.store, lambda: self._named(job_ids))

    def followers(self, jobs: Sequence[Job]) -> List[Job]:
        """Return the jobs that are cancelled if these are, as they would be then."""
        return doomed(self.store, jobs, self.store.now(), "cancelled")

    def cancel_all(self, wanted: JobFilter) -> Cancelled:
        """End the jobs that are wanted and not over; see `cancel`."""
        from queuectl import changes

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
        from queuectl import changes

        return changes.edit(self.store, lambda: self.find(job_id), values)

    def purge_dead(self, job_ids: Optional[Sequence[str]] = None) -> Cancelled:
        """Delete dead jobs and their output, all or none; what was to follow them is cancelled.

        Args:
            job_ids: which; all by default, a part at a time.
        """
        from queuectl import changes
        from queuectl.filter import DEAD_JOBS

        if job_ids is None:
            return self.purge(DEAD_JOBS)
        while True:
            with contextlib.suppress(ConflictError):
                return changes.purge(self.store, self._dead(job_ids))

    def purge_jobs(self, job_ids: Sequence[str]) -> Cancelled:
        """Delete jobs that are over and their output, all or none; see `purge_dead`.

        Raises:
            NotFoundError, AmbiguousIdError: an id is none.
            WrongStateError: one is not over.
        """
        from queuectl import changes

        while True:
            with contextlib.suppress(ConflictError):
                return changes.purge(self.store, self._named(job_ids))

    def purge(self, wanted: JobFilter) -> Cancelled:
        """Delete all jobs that are wanted and over, and their output, a part at a time."""
        from queuectl import changes

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

    def members(self, role: str) -> List[Member]:
        """Return the living workers or supervisors, oldest first."""
        return self.store.members(role)

    def nodes(self) -> List[Node]:
        """Return the machines that work on the store, by name."""
        return self.store.nodes()

    def _named(self, job_ids: Sequence[str]) -> List[Job]:
        return list({job.id: job for job in map(self.find, job_ids)}.values())

    def _dead(self, job_ids: Sequence[str]) -> List[Job]:
        dead = self._named(job_ids)
        for job in dead:
            if job.state != JobState.DEAD:
                raise WrongStateError(f"job {job.id!r} is {job.state}, not in the DLQ")
        return dead
