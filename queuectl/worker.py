"""A worker: one process that claims a job, runs it and reports how it went, until told to stop.

It heeds its supervisor, not the terminal: orders come through a pipe, whose end means that the
supervisor is gone and counts as the order to stop. Handlers of signals only set a flag; the loop
decides. A result is saved by the same commit that claims the next job. One that cannot be saved is
kept, and nothing is claimed, until it can.
"""

from __future__ import annotations

import math
import os
import random
import signal
from mmap import mmap
from time import monotonic
from typing import Callable, Optional, Sequence, Tuple

from queuectl import machine
from queuectl.clock import format_duration
from queuectl.config import Settings
from queuectl.errors import (
    ConflictError,
    QueueError,
    StoreAwayError,
    StoreError,
    StoreFullError,
    StoreGoneError,
    StoreLockedError,
)
from queuectl.events import Event, EventKind, Report
from queuectl.hot import Hot
from queuectl.job import Job, JobState
from queuectl.keeper import Keeper
from queuectl.manager import QueueManager
from queuectl.runner import TIMEOUT, Limits, Outcome, Runner
from queuectl.sharing import Sharing
from queuectl.store.base import Member
from queuectl.waiter import Waiter

WAKE, STOP, FORCE = b"w", b"s", b"f"
"""The orders that a supervisor gives."""

AWAY, ENDING = -2, -1
"""Which bytes, shared by all, say that somebody has told that the store is away, and why all must
end: which all find out at once."""

_SHUTDOWN = "shutdown"
_CANCEL = "cancel"
_CUT_OFF = "lost claim"
_DRAIN_LOOK = 1.0  # seconds between two looks whether anything is left to be done
_STAND_BY = 0.25  # seconds between two looks whether there is room among those who claim
_RETRY_PAUSE = 1.0  # seconds between two attempts to save a result
_AWAY_FOR_ME = 5.0  # seconds after which the store is away for this worker alone, or it was told of
_KINDS = {
    JobState.PENDING: EventKind.INTERRUPTED,
    JobState.COMPLETED: EventKind.COMPLETED,
    JobState.FAILED: EventKind.FAILED,
    JobState.DEAD: EventKind.DEAD,
    JobState.CANCELLED: EventKind.CANCELLED,
}


class Worker:
    """A worker, to be run in a process of its own.

    Args:
        manager: the queue.
        member: how it enrolls.
        orders: the descriptor from which orders come.
        resting: a byte, at `slot`, that says whether it waits for a job and may be woken for one;
            then `AWAY` and `ENDING`.
        hot: knows who may claim.
        slot: its place in `resting`, and in `hot`.
        drain: whether to end once there is nothing left to do.
        queues: from which queues it claims; none for all.
        report: told what happens.
        notify: given each job that it has saved, and the settings; says whether it could take that.
    """

    def __init__(
        self,
        manager: QueueManager,
        member: Member,
        *,
        orders: int,
        resting: mmap,
        hot: Hot,
        slot: int,
        drain: bool,
        queues: Optional[Sequence[str]],
        report: Report,
        notify: Callable[[Job, Settings], bool],
    ) -> None:
        self._manager = manager
        self._store = manager.store
        self._member = member
        self._orders = orders
        self._resting = resting
        self._hot = hot
        self._stands_by = False
        self._cooled = False
        self._slot = slot
        self._drain = drain
        self._queues = queues
        self._report = report
        self._notify = notify
        self._terminated = False
        self._end_jobs_at = math.inf
        self._stopping = False
        self._warned = False
        self._away_since: Optional[float] = None
        self._sharing = Sharing(
            self._store,
            self._store.spool(member.id),
            lambda: int(manager.known_settings["redis_output"]),
        )
        self._keeper = Keeper(self._store, member.id, self._sharing.so_far)
        self._ran = 0.0

    def run(self) -> int:
        """Work until told to stop; returns the exit code."""
        self._set_handlers()
        self._waiter = Waiter()
        self._waiter.register(self._orders)
        os.set_blocking(self._orders, False)
        random.seed()
        self._store.after_fork()
        self._tells_steps = self._manager.known_settings["log_level"] == "DEBUG"
        environ = {**machine.given_environ(), "QUEUECTL_STORE": self._store.url}
        self._runner = Runner(self._store.spool(self._member.id), environ, self._wait)
        try:
            if self._enroll():
                self._say(EventKind.STARTED)
                self._work()
                self._leave()
        except QueueError as error:
            # Its claim, if it holds one, is rescued; so it does not leave, but is found missing.
            if not self._resting[ENDING]:
                self._resting[ENDING] = 1
                self._say(EventKind.WARNING, detail=str(error))
            return error.exit_code
        return 0

    def _enroll(self) -> bool:
        """Join the store; tell whether it could before it was told to stop."""
        while not self._is_stopping():
            try:
                self._store.enroll(self._member)
            except (StoreAwayError, StoreFullError, StoreLockedError) as error:
                self._wait_after(error)
            else:
                self._note_success()
                return True
        return False

    def _leave(self) -> None:
        try:
            self._runner.keep()
        except OSError as error:
            # Found missing, it is buried, which keeps its output once there is room.
            raise StoreFullError(f"cannot keep the output: {error.strerror}") from error
        self._runner.close()
        self._store.leave(self._member.id)

    def _work(self) -> None:
        done: Optional[Job] = None
        while not self._is_stopping():
            job = self._claim_next(done)
            done = None
            if job is not None:
                done = self._execute(job)
            elif self._is_stopping():
                break
            elif self._stands_by:
                self._stand_by()
            elif self._drain and self._is_drained():
                return
            else:
                self._rest()
        self._save(done)

    def _is_drained(self) -> bool:
        try:
            return self._manager.is_drained(self._queues)
        except StoreAwayError as error:
            self._wait_after(error)
            return False

    def _claim_next(self, done: Optional[Job]) -> Optional[Job]:
        self._resting[self._slot] = 0
        if done is not None and self._cooled:
            self._stands_by = False
            self._hot.join(self._slot)
        else:
            self._stands_by = not self._hot.enter(self._slot)
        if self._stands_by and done is None:
            return None
        job = self._claim(done)
        if job is None and not self._is_stopping():
            self._forget_job()
            if self._stands_by:
                return None
            # From here on it is woken for a new job; one that came just before must not be missed.
            self._resting[self._slot] = 1
            job = self._claim(None)
            if job is None:
                self._hot.leave(self._slot)
            else:
                self._resting[self._slot] = 0
        return job

    def _claim(self, done: Optional[Job]) -> Optional[Job]:
        """Save what is done and claim the next job; until the first succeeds, do nothing else."""
        while True:
            try:
                self._runner.keep()
                self._sharing.finish()
                asked_at = monotonic()
                try:
                    job = self._manager.claim(self._member.id, done, self._wants_job, self._queues)
                except ConflictError:
                    done = self._follow_from_newest(done)
                    continue
            except (OSError, StoreError, StoreLockedError) as error:
                self._wait_after(error)
                if self._is_stopping():
                    self._save(done)
                    return None
            except QueueError:
                # If only the settings are damaged, what is done can be saved all the same.
                self._save(done)
                raise
            else:
                self._note_success()
                if done is not None:
                    self._say_done(done, self._manager.known_settings)
                if job is not None:
                    self._keeper.renewed_at = asked_at
                    self._say_step(EventKind.CLAIMED, job)
                return job

    def _save(self, done: Optional[Job]) -> None:
        """Save the last result, if there is one, for as long as a shutdown allows to try."""
        while done is not None:
            try:
                self._sharing.finish()
                try:
                    self._manager.finish(done)
                except ConflictError:
                    done = self._follow_from_newest(done)
                    continue
            except (StoreError, StoreLockedError) as error:
                if monotonic() >= self._end_jobs_at:
                    raise
                self._wait_after(error)
                continue
            else:
                self._say_done(done, self._manager.last_settings)
            return

    def _follow_from_newest(self, done: Optional[Job]) -> Optional[Job]:
        """Conclude anew on a job that was changed while it ran; nothing if its claim is over."""
        if done is not None:
            now = self._store.get(done.id)
            claim = (done.seq, done.runs, self._member.id)
            if now is not None and (now.seq, now.runs, now.worker) == claim:
                return self._conclude(now)
        self._say(EventKind.WARNING, done, "its result came too late and was dropped")
        return None

    def _wants_job(self) -> bool:
        # Whoever waited for the store's lock may have been told to stop meanwhile.
        self._wait(0)
        return not self._is_stopping() and not self._stands_by

    def _wait_after(self, error: Exception) -> None:
        if isinstance(error, StoreGoneError):
            raise error
        if not self._warned and not self._is_told(error):
            self._warned = True
            what = (
                f"cannot keep the output: {error.strerror}"
                if isinstance(error, OSError)
                else str(error)
            )
            self._say(EventKind.WARNING, detail=f"{what}; trying again each second")
        deadline = monotonic() + _RETRY_PAUSE
        while monotonic() < min(deadline, self._end_jobs_at):
            self._wait(deadline - monotonic())

    def _is_told(self, error: Exception) -> bool:
        """Whether it need not be said: that the store is away, the supervisor finds out."""
        if not isinstance(error, StoreAwayError):
            return False
        if self._away_since is None:
            self._away_since = monotonic()
        return self._resting[AWAY] == 1 or monotonic() < self._away_since + _AWAY_FOR_ME

    def _note_success(self) -> None:
        self._warned = False
        self._away_since = None

    def _execute(self, job: Job) -> Job:
        """Run a claimed job, and decide what becomes of it."""
        settings = self._manager.known_settings
        self._member = self._member._replace(
            job=job.id, run=job.runs, group=None, born=None, boot=None
        )
        self._store.note(self._member)
        self._claimed, self._cut_off, self._cooled = job, False, False
        kept_as = self._store.kept_output(job.id, job.runs)
        self._sharing.begin(settings["max_output"])
        began = monotonic()
        self._keeper.begin(job)
        try:
            outcome = self._runner.run(
                job.command,
                shell=job.shell or settings["shell"],
                cwd=job.cwd,
                variables={
                    **dict(_parted(variable) for variable in job.env),
                    "QUEUECTL_JOB_ID": job.id,
                    "QUEUECTL_JOB_ATTEMPT": str(job.attempts),
                    "QUEUECTL_JOB_RUN": str(job.runs),
                    "QUEUECTL_JOB_MAX_RETRIES": str(job.max_retries),
                },
                limits=Limits(job.timeout, settings["kill_grace"], settings["max_output"]),
                keep_as=kept_as,
                on_spawn=lambda group: self._say_step(EventKind.SPAWNED, job, str(group)),
                on_wait=self._cool,
                on_lasting=self._note_group,
                stop=self._reason_to_end,
            )
        except OSError as error:
            outcome = Outcome(f"No file for the output: {error.strerror}", None, None)
        finally:
            self._keeper.end()
        self._ran = monotonic() - began
        self._sharing.end(job, kept_as)
        self._outcome = outcome
        return self._conclude(job)

    def _conclude(self, job: Job) -> Job:
        outcome = self._outcome
        return self._manager.conclude(
            job,
            outcome.error,
            outcome.exit_code,
            interrupted=outcome.ended_by in (_SHUTDOWN, _CUT_OFF),
            timed_out=outcome.ended_by == TIMEOUT,
            signal=outcome.signal,
        )

    def _cool(self) -> None:
        self._cooled = True
        self._hot.hand_on(self._slot)

    def _note_group(self, group: int) -> None:
        self._member = self._member._replace(
            group=group, born=machine.born(group), boot=machine.boot_id()
        )
        self._store.note(self._member)

    def _forget_job(self) -> None:
        if self._member.job is not None:
            self._member = self._member._replace(job=None, run=0, group=None, born=None, boot=None)
            self._store.note(self._member)

    def _rest(self) -> None:
        """Wait until woken, until the next retry is due, or for a while."""
        due = self._store.next_due(self._queues)
        pause = self._store.longest_rest
        if self._drain:
            # Nobody tells that others have done what was left to do.
            pause = min(pause, _DRAIN_LOOK)
        if due is not None:
            pause = min(due - self._store.now(), pause)
        self._runner.tend()
        # What tells of the end of a child may come after that was seen: it must not end the rest.
        if not self._wait(0) and not self._is_stopping():
            self._wait(max(pause, 0.001))

    def _stand_by(self) -> None:
        """Wait until let in; now and then it looks by itself, for those who died call nobody."""
        self._runner.tend()
        self._wait(_STAND_BY)

    def _wait(self, seconds: float) -> bool:
        """Wait until something comes, at most so many seconds; tell whether it was orders."""
        has_orders = self._orders in self._waiter.wait(seconds)
        if has_orders:
            self._read_orders()
        return has_orders

    def _read_orders(self) -> None:
        try:
            orders = os.read(self._orders, 4096)
        except BlockingIOError:
            return
        if not orders:
            self._waiter.unregister(self._orders)
        if FORCE in orders:
            self._stop(0)
        elif STOP in orders or not orders:
            self._stop(self._manager.last_settings["shutdown_grace"])

    def _stop(self, grace: float) -> None:
        self._stopping = True
        self._end_jobs_at = min(self._end_jobs_at, monotonic() + grace)

    def _is_stopping(self) -> bool:
        if self._terminated and not self._stopping:
            self._stop(self._manager.last_settings["shutdown_grace"])
        return self._stopping

    def _reason_to_end(self) -> Optional[str]:
        self._keeper.tend()
        if self._is_stopping() and monotonic() >= self._end_jobs_at:
            return _SHUTDOWN
        if self._keeper.unwanted:
            return _CANCEL
        return _CUT_OFF if self._is_cut_off() else None

    def _is_cut_off(self) -> bool:
        """Whether the claim of the job that runs is over, for it could not be renewed in time."""
        lasts = self._store.claim_lasts
        if self._cut_off or lasts is None:
            return self._cut_off
        if monotonic() >= self._keeper.renewed_at + lasts:
            self._cut_off = True
            detail = f"its claim could not be renewed for {format_duration(lasts)}: it is ended"
            self._say(EventKind.WARNING, self._claimed, detail)
        return self._cut_off

    def _set_handlers(self) -> None:
        def terminate(signum: int, frame: object) -> None:
            self._terminated = True

        signal.signal(signal.SIGTERM, terminate)
        for signum in (signal.SIGINT, signal.SIGHUP):
            # A terminal sends them to everybody; what they mean is the supervisor's to say.
            signal.signal(signum, lambda signum, frame: None)

    def _say_done(self, done: Job, settings: Settings) -> None:
        self._say_step(EventKind.COMMITTED, done, done.state)
        self._report(Event(_KINDS[done.state], self._member.name, done, seconds=self._ran))
        if not self._notify(done, settings):
            self._say(EventKind.WARNING, done, "no hook is run: too many jobs ended at once")

    def _say_step(self, kind: str, job: Job, detail: str = "") -> None:
        # Three for each job, which almost nobody wants to hear of.
        if self._tells_steps:
            self._say(kind, job, detail)

    def _say(self, kind: str, job: Optional[Job] = None, detail: str = "") -> None:
        self._report(Event(kind, self._member.name, job, detail))


def _parted(variable: str) -> Tuple[str, str]:
    name, _, value = variable.partition("=")
    return name, value
