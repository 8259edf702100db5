"""The pool of workers, where the system does not give it what it needs."""

from __future__ import annotations

import errno
import gc
import os
from typing import List

import pytest

from queuectl import machine
from queuectl.events import Event
from queuectl.pool import Pool


@pytest.mark.parametrize("call", ["fork", "pipe"])
def test_a_worker_that_cannot_be_started_costs_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail() -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    told: List[Event] = []
    pool = Pool(3, lambda slot, name, orders: 0, told.append)
    gc.collect()  # what other tests left open closes now, not between the two looks
    before = machine.open_descriptors()
    monkeypatch.setattr(os, call, fail)
    pool.fill()
    assert machine.open_descriptors() == before
    assert [event.detail for event in told] == [
        "cannot be started: Resource temporarily unavailable"
    ] * 3
    monkeypatch.undo()
    assert not pool.is_over
