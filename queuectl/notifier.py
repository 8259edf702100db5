"""Notifications: commands of the user's, called hooks, that tell of jobs that ended.

A worker only hands over what became of its job: one write into a pipe that is whole or not at all
and never waits, and only where a hook is set. Everything else happens in the supervisor's loop,
where nothing waits either: so no hook delays a job. A hook is no job, and no hook tells of it. What
goes wrong is told as a warning and ends nothing.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Deque, Dict, List, NamedTuple, Optional, Tuple

from queuectl import machine
from queuectl.capture import above_stdio
from queuectl.config import Settings
from queuectl.events import Event, EventKind, Report
from queuectl.hook import LIMIT, Hook
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.runner import NotStartedError, let_nothing_be_inherited

HOOKS = {
    JobState.COMPLETED: "on_complete",
    JobState.FAILED: "on_failed",
    JobState.DEAD: "on_dead",
}
"""The setting that says what to run when a job has come into this state."""

_AT_ONCE = 8
_LONGEST = select.PIPE_BUF  # bytes that a pipe takes whole or not at all
_PIPE_SIZE = 1 << 20  # bytes, where the system lets us: for what comes while the supervisor is busy
_F_SETPIPE_SZ = getattr(fcntl, "F_SETPIPE_SZ", 1031)  # in the module since Python 3.10


def time_for_hooks(settings: Settings) -> float:
    """How many seconds hooks may take once the jobs have ended."""
    is_set = any(settings[name] is not None for name in HOOKS.values())
    return LIMIT + settings["kill_grace"] if is_set else 0.0


class News(NamedTuple):
    """What a hook is told of a job, in bytes of UTF-8 without NUL."""

    state: bytes
    id: bytes
    run: bytes
    attempt: bytes
    max_retries: bytes
    exit_code: bytes
    error: bytes
    command: bytes

    @classmethod
    def of(cls, job: Job) -> News:
        """Tell of a job as it stands now; what is long is cut, so that all fits into a message."""
        error = cut(job.last_error or "", _LONGEST // 4)
        exit_code = "" if job.exit_code is None else str(job.exit_code)
        short = (job.state, job.id, job.runs, job.attempts, job.max_retries, exit_code)
        fields = [str(value).encode() for value in short] + [error]
        room = _LONGEST - sum(map(len, fields)) - len(cls._fields)
        return cls._make([*fields, cut(job.command, room)])

    def variables(self) -> Dict[bytes, bytes]:
        """Return it as variables of an environment."""
        return {
            b"QUEUECTL_EVENT": HOOKS[self.state.decode()][len("on_") :].encode(),
            b"QUEUECTL_JOB_ID": self.id,
            b"QUEUECTL_JOB_COMMAND": self.command,
            b"QUEUECTL_JOB_STATE": self.state,
            b"QUEUECTL_JOB_EXIT_CODE": self.exit_code,
            b"QUEUECTL_JOB_ATTEMPT": self.attempt,
            b"QUEUECTL_JOB_MAX_RETRIES": self.max_retries,
            b"QUEUECTL_JOB_RUN": self.run,
            b"QUEUECTL_JOB_ERROR": self.error,
        }


class _Waiting(NamedTuple):
    """A hook that waits for its turn: its name, its command, and what it is to tell."""

    name: str
    command: str
    news: News


class Notifier:
    """Runs the hooks of one supervisor: a few at once, the rest in the order of what they tell.

    Args:
        manager: the queue.
        spool: a path for a file that exists for a moment at each start of a hook.
        report: told what goes wrong.
        limit: how many seconds a hook may run.
        most_waiting: how many hooks may wait; what comes then is dropped.

    Attributes:
        inbox: readable once a worker has handed something over; then call `hear`.
    """

    def __init__(
        self,
        manager: QueueManager,
        spool: str,
        report: Report,
        limit: float = LIMIT,
        most_waiting: int = 10_000,
    ) -> None:
        let_nothing_be_inherited()
        self._manager = manager
        given = machine.given_environ().items()
        self._environ = {os.fsencode(name): os.fsencode(value) for name, value in given}
        self._spool = spool
        self._report = report
        self._limit = limit
        self._most_waiting = most_waiting
        self.inbox, self._outbox = map(above_stdio, os.pipe())
        for end in (self.inbox, self._outbox):
            os.set_blocking(end, False)
        with suppress(OSError):
            fcntl.fcntl(self._outbox, _F_SETPIPE_SZ, _PIPE_SIZE)
        self._heard = b""
        self._waiting: Deque[_Waiting] = deque()
        self._running: List[Tuple[Hook, _Waiting]] = []
        self._dropped = 0
        self._end_at = math.inf
        self._ended = False

    @property
    def is_busy(self) -> bool:
        """Whether a hook runs or waits."""
        return bool(self._running or self._waiting)

    def post(self, job: Job, settings: Settings) -> bool:
        """In a worker: hand over what became of a job, if a hook tells of that.

        Returns:
            Whether there was room for it.
        """
        name = HOOKS.get(job.state)
        if name is None or settings[name] is None:
            return True
        try:
            os.write(self._outbox, b"".join(field + b"\0" for field in News.of(job)))
        except BlockingIOError:
            return False
        except BrokenPipeError:
            # The supervisor died; that ends this worker too.
            pass
        return True

    def let_go(self) -> None:
        """In a forked child: close what is the supervisor's."""
        os.close(self.inbox)
        for hook, _ in self._running:
            hook.let_go()

    def hear(self) -> None:
        """Take in what workers have handed over."""
        with suppress(BlockingIOError):
            while True:
                self._heard += os.read(self.inbox, _PIPE_SIZE)
        *fields, self._heard = self._heard.split(b"\0")
        size = len(News._fields)
        whole = len(fields) // size * size
        for start in range(0, whole, size):
            self._tell(News(*fields[start : start + size]))
        self._heard = b"\0".join([*fields[whole:], self._heard])

    def tell(self, job: Job) -> None:
        """Tell of a job of which no worker can."""
        if job.state in HOOKS:
            self._tell(News.of(job))

    def step(self) -> None:
        """Do what can be done now without waiting; to be called a few times a second."""
        if not self.is_busy:
            return
        if monotonic() >= self._end_at:
            self.end()
        for hook, waiting in self._running[:]:
            if hook.is_over():
                self._running.remove((hook, waiting))
                self._warn(waiting, hook.close())
        while self._waiting and len(self._running) < _AT_ONCE:
            self._start(self._waiting.popleft())
        if self._dropped and not self._waiting:
            self._tell_dropped()

    def wind_up(self) -> None:
        """Have all that there is to tell told, and no hook run for longer than one may."""
        self.hear()
        self._end_at = monotonic() + self._limit
        if self._ended:
            self._tell_dropped()

    def end(self) -> None:
        """Start no more hooks, and have those that run end."""
        self._ended = True
        self._dropped += len(self._waiting)
        self._waiting.clear()
        for hook, _ in self._running:
            hook.end("shutdown")
        self._tell_dropped()

    def _tell(self, news: News) -> None:
        name = HOOKS[news.state.decode()]
        command = self._manager.last_settings[name]
        if command is None:
            return
        if self._ended or len(self._waiting) >= self._most_waiting:
            self._dropped += 1
            return
        self._waiting.append(_Waiting(name, command, news))

    def _start(self, waiting: _Waiting) -> None:
        news = waiting.news
        try:
            try:
                hook = self._spawn(waiting)
            except NotStartedError as error:
                if getattr(error.__cause__, "errno", 0) != errno.E2BIG:
                    raise
                # What start itself was given leaves no room: the rest can be looked up by the id.
                shortened = news._replace(command=b"", error=b"")
                hook = self._spawn(waiting._replace(news=shortened))
        except (NotStartedError, OSError) as error:
            self._warn(waiting, str(error))
        else:
            self._running.append((hook, waiting))

    def _spawn(self, waiting: _Waiting) -> Hook:
        store = self._manager.store
        news = waiting.news
        log = store.kept_output(news.id.decode(), int(news.run))
        environ = {**self._environ, **news.variables()}
        environ[b"QUEUECTL_JOB_LOG"] = os.fsencode(log) if os.path.exists(log) else b""
        environ[b"QUEUECTL_STORE"] = os.fsencode(store.url)
        settings = self._manager.last_settings
        limits = (self._limit, settings["kill_grace"])
        return Hook(settings["shell"], waiting.command, environ, self._spool, limits)

    def _warn(self, waiting: _Waiting, error: Optional[str]) -> None:
        if error is not None:
            told = f"hook {waiting.name} of job {waiting.news.id.decode()} failed: {error}"
            self._report(Event(EventKind.WARNING, "start", detail=told))

    def _tell_dropped(self) -> None:
        if self._dropped:
            hooks = "1 hook was" if self._dropped == 1 else f"{self._dropped} hooks were"
            why = "at the end of start" if self._ended else "too many waited"
            told = f"{hooks} not run: {why}"
            self._report(Event(EventKind.WARNING, "start", detail=told))
            self._dropped = 0


def cut(text: str, size: int) -> bytes:
    """Write text as at most `size` bytes of UTF-8, cut at a character; NUL becomes visible."""
    text = text.replace("\0", "\\x00")
    data = text.encode("utf-8", "surrogateescape")
    if len(data) <= size:
        return data
    mark = "…".encode()
    kept = data[: size - len(mark)].decode("utf-8", "surrogateescape")
    while not text.startswith(kept):
        # It ends with some of the bytes of a character.
        kept = kept[:-1]
    return kept.encode("utf-8", "surrogateescape") + mark
