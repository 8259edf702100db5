"""Following jobs until they have ended: what they print, and how they end.

Whoever follows changes nothing: if it is interrupted, the jobs go on.
"""

from __future__ import annotations

import codecs
import contextlib
import sys
import time
from typing import Callable, Iterator, Optional, Union

from queuectl import clock
from queuectl.cli import output
from queuectl.cli.command import Session
from queuectl.events import Event
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.outputs import GrowingOutput, open_as_known, start_of_lines
from queuectl.shared import SharedReader
from queuectl.waiting import PAUSE, exit_code, until_over

_LOOK_FOR_WORKERS = 1.0  # seconds between two looks


def follow_job(session: Session, manager: QueueManager, job: Job) -> int:
    """Show what a new job prints until it has ended; return what to exit with, as `wait` does.

    Raises:
        KeyboardInterrupt: of Ctrl-C, after it was said that the job goes on.
    """
    with _saying_that_it_goes_on(job):
        ended = Follower(manager, job, Printer(raw=False), run=1).follow()
        if ended is None:
            _tell_of_purge(job.id)
    return exit_code(ended)


def await_job(session: Session, manager: QueueManager, job: Job) -> int:
    """Wait until a new job has ended; return what to exit with, as `wait` does.

    Raises:
        KeyboardInterrupt: of Ctrl-C, after it was said that the job goes on.
    """
    ended: Optional[Job] = None
    with _saying_that_it_goes_on(job):
        seqs = {job.id: job.seq}
        for job_id, ended in until_over(manager.store, seqs, tick=NoWorkers(manager)):
            Ends(session).tell(job_id, ended)
    return exit_code(ended)


class NoWorkers:
    """Says, but only once, that nobody runs jobs; to be called often.

    Args:
        manager: the queue.
    """

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._look_at = 0.0
        self._said = False

    def __call__(self) -> None:
        """Look for workers now and then."""
        if self._said or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_FOR_WORKERS
        if not self._manager.members("worker"):
            self._said = True
            output.notice("no workers running: queuectl start")


class Ends:
    """Says how jobs ended: to a person in full, to a program only what was purged.

    Args:
        session: whether a person is to be talked to.
    """

    def __init__(self, session: Session) -> None:
        self._talks = session.talks

    def tell(self, job_id: str, job: Optional[Job]) -> None:
        """Say how a job ended; none was purged."""
        if job is None:
            _tell_of_purge(job_id)
        elif self._talks:
            from queuectl.cli.events import in_one_line

            seconds = 0.0
            if job.started_at is not None and job.finished_at is not None:
                seconds = clock.from_iso(job.finished_at) - clock.from_iso(job.started_at)
            event = Event(job.state, "", job, seconds=seconds)
            output.line(in_one_line(event, output.screen()))
            output.flush()


class Printer:
    """Writes what jobs print to standard output.

    Args:
        raw: whether as it is; else made harmless.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._screen = output.screen()
        self._last = "\n"
        self._start_over()

    def write(self, data: bytes) -> None:
        """Write a piece; the beginning of a character waits for its end in the next one."""
        if self._raw:
            output.write_bytes(data)
        else:
            self._write(self._decode(data))

    def end(self) -> None:
        """End the output of a run; what comes next is to stand on a line of its own."""
        if self._raw:
            return
        self._write(self._decode(b"", True))
        if self._last != "\n" and output.is_terminal():
            output.line()
            self._last = "\n"
        self._start_over()

    def _start_over(self) -> None:
        self._decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8")(
            "surrogateescape"
        ).decode

    def _write(self, text: str) -> None:
        output.write(self._screen.output(text))
        self._last = text[-1:] or self._last


class Follower:
    """Shows what the runs of a job print until it has ended.

    Args:
        manager: the queue.
        job: the job.
        printer: who writes it.
        run: with which run to begin.
        only: whether to end with that run.
        lines: with how many of its last lines to begin; none for all.
    """

    def __init__(
        self,
        manager: QueueManager,
        job: Job,
        printer: Printer,
        *,
        run: int,
        only: bool = False,
        lines: Optional[int] = None,
    ) -> None:
        self._manager = manager
        self._id, self._seq = job.id, job.seq
        self._job: Optional[Job] = job
        self._printer = printer
        self._run = self._announced = run
        self._only = only
        self._lines = lines
        self._reader: Optional[Union[GrowingOutput, SharedReader]] = None

    def follow(self) -> Optional[Job]:
        """Show everything; return the job as it then is, or nothing if it was purged."""
        tell_if_nobody_works = NoWorkers(self._manager)
        with self._manager.store.watch([self._id]) as watch:
            try:
                while True:
                    for _, job in watch.look():
                        self._job = job if job is not None and job.seq == self._seq else None
                    if self._show():
                        return self._job
                    output.flush()
                    output.check_reader()
                    tell_if_nobody_works()
                    time.sleep(PAUSE)
            finally:
                self._close()

    def _show(self) -> bool:
        """Show what there is to show now; tell whether that was all."""
        while self._job is not None and self._job.runs >= self._run:
            if self._run > self._announced:
                self._announced = self._run
                output.notice(f"run {self._run} of job {self._id!r}")
            # It was looked at before: what was printed up to the end of a run is there by now.
            is_running = self._job.runs == self._run and self._job.state == JobState.PROCESSING
            self._copy(self._job, is_running)
            if is_running:
                return False
            self._close()
            if self._only:
                return True
            self._run, self._lines = self._run + 1, None
        if self._job is None:
            self._copy_rest()
            return True
        return self._job.is_over

    def _copy(self, job: Job, is_running: bool) -> None:
        if self._reader is None or not self._reader.has_begun:
            self._open(job)
        if isinstance(self._reader, SharedReader):
            self._reader.look(at_once=not is_running)
        self._copy_rest()

    def _open(self, job: Job) -> None:
        """Find the file of the run, if it is here; else what is shared of it, if there is any."""
        store = self._manager.store
        found = open_as_known(store, job, self._run)
        if found is not None:
            at = 0 if self._lines is None else start_of_lines(found.fd, self._lines)
            self._reader = GrowingOutput(found.fd, at)
        elif self._reader is None and store.shares_output:
            self._reader = SharedReader(store, job.id, self._run, self._lines)

    def _copy_rest(self) -> None:
        while self._reader is not None:
            piece = self._reader.read()
            if piece.lost != 0:
                self._printer.end()
                output.notice(self._reader.why_lost(piece.lost))
            if not piece.data:
                return
            self._printer.write(piece.data)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            self._printer.end()


def _tell_of_purge(job_id: str) -> None:
    output.notice(f"job {job_id!r} was purged")


@contextlib.contextmanager
def _saying_that_it_goes_on(job: Job) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            # Behind the ^C that the terminal shows.
            output.complain("\n")
        output.notice(f"job {job.id!r} goes on; to see it again: queuectl logs -f {job.id}")
        raise
