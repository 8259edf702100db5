"""`queuectl status --watch`: what the queue does, drawn again and again in the same place.

The view has the terminal's other screen for itself, so that what was there before comes back, with
the cursor and the echo of keys, whatever ends it: Ctrl-C, a signal that others sent, or an error.
Each picture is written in one go over the one before, line by line, and only what is left of that
is cleared: nothing flickers. A look costs what was committed since the last one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import time
from collections import deque
from typing import Deque, Iterator, List, NamedTuple, Optional, Tuple

from queuectl import clock
from queuectl.cli import output
from queuectl.cli.status import RULE, count_lines
from queuectl.errors import RequestError
from queuectl.job import Job
from queuectl.manager import QueueManager
from queuectl.queues import read_rules
from queuectl.render import Screen, elapsed, short_id
from queuectl.store.base import Activity, Counts, Member
from queuectl.text import as_utf8
from queuectl.waiter import Waiter

_FAILURES = 5
_MINUTE = 60.0  # seconds over which the throughput is told
_LATELY = 10.0
# The other screen; no cursor; lines that are too long are cut, not wrapped. And back.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_CLEAR_REST_OF_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"
_SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGTSTP, signal.SIGWINCH),
)
_SMALLEST = (80, 24)  # where a terminal does not know its size


class Facts(NamedTuple):
    """What is shown.

    Attributes:
        counts: of the jobs.
        activity: what runs and what failed.
        workers: who works.
        paused: the names of the queues that are paused.
        rates: how many jobs completed in a second, and in a minute; none before the second look.
        store: where the store is.
        now: seconds since the epoch.
    """

    counts: Counts
    activity: Activity
    workers: List[Member]
    paused: List[str]
    rates: Optional[Tuple[float, float]]
    store: str
    now: float


class Throughput:
    """How fast jobs complete, told from how many have ever completed at each look."""

    def __init__(self) -> None:
        self._looks: Deque[Tuple[float, int]] = deque()

    def rates(self, now: float, completions: int) -> Optional[Tuple[float, float]]:
        """Return how many complete in a second, as of late, and in a minute.

        Args:
            now: seconds of any clock that does not step.
            completions: how many have ever completed.
        """
        self._looks.append((now, completions))
        while len(self._looks) > 2 and self._looks[1][0] <= now - _MINUTE:
            self._looks.popleft()
        if len(self._looks) == 1:
            return None
        lately = [look for look in self._looks if look[0] > now - _LATELY][:-1]
        first, recent = self._looks[0], lately[0] if lately else self._looks[-2]
        return (
            (completions - recent[1]) / max(now - recent[0], 0.001),
            _MINUTE * (completions - first[1]) / max(now - first[0], 0.001),
        )


class Live:
    """The view.

    Args:
        manager: the queue.
        interval: seconds between two pictures.
    """

    def __init__(self, manager: QueueManager, interval: float) -> None:
        self._manager = manager
        self._interval = interval
        self._throughput = Throughput()
        self._ended_by: Optional[int] = None
        self._is_suspended = False

    def run(self) -> None:
        """Show it until Ctrl-C; another signal ends the process as if it had not been caught."""
        before = {signum: signal.signal(signum, self._note) for signum in _SIGNALS}
        waiter = Waiter()
        try:
            while self._ended_by is None:
                with _other_screen():
                    self._show(waiter)
                if self._is_suspended:
                    self._is_suspended = False
                    os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            waiter.close()
            for signum, handler in before.items():
                signal.signal(signum, handler)
        if self._ended_by != signal.SIGINT:
            signal.signal(self._ended_by, signal.SIG_DFL)
            os.kill(os.getpid(), self._ended_by)

    def _note(self, signum: int, frame: object) -> None:
        if signum == signal.SIGTSTP:
            self._is_suspended = True
        elif signum != signal.SIGWINCH:
            self._ended_by = signum

    def _show(self, waiter: Waiter) -> None:
        while self._ended_by is None and not self._is_suspended:
            size = _size()
            screen = output.screen()._replace(width=size.columns)
            draw(picture(screen, self._look(), size.lines))
            waiter.wait(self._interval)

    def _look(self) -> Facts:
        store = self._manager.store
        rules = read_rules(store.settings())
        return Facts(
            self._manager.counts(),
            store.activity(_FAILURES),
            self._manager.members("worker"),
            sorted(name for name, rule in rules.items() if rule.paused),
            self._throughput.rates(time.monotonic(), store.totals().get("completed", 0)),
            as_utf8(store.shown),
            store.now(),
        )


def draw(lines: List[str]) -> None:
    """Put a picture in the place of the one before."""
    separator = f"{_CLEAR_REST_OF_LINE}\r\n"
    output.write(f"{_HOME}{separator.join(lines)}{_CLEAR_REST_OF_LINE}{_CLEAR_BELOW}")
    output.flush()


def picture(screen: Screen, facts: Facts, rows: int) -> List[str]:
    """Put facts into lines, no more and no longer than there is room for."""
    # Behind the last column the rest of a line could not be cleared without its last character.
    screen = screen._replace(width=max(screen.width - 1, 1))
    head = [*_head(screen, facts), _throughput(screen, facts), _workers(screen, facts)]
    failures = _failures(screen, facts)
    foot = [*_paused(screen, facts), _cut(screen, screen.say("📁", f"Store: {facts.store}"))]
    room = rows - len(head) - len(failures) - len(foot)
    running = _running(screen, facts)
    if len(running) > room:
        shown = max(room - 1, 0)
        more = f"   and {len(running) - shown} more"
        running = [*running[:shown], _cut(screen, more)]
    return [*head, *running, *failures, *foot][:rows]


def _head(screen: Screen, facts: Facts) -> Iterator[str]:
    title = screen.say("📊", "QueueCTL System Status")
    at = time.strftime("%H:%M:%S", time.localtime(facts.now))
    yield screen.paint(_cut(screen, f"{title}  {at}"), bold=True)
    yield _cut(screen, RULE)
    for line in count_lines(screen, facts.counts):
        yield _cut(screen, line)
    yield _cut(screen, RULE)


def _throughput(screen: Screen, facts: Facts) -> str:
    told = "-"
    if facts.rates is not None:
        told = f"{facts.rates[0]:.1f} jobs/s, {facts.rates[1]:.0f} jobs/min"
    return _cut(screen, screen.say("🚀", f"Throughput: {told}"))


def _workers(screen: Screen, facts: Facts) -> str:
    if facts.workers:
        return _cut(screen, screen.say("👷", f"Workers: {len(facts.workers)}"))
    return screen.paint(_cut(screen, "no workers running: queuectl start"), "yellow")


def _running(screen: Screen, facts: Facts) -> List[str]:
    names = {worker.id: worker.name for worker in facts.workers}
    lines = []
    for job in facts.activity.running:
        who = screen.text(names.get(str(job.worker), short_id(str(job.worker))))
        took = elapsed(facts.now - clock.from_iso(job.started_at)) if job.started_at else "?"
        lines.append(_about(screen, f"   {who}: ", job, f" ({took})"))
    return lines


def _failures(screen: Screen, facts: Facts) -> List[str]:
    lines = []
    for job in facts.activity.failures:
        since = elapsed(facts.now - clock.from_iso(job.updated_at))
        lines.append(_about(screen, "   ", job, f" ({job.state}, {since} ago): {job.last_error}"))
    heading = screen.say("🔴", "Newest failures:")
    return [screen.paint(_cut(screen, heading), "red"), *lines] if lines else []


def _paused(screen: Screen, facts: Facts) -> List[str]:
    if not facts.paused:
        return []
    told = screen.say("⏸️", f"Paused queues: {', '.join(facts.paused)}")
    return [screen.paint(_cut(screen, told), "yellow")]


def _about(screen: Screen, start: str, job: Job, end: str) -> str:
    """A line about a job, whose command gets about half of it."""
    start += f"{short_id(job.id)} "
    end = screen.text(end)
    room = max(screen.width - len(start) - len(end), screen.width // 3)
    return _cut(screen, start + screen.cut(screen.text(job.command), room) + end)


def _cut(screen: Screen, line: str) -> str:
    return screen.cut(screen.text(line), screen.width)


def _size() -> os.terminal_size:
    size = os.get_terminal_size(sys.stdout.fileno())
    return size if size.columns and size.lines else os.terminal_size(_SMALLEST)


@contextlib.contextmanager
def _other_screen() -> Iterator[None]:
    """Have the terminal for a view; keys that are pressed meanwhile mean nothing."""
    fd = sys.stdout.fileno()
    before = termios.tcgetattr(fd)
    silent = [*before]
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, silent)
        output.write(_ENTER)
        yield
    finally:
        # A terminal that is closed is told nothing any more.
        with contextlib.suppress(RequestError, termios.error):
            output.write(_LEAVE)
            output.flush()
            termios.tcsetattr(fd, termios.TCSAFLUSH, before)
