"""What a running `start` asks of the queue: claims, results, rescues and housekeeping."""

from __future__ import annotations

from typing import Callable, Collection, Dict, Mapping, Optional

from queuectl import clock
from queuectl import job as rules
from queuectl.config import Settings
from queuectl.errors import ConflictError, QueueError
from queuectl.family import finish
from queuectl.job import Job, JobState
from queuectl.retry import RetryPolicy
from queuectl.store.base import Lost, Store

_PURGE_INTERVAL = 3600.0  # seconds between two looks for what is too old, over all starts


class Work:
    """The queue as those see it who work on it.

    Args:
        store: where its jobs are kept.
        environ: where settings are looked up; the process's own environment by default.
    """

    def __init__(self, store: Store, environ: Optional[Mapping[str, str]] = None) -> None:
        self.store = store
        self._environ = environ
        self._settings: Optional[Settings] = None
        self._stored: Optional[Mapping[str, str]] = None

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
            finish(self.store, done)
            done = None
        horizon = self.settings.retry_policy.horizon
        return self.store.claim(worker, self.store.now(), horizon, done, wanted, queues)

    def finish(self, done: Job) -> None:
        """Save the result of a run by itself; raises what `claim` does."""
        finish(self.store, done)

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
        now = self.store.now()
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
            delay = self._policy(job).delay(job.attempts)
            rescued = rules.rescue(job, self.store.now(), delay)
            try:
                finish(self.store, rescued)
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

    def purge_old(self) -> None:
        """Delete the finished jobs that the setting `keep_finished` does not keep; none that died.

        Those that ended so long ago, or all but so many that ended last.
        """
        from queuectl.changes import purge_old

        keep = self.last_settings["keep_finished"]
        if keep is not None:
            purge_old(self.store, keep)

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
        horizon = self.settings.retry_policy.horizon
        if self.store.claimable(self.store.now(), horizon, queues):
            return False
        return not (self.store.counts().failed and self.store.awaits_retry(queues))

    def _policy(self, job: Job) -> RetryPolicy:
        """The backoff of a job: its own if it has one."""
        policy = self.last_settings.retry_policy
        if job.backoff_base is None or job.backoff_max is None:
            return policy
        return policy._replace(base=job.backoff_base, maximum=job.backoff_max)
