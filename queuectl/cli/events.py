"""What `start` says: the events of supervisor and workers in words, or as JSON, and a progress bar.

It is used by all processes of a `start` at once, so it keeps nothing that they would have to share.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Callable, Dict, NamedTuple, Optional

from queuectl import clock
from queuectl.cli import output
from queuectl.cli.lines import Lines
from queuectl.clock import format_duration
from queuectl.config import Settings
from queuectl.events import Event, EventKind
from queuectl.job import Job
from queuectl.render import Screen, elapsed, short_id, to_json, width_of
from queuectl.store.base import Counts

_ROUTINE = (EventKind.STARTED, EventKind.COMPLETED)
_NEWS = (
    *_ROUTINE,
    EventKind.STOPPING,
    EventKind.STOPPED,
    EventKind.CANCELLED,
    EventKind.INTERRUPTED,
)
_STEPS = (EventKind.CLAIMED, EventKind.SPAWNED, EventKind.COMMITTED)
_LEAST_COMMAND = 20
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))
_BAR_WIDTH = 30


class Words(NamedTuple):
    """A line: a symbol, and text around the command of a job, which may be cut."""

    symbol: str
    text: str
    job: Optional[Job] = None
    rest: str = ""


class Reporter:
    """Tells what happens.

    Args:
        settings: for the level of detail.
        grace: returns how many seconds running jobs have; asked when it is told.
        quiet: whether only what is wrong is told.
        as_json: whether events are told as JSON, one a line.
        bar: whether a progress bar is drawn at standard error.
    """

    def __init__(
        self,
        settings: Settings,
        grace: Callable[[], float],
        *,
        quiet: bool,
        as_json: bool,
        bar: bool,
    ) -> None:
        self._level = settings["log_level"]
        self._grace = grace
        self._quiet = quiet
        self._as_json = as_json
        self._out = Lines(1, output.screen(sys.stdout), bar and output.is_terminal())
        self._err = Lines(2, output.screen(sys.stderr), bar)

    def greet(self, count: int, timeout: Optional[float], store: str) -> None:
        """Say what starts."""
        if self._quiet:
            return
        if self._as_json:
            begin = {"count": count, "timeout": timeout, "store": store}
            self._out.write(to_json({**_when(), "event": "starting", **begin}))
            return
        screen = self._out.screen
        workers = "1 worker" if count == 1 else f"{count} workers"
        how_long = "(Ctrl-C to stop)" if timeout is None else f"for {_in_words(timeout)}"
        self._out.write(screen.say("👷", f"Starting {workers} {how_long}..."))
        self._out.write(screen.say("📁", f"Store: {screen.text(store)}"))

    def __call__(self, event: Event) -> None:
        """Tell of an event; called in every process."""
        if self._level == "DEBUG":
            step = _step(event)
            if step:
                self._say(self._err, Words("🔍", step))
        if event.kind not in _STEPS and not self._is_left_out(event):
            self._tell(event)
        job = event.job
        if event.kind == EventKind.INTERRUPTED and job is not None and job.interruptions > 1:
            text = f" was interrupted {job.interruptions} times: it outlives the runs of start"
            self._say(self._err, Words("⚠️", "Job ", job, f" ({short_id(job.id)}){text}"))

    def _tell(self, event: Event) -> None:
        if event.kind == EventKind.WARNING:
            self._say(self._err, _warning(event))
        elif event.kind == EventKind.BACK:
            # Where the warning went that it takes back.
            self._say(self._err, Words("✅", f"Store {event.detail} is back"))
        elif self._as_json:
            self._out.write(to_json(_record(event)))
        else:
            if event.kind == EventKind.STOPPING and output.is_terminal():
                # Over the ^C that the terminal shows.
                self._out.draw("\r")
            self._say(self._out, self._describe(event))

    def _is_left_out(self, event: Event) -> bool:
        if event.kind == EventKind.STOPPING and event.detail == "0":
            return True
        left_out = _NEWS if self._quiet else _ROUTINE if self._level == "WARNING" else ()
        return event.kind in left_out

    def _describe(self, event: Event) -> Words:
        if event.kind == EventKind.STARTED:
            return Words("🔧", f"{event.who} started")
        if event.kind == EventKind.STOPPING:
            return Words("🛑", _stopping(event.detail, self._grace()))
        if event.kind == EventKind.STOPPED or event.job is None:
            return Words("🛑", "Workers stopped")
        return _STORIES[_kind_for_job(event)](event.job, event)

    def _say(self, lines: Lines, words: Words) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        lines.write(_line(f"[{now}] ", words, lines.screen))


def in_one_line(event: Event, screen: Screen) -> str:
    """Tell of an event that is about a job."""
    assert event.job is not None
    return _line("", _STORIES[_kind_for_job(event)](event.job, event), screen)


def _line(start: str, words: Words, screen: Screen) -> str:
    line = start + screen.say(words.symbol, screen.text(words.text))
    if words.job is not None:
        rest = screen.text(words.rest)
        room = screen.width - width_of(line) - width_of(rest)
        line += screen.cut(screen.text(words.job.command), max(room, _LEAST_COMMAND)) + rest
    return line


def _kind_for_job(event: Event) -> str:
    """A rescued job is told of by what became of it."""
    if event.kind == EventKind.RESCUED and event.job is not None:
        return event.job.state
    return event.kind


def _completed(job: Job, event: Event) -> Words:
    return Words("✅", "Job completed: ", job, f" ({short_id(job.id)}, {elapsed(event.seconds)})")


def _failed(job: Job, event: Event) -> Words:
    rest = f" ({_attempt(job)}), retry in {_delay(job)}: {job.last_error}"
    return Words("⚠️", "Job failed: ", job, rest)


def _dead(job: Job, event: Event) -> Words:
    return Words("💀", "Job moved to DLQ: ", job, f" ({_attempt(job)}): {job.last_error}")


def _cancelled(job: Job, event: Event) -> Words:
    return Words("🚫", "Job cancelled: ", job, f" ({short_id(job.id)})")


def _interrupted(job: Job, event: Event) -> Words:
    return Words("🔁", "Job interrupted: ", job, f" ({short_id(job.id)}), back in the queue")


_STORIES: Dict[str, Callable[[Job, Event], Words]] = {
    EventKind.COMPLETED: _completed,
    EventKind.FAILED: _failed,
    EventKind.DEAD: _dead,
    EventKind.CANCELLED: _cancelled,
    EventKind.INTERRUPTED: _interrupted,
}


def _warning(event: Event) -> Words:
    if event.job is None:
        return Words("⚠️", event.detail)
    return Words("⚠️", "Job ", event.job, f" ({short_id(event.job.id)}): {event.detail}")


def _step(event: Event) -> str:
    """Put what only DEBUG tells into words; nothing where there is nothing to tell."""
    job = event.job
    if job is None:
        return ""
    steps = {
        EventKind.CLAIMED: f"claim {job.id} by {event.who}: run {job.runs}, {_attempt(job)}",
        EventKind.SPAWNED: f"spawn {job.id} by {event.who}: process {event.detail}",
        EventKind.COMMITTED: f"commit {job.id} by {event.who}: {event.detail}",
        EventKind.FAILED: f"backoff {job.id}: {_delay(job)} after {_attempt(job)}",
        EventKind.RESCUED: f"rescue {job.id} from {event.detail}: {job.state}",
    }
    return steps.get(event.kind, "")


def _attempt(job: Job) -> str:
    return f"attempt {job.attempts}/{job.attempts_in_all}"


def _delay(job: Job) -> str:
    if job.run_at is None:
        return "0s"
    seconds = clock.from_iso(job.run_at) - clock.from_iso(job.updated_at)
    return format_duration(seconds) if seconds % 1 == 0 else elapsed(seconds)


def _stopping(running: str, grace: float) -> str:
    jobs = "1 job has" if running == "1" else f"{running} jobs have"
    ends = "it" if running == "1" else "them"
    return f"Stopping: {jobs} up to {format_duration(grace)}; Ctrl-C again ends {ends}"


def _in_words(seconds: float) -> str:
    """Write a duration as `30 seconds` or `2 hours`; in seconds up to two minutes."""
    for size, unit in _UNITS:
        if seconds > 120 and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return "1 second" if seconds == 1 else f"{seconds:.3f}".rstrip("0").rstrip(".") + " seconds"


def _when() -> Dict[str, str]:
    return {"time": clock.to_iso(clock.now())}


def _record(event: Event) -> Dict[str, Any]:
    """Write an event for programs, short enough for one line whatever the command is."""
    job = event.job
    about = {} if job is None else {
        "job": job.id,
        "run": job.runs,
        "state": job.state,
        "attempts": job.attempts,
        "exit_code": job.exit_code,
    }  # fmt: skip
    seconds = {"seconds": round(event.seconds, 3)} if event.seconds else {}
    detail = {"detail": event.detail} if event.detail else {}
    return {**_when(), "event": event.kind, "who": event.who, **about, **seconds, **detail}


class Bar:
    """A progress bar at standard error: how much of the work is done."""

    def __init__(self) -> None:
        screen = output.screen(sys.stderr)
        self._lines = Lines(2, screen)
        self._marks = ("#", ".") if screen.plain else ("█", "░")
        self._width = screen.width
        self._finished_before: Optional[int] = None

    def __call__(self, counts: Counts) -> None:
        """Draw it anew."""
        finished = counts.completed + counts.dead + counts.cancelled
        if self._finished_before is None:
            self._finished_before = finished
        done = max(finished - self._finished_before, 0)
        left = counts.pending - counts.delayed + counts.processing + counts.failed
        part = done / (done + left) if done + left else 1.0
        full = int(part * _BAR_WIDTH)
        bar = self._marks[0] * full + self._marks[1] * (_BAR_WIDTH - full)
        rest = f"{counts.processing} running, {counts.failed} to retry"
        told = f"{bar} {part:4.0%}  {done} of {done + left} jobs done, {rest}"
        self._lines.draw(output.CLEAR_LINE + told[: self._width - 1])

    def clear(self) -> None:
        """Take it away."""
        self._lines.draw(output.CLEAR_LINE)
