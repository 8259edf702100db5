"""Housekeeping that takes longer than a rescue may wait, done in a process of its own."""

from __future__ import annotations

import os
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Callable, Optional

from queuectl.errors import QueueError, StoreGoneError
from queuectl.events import Event, EventKind, Report

_PAUSE = 60.0  # seconds before what failed is tried again


class Chore:
    """One kind of housekeeping; at most one process does it at a time.

    Args:
        name: of the process.
        is_due: asked whether there is anything to do.
        work: does it.
        let_go: called before, in the process: closes what is the supervisor's.
        failure: what is told if it failed.
        report: told so.
        interval: the least time between two beginnings, in seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        is_due: Callable[[], bool],
        work: Callable[[], object],
        let_go: Callable[[], None],
        failure: str,
        report: Report,
        interval: float = 0.0,
    ) -> None:
        self._name = name
        self._is_due = is_due
        self._work = work
        self._let_go = let_go
        self._failure = failure
        self._report = report
        self._interval = interval
        self._process: Optional[BaseProcess] = None
        self._next = 0.0

    @property
    def goes_on(self) -> bool:
        """Whether it is being done."""
        return self._process is not None and self._process.exitcode is None

    def begin_if_due(self) -> None:
        """Begin it if it is due; tell if it failed."""
        if self.goes_on:
            return
        if self._process is not None:
            if self._process.exitcode != 0:
                self._report(Event(EventKind.WARNING, "start", detail=self._failure))
                self._next = monotonic() + _PAUSE
            self._process = None
        if monotonic() >= self._next and self._is_due():
            process = get_context("fork").Process(target=self._be_process, name=self._name)
            self._next = monotonic() + self._interval
            try:
                process.start()
            except OSError:
                # The system has no process to spare just now; this can wait.
                self._next = monotonic() + _PAUSE
            else:
                self._process = process

    def end(self) -> None:
        """End it, done or not."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _be_process(self) -> None:
        self._let_go()
        try:
            self._work()
        except StoreGoneError as error:
            # The supervisor finds out too, and says so.
            os._exit(error.exit_code)
        except QueueError as error:
            self._report(Event(EventKind.WARNING, "start", detail=str(error)))
            os._exit(error.exit_code)
        os._exit(0)
