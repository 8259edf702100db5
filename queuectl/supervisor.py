"""The supervisor: what `start` is. It forks workers, gives orders, and rescues what the dead left.

Handlers of signals only note them and wake the loop, which decides. The supervisor never claims and
never runs anything, so whatever happens to a job it goes on.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import uuid
from time import monotonic
from typing import Callable, List, Optional, Sequence

from queuectl import __version__, clock, machine
from queuectl.chore import Chore
from queuectl.errors import (
    QueueError,
    StoreAwayError,
    StoreError,
    StoreFullError,
    StoreGoneError,
    StoreLockedError,
)
from queuectl.events import Event, EventKind, Report
from queuectl.hot import processors
from queuectl.manager import QueueManager
from queuectl.notifier import Notifier
from queuectl.pool import Pool
from queuectl.rescue import Rescues
from queuectl.store.base import Counts, Member
from queuectl.waiter import Waiter
from queuectl.worker import AWAY, ENDING, FORCE, STOP, Worker

_TICK = 0.25  # seconds between two looks at what nobody tells of
_RESCUE_TICK = 0.05  # the same while a rescue goes on
_MARGIN = 3.0  # seconds that a worker may take longer than its graces before it is killed
_LAST_RESCUE = 2.0  # seconds beyond kill_grace that a rescue may take when all else has ended
_TRIM_INTERVAL = 60.0  # seconds between two looks at how much output is kept
_STORE_FAILED = (2, 3, 4, 75)  # what a worker ends with if nobody can use the store any more

Progress = Callable[[Counts], None]


class _StopEarlyError(Exception):
    """A signal came before there was anything to stop."""


class Supervisor:
    """Runs workers on a queue until it is told to stop.

    Args:
        manager: the queue.
        count: how many workers.
        timeout: seconds after which to stop; none to go on.
        drain: whether to stop once there is nothing left to do.
        queues: from which queues to claim; none for all.
        report: told what happens, here and in the workers.
        progress: given the counts a few times a second.
    """

    def __init__(
        self,
        manager: QueueManager,
        *,
        count: int,
        timeout: Optional[float],
        drain: bool,
        queues: Optional[Sequence[str]] = None,
        report: Report,
        progress: Optional[Progress] = None,
    ) -> None:
        self._manager = manager
        self._store = manager.store
        self._stop_at = None if timeout is None else monotonic() + timeout
        self._drain = drain
        self._queues = queues
        self._report = report
        self._progress = progress
        self._id = uuid.uuid4().hex[:12]
        self._count = count
        self._rescues = Rescues(manager, self._report_rescue)
        self._chores = self._make_chores()
        self._signals: List[int] = []
        self._had_terminal = _has_terminal()
        self._hung_up = False
        self._exit_code = 0
        self._stopping = False
        self._forced = False
        self._grace_ends = math.inf
        self._kill_at = math.inf
        self._next_tick = 0.0
        self._preparing = True

    def run(self) -> int:
        """Work until told to stop; returns the exit code of `start`.

        Raises:
            QueueError: there is nothing to work on, or nothing to work with.
        """
        try:
            self._waiter = Waiter()
            self._pool = Pool(self._count, self._be_worker, self._report, self._most_hot())
            self._notifier = Notifier(self._manager, self._store.spool(self._id), self._report)
        except OSError as error:
            raise StoreError(f"cannot work on {self._store.shown}: {error.strerror}") from error
        self._set_handlers()
        try:
            self._prepare()
        except _StopEarlyError:
            # Wherever that was: so the store is left alone, which notices that we are gone.
            self._heed_requests()
            self._report(Event(EventKind.STOPPED, "start"))
            return self._exit_code
        self._heed_requests()
        self._pool.fill()
        while not self._pool.is_over or self._awaits_chore():
            self._step()
        self._finish()
        return self._exit_code

    def _prepare(self) -> None:
        """Do what comes before the first worker; a signal ends it, however long it would take."""
        self._own = self._member("supervisor", "start", os.getpid())
        self._store.enroll(self._own)
        self._waiter.register(self._store.listen())
        self._waiter.register(self._notifier.inbox)
        self._waiter.register(self._pool.hot.calls)
        self._rescues.begin(self._store.lost(thorough=True))
        # Read once, before the fork, so that the workers share it.
        horizon = self._manager.settings.retry_policy.horizon
        self._store.claimable(self._store.now(), horizon, self._queues)
        gc.freeze()
        self._preparing = False

    def _step(self) -> None:
        """Wait for something to happen, and take care of it."""
        ready = self._waiter.wait(_RESCUE_TICK if self._rescues.under_way else self._until_tick())
        if self._notifier.inbox in ready:
            self._notifier.hear()
        if self._pool.hot.calls in ready:
            self._pool.let_in()
        try:
            if self._store.listen() in ready:
                self._pool.wake(self._store.hear())
            self._heed_requests()
            # Before workers are reaped, which may end it all: short starts have their chores too.
            if monotonic() >= self._next_tick:
                self._tick()
            if self._reap():
                self._tick()
            self._pool.fill()
            self._rescues.step()
            # Last: while the store is away, all else must go on.
            self._note_stop()
        except StoreAwayError as error:
            self._miss(error)
        except (StoreFullError, StoreLockedError) as error:
            self._rescues.put_off(error)
        except QueueError as error:
            self._fail(error)
        self._kill_overdue()
        self._notifier.step()

    def _miss(self, error: StoreAwayError) -> None:
        """Say, once for all, that the store is away."""
        if not self._pool.resting[AWAY]:
            self._pool.resting[AWAY] = 1
            self._report(
                Event(EventKind.WARNING, "start", detail=f"{error}; trying again each second")
            )

    def _until_tick(self) -> float:
        until = min(self._next_tick, self._pool.fill_at)
        if self._stop_at is not None and not self._stopping:
            until = min(until, self._stop_at)
        return max(until - monotonic(), 0)

    def _tick(self) -> None:
        """Look at what nobody tells of."""
        self._next_tick = monotonic() + _TICK
        self._store.tend()
        if self._pool.resting[AWAY]:
            self._pool.resting[AWAY] = 0
            self._report(Event(EventKind.BACK, "start", detail=self._store.shown))
        self._rescues.begin(self._store.lost())
        if not self._stopping:
            for chore in self._chores:
                chore.begin_if_due()
        if self._progress is not None:
            self._progress(self._store.counts())

    def _be_worker(self, slot: int, name: str, orders: int) -> int:
        self._waiter.close()
        self._notifier.let_go()
        return Worker(
            self._manager,
            self._member("worker", name, os.getpid()),
            orders=orders,
            resting=self._pool.resting,
            hot=self._pool.hot,
            slot=slot,
            drain=self._drain,
            queues=self._queues,
            report=self._report,
            notify=self._notifier.post,
        ).run()

    def _most_hot(self) -> Optional[int]:
        # Where claims have a lease the store is elsewhere, and who waits for it needs no processor.
        return processors() if self._store.claim_lasts is None else None

    def _reap(self) -> bool:
        """Take note of workers that ended; tell whether one died."""
        ended = self._pool.take_ended()
        for child, code in ended:
            if code in _STORE_FAILED:
                self._begin_stop(code)
            elif not self._stopping:
                self._pool.replace(child)
        drained = self._drain and not self._stopping and any(code == 0 for _, code in ended)
        # Once all are replaced, for the store may fail: else a slot would stay empty.
        if drained and self._manager.is_drained(self._queues):
            self._begin_stop(0)
        return any(code != 0 for _, code in ended)

    def _set_handlers(self) -> None:
        def note(signum: int, frame: object) -> None:
            self._signals.append(signum)
            if self._preparing:
                self._preparing = False
                raise _StopEarlyError

        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            ignored = signal.getsignal(signum) == signal.SIG_IGN
            # nohup and `&` mean it; a TERM that a careless parent ignores must still end it. A
            # handler that does nothing stands for ignoring, which the jobs would inherit.
            heed = not ignored or signum == signal.SIGTERM
            signal.signal(signum, note if heed else lambda signum, frame: None)

    def _heed_requests(self) -> None:
        """Heed signals, `queuectl stop` and the time that is over."""
        was_stopping = self._stopping
        early = 1 if self._drain else 0
        while self._signals:
            signum = self._signals.pop(0)
            if not self._stopping:
                self._hung_up = (
                    signum == signal.SIGHUP and self._had_terminal and not _has_terminal()
                )
                self._begin_stop(130 if signum == signal.SIGINT else early)
            elif signum != signal.SIGHUP or not self._hung_up:
                # When a terminal is closed, a shell hands its HUP on, ends, and so brings another.
                self._force(128 + signum)
        asked = self._store.stop_asked()
        if asked is not None:
            self._begin_stop(early)
        if asked and not self._forced:
            self._force(self._exit_code)
        if self._stop_at is not None and monotonic() >= self._stop_at and not self._stopping:
            self._begin_stop(1 if self._drain and not self._manager.is_drained(self._queues) else 0)
        if self._stopping and not was_stopping:
            self._announce_stop()

    def _begin_stop(self, code: int) -> None:
        """Have the workers finish what they run; the first reason to stop decides the exit code."""
        if self._stopping:
            return
        self._stopping = True
        self._exit_code = code
        self._pool.leave_vacant()
        settings = self._manager.last_settings
        self._grace_ends = monotonic() + settings["shutdown_grace"]
        self._kill_at = self._grace_ends + settings["kill_grace"] + _MARGIN
        self._pool.order(STOP)

    def _announce_stop(self) -> None:
        running = sum(
            member.job is not None and member.supervisor == self._id
            for member in self._store.members("worker")
        )
        if running:
            self._report(Event(EventKind.STOPPING, "start", detail=str(running)))

    def _note_stop(self) -> None:
        """Let whoever asked for the stop know that nothing is claimed any more."""
        if self._stopping and not self._own.stopping:
            self._own = self._own._replace(stopping=True)
            self._store.note(self._own)

    def _force(self, code: int) -> None:
        """Have the workers end what they run."""
        self._exit_code = code
        self._forced = True
        overdue = monotonic() + self._manager.last_settings["kill_grace"] + _MARGIN
        self._kill_at = min(self._kill_at, overdue)
        self._pool.order(FORCE)
        self._notifier.end()

    def _fail(self, error: QueueError) -> None:
        """Stop because the store cannot be used any more."""
        if not self._pool.resting[ENDING]:
            self._pool.resting[ENDING] = 1
            self._report(Event(EventKind.WARNING, "start", detail=str(error)))
        self._begin_stop(error.exit_code)
        self._exit_code = error.exit_code
        if isinstance(error, StoreGoneError) and not self._forced:
            self._force(error.exit_code)
        # What failed now would fail again at once.
        self._next_tick = monotonic() + _TICK

    def _kill_overdue(self) -> None:
        if monotonic() >= self._kill_at:
            self._kill_at = monotonic() + _MARGIN
            self._pool.kill()

    def _finish(self) -> None:
        """End what is left: rescues, chores, hooks, the membership."""
        for chore in self._chores:
            chore.end()
        self._end_with(self._finish_rescues)
        self._notifier.wind_up()
        while self._notifier.is_busy:
            self._step()
        self._end_with(self._leave)
        self._report(Event(EventKind.STOPPED, "start"))

    def _end_with(self, act: Callable[[], None]) -> None:
        try:
            act()
        except StoreGoneError:
            pass
        except QueueError as error:
            self._fail(error)

    def _finish_rescues(self) -> None:
        deadline = monotonic() + self._manager.last_settings["kill_grace"] + _LAST_RESCUE
        self._rescues.begin(self._store.lost())
        while self._rescues.under_way and monotonic() < deadline:
            self._rescues.step()
            self._waiter.wait(_RESCUE_TICK)

    def _leave(self) -> None:
        self._store.leave(self._id)
        self._store.sync()

    def _make_chores(self) -> List[Chore]:
        rewrite = Chore(
            "rewrite",
            is_due=self._store.rewrite_due,
            work=self._store.rewrite,
            let_go=self._let_go,
            failure="the job file could not be rewritten",
            report=self._report,
        )
        trim = Chore(
            "trim",
            is_due=lambda: self._manager.last_settings["keep_output"] is not None,
            work=self._manager.trim_output,
            let_go=self._let_go,
            failure="old output could not be removed",
            report=self._report,
            interval=_TRIM_INTERVAL,
        )
        purge = Chore(
            "purge",
            is_due=self._manager.purge_is_due,
            work=self._manager.purge_old,
            let_go=self._let_go,
            failure="old jobs could not be purged",
            report=self._report,
            interval=_TRIM_INTERVAL,
        )
        # First what frees the most, so that the rewrite has room.
        return [purge, trim, rewrite]

    def _awaits_chore(self) -> bool:
        """Whether a chore may go on, as jobs may: with short starts none would ever be done."""
        if self._forced or monotonic() >= self._grace_ends:
            return False
        return any(chore.goes_on for chore in self._chores)

    def _report_rescue(self, event: Event) -> None:
        self._report(event)
        if event.kind == EventKind.RESCUED and event.job is not None:
            self._notifier.tell(event.job)

    def _let_go(self) -> None:
        """In a forked child that is no worker: close what it must not share."""
        self._pool.let_go()
        self._waiter.close()
        self._notifier.let_go()
        self._store.after_fork()

    def _member(self, role: str, name: str, pid: int) -> Member:
        return Member(
            id=self._id if role == "supervisor" else uuid.uuid4().hex[:12],
            role=role,
            name=name,
            pid=pid,
            host=machine.host(),
            started_at=clock.to_iso(self._store.now()),
            supervisor=self._id,
            queues=self._queues if role == "supervisor" else None,
            version=__version__,
        )


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
