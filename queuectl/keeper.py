"""Keeping a claim while its job runs: it is renewed, and looked at whether the job is still wanted.

Where claims expire this is done by a thread of its own. The store may be far away, and nobody knows
how long it, or whoever is asked where it is, takes to answer; the job must be ended in time all the
same if no answer comes.
"""

from __future__ import annotations

import contextlib
import math
import threading
from time import monotonic
from typing import Callable, Optional

from queuectl.errors import QueueError
from queuectl.job import Job
from queuectl.store.base import Store

_PAUSE = 0.5  # seconds between two looks
_PAUSE_AWAY = 0.1  # the same after one that failed: not much of the claim's time may be left


class Keeper:
    """Keeps one claim after the other, for one worker.

    Args:
        store: where the jobs are.
        worker: whose claims they are.
        share: called at each look, if the store shares output.

    Attributes:
        unwanted: whether the job was cancelled, or is another's: nobody wants its result.
        renewed_at: the moment before the last renewal that was acknowledged was asked for.
    """

    def __init__(self, store: Store, worker: str, share: Callable[[Job], None]) -> None:
        self._store = store
        self._worker = worker
        self._share = share
        self._job: Optional[Job] = None
        self._look_at = math.inf
        self._thread: Optional[threading.Thread] = None
        self._is_due = threading.Event()
        # Held while it looks: what is done with a job that has ended must not be mixed with that.
        self._looking = threading.Lock()
        self.unwanted = False
        self.renewed_at = -math.inf

    def begin(self, job: Job) -> None:
        """Keep the claim of a job that is about to run."""
        self._job, self.unwanted = job, False
        self._look_at = monotonic() + _PAUSE

    def end(self) -> None:
        """Keep it no longer; returns once nothing is done about it any more."""
        with self._looking:
            self._job = None

    def tend(self) -> None:
        """See to it that a look is taken, if it is time for that; to be called often."""
        if monotonic() < self._look_at:
            return
        self._look_at = monotonic() + _PAUSE
        if self._store.claim_lasts is None:
            self._look()
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_looking, daemon=True)
            self._thread.start()
        self._is_due.set()

    def _keep_looking(self) -> None:
        while self._is_due.wait():
            self._is_due.clear()
            with self._looking:
                self._look()

    def _look(self) -> None:
        job = self._job
        if job is None:
            return
        asked_at = monotonic()
        try:
            now = self._store.current(job)
        except QueueError:
            # The supervisor finds out whether that is for good.
            self._look_at = monotonic() + _PAUSE_AWAY
            return
        is_ours = now is not None and now.worker == self._worker
        self.unwanted = self.unwanted or now is None or now.cancel_requested or not is_ours
        self.renewed_at = asked_at
        if self._store.shares_output:
            with contextlib.suppress(QueueError):
                self._share(job)
