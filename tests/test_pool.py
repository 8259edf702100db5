"""The pool of workers, where the system does not give it what it needs."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import List

import pytest

from queuectl import machine
from queuectl.events import Event
from queuectl.pool import Pool
from queuectl.worker import STOP
from support import open_descriptors, wait_until


@pytest.mark.parametrize("call", ["fork", "pipe"])
def test_a_worker_that_cannot_be_started_costs_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail() -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    told: List[Event] = []
    pool = Pool(3, lambda slot, name, orders: 0, told.append)
    before = open_descriptors()
    monkeypatch.setattr(os, call, fail)
    pool.fill()
    assert open_descriptors() <= before
    assert [event.detail for event in told] == [
        "cannot be started: Resource temporarily unavailable"
    ] * 3
    monkeypatch.undo()
    assert not pool.is_over


def test_a_worker_holds_nothing_of_the_workers_before_it(tmp_path: Path) -> None:
    """Each job that it spawns would have to close it."""

    def work(slot: int, name: str, orders: int) -> int:
        counted = len(machine.open_descriptors())
        (tmp_path / name).write_text(str(counted))
        os.read(orders, 1)
        return 0

    pool = Pool(4, work, lambda event: None)
    pool.fill()
    wait_until(lambda: len(list(tmp_path.iterdir())) == 4)
    pool.leave_vacant()
    pool.order(STOP)
    wait_until(lambda: pool.take_ended() is not None and pool.is_over)
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 1
