"""Who of many workers may claim: each rule with places that a test takes, or with a real worker."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Iterator

import pytest

from queuectl import clock, machine, runner, worker
from queuectl.hot import Hot
from queuectl.job import JobState
from queuectl.pool import Pool
from queuectl.store.base import Member
from queuectl.worker import STOP, Worker
from starting import HOLD, Queue
from support import Cli, wait_until

FOREVER = 3600.0


def test_no_more_are_hot_than_may_be() -> None:
    hot = Hot(4, 2, FOREVER)
    assert [hot.enter(slot) for slot in (0, 1, 2, 3)] == [True, True, False, False]
    assert hot.enter(0)  # It keeps its place.
    hot.leave(1)
    assert hot.enter(3)
    assert not hot.enter(1)


def test_more_are_hot_where_they_join() -> None:
    hot = Hot(3, 1, FOREVER)
    hot.enter(0)
    hot.join(1)
    assert not hot.enter(0)
    assert not hot.enter(2)
    hot.leave(1)
    assert hot.enter(0)


def test_where_all_may_be_hot_nobody_stands_by() -> None:
    hot = Hot(3, 3, FOREVER)
    assert all(hot.enter(slot) for slot in (0, 1, 2, 0, 1, 2))


def test_a_place_that_is_not_taken_anew_lapses() -> None:
    """Whoever had it may be dead, or stopped."""
    hot = Hot(2, 1, 0.02)
    assert hot.enter(0)
    wait_until(lambda: hot.enter(1))


def test_who_cools_lets_one_in_who_stands_by() -> None:
    hot = Hot(4, 2, FOREVER)
    for slot in range(4):
        hot.enter(slot)
    hot.hand_on(0)
    assert hot.hear() == [2]
    assert hot.hear() == []
    assert hot.enter(2)
    hot.hand_on(1)
    hot.hand_on(2)
    assert hot.hear() == [3]


def test_nobody_is_called_where_nobody_stands_by() -> None:
    hot = Hot(3, 2, FOREVER)
    hot.enter(0)
    hot.hand_on(0)
    hot.enter(1)
    hot.leave(1)
    hot.enter(2)
    assert hot.hear() == []


def test_calls_are_never_waited_for() -> None:
    hot = Hot(2, 1, FOREVER)
    hot.enter(0)
    hot.enter(1)
    for _ in range(100_000):  # More than a pipe holds.
        hot.hand_on(0)
    assert hot.hear() == [1]


@contextlib.contextmanager
def crew(queue: Queue) -> Iterator[Pool]:
    """Two slots of which one may be hot: the first has a real worker, the other is the test's."""

    def work(slot: int, name: str, orders: int) -> int:
        if slot == 1:
            signal.pause()
        member = Member(
            id="worker",
            role="worker",
            name=name,
            pid=os.getpid(),
            host=machine.host(),
            started_at=clock.to_iso(manager.store.now()),
            supervisor="none",
        )
        return Worker(
            manager,
            member,
            orders=orders,
            resting=pool.resting,
            hot=pool.hot,
            slot=slot,
            drain=False,
            queues=None,
            report=lambda event: None,
            notify=lambda job, settings: True,
        ).run()

    with queue.opened() as manager:
        pool = Pool(2, work, lambda event: None)
        pool.hot = Hot(2, 1, FOREVER)
        yield pool
        pool.leave_vacant()
        pool.order(STOP)
        pool.kill()
        wait_until(lambda: pool.take_ended() is not None and pool.is_over)


def test_a_worker_claims_nothing_while_enough_others_are_hot(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", "job")
    with crew(queue) as pool:
        pool.hot.enter(1)
        pool.fill()
        wait_until(lambda: pool.hot.stands_by(0))
        assert queue.job("job").state == JobState.PENDING
        pool.hot.leave(1)  # Nobody is called: it looks by itself.
        wait_until(lambda: queue.job("job").state == JobState.COMPLETED)


def test_a_worker_that_stands_by_is_let_in(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_STAND_BY", FOREVER)
    queue = Queue(cli)
    queue.add("true", "job")
    with crew(queue) as pool:
        pool.hot.enter(1)
        pool.fill()
        wait_until(lambda: pool.hot.stands_by(0))
        pool.hot.hand_on(1)
        pool.let_in()
        wait_until(lambda: queue.job("job").state == JobState.COMPLETED)


def test_a_worker_whose_job_goes_on_lets_another_in(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, "job")
    with crew(queue) as pool:
        assert pool.hot.enter(0)
        assert not pool.hot.enter(1)
        pool.fill()
        wait_until(lambda: pool.hot.hear() == [1])
        assert queue.job("job").state == JobState.PROCESSING
        queue.let_go()
        wait_until(lambda: queue.job("job").state == JobState.COMPLETED)


def test_a_worker_stands_by_after_a_short_job_and_has_saved_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_BRIEF", FOREVER)
    queue = Queue(cli)
    queue.add(HOLD, "first")
    queue.add("true", "second")
    with crew(queue) as pool:
        pool.fill()
        wait_until(lambda: queue.job("first").state == JobState.PROCESSING)
        pool.hot.join(1)
        queue.let_go()
        wait_until(lambda: queue.job("first").state == JobState.COMPLETED)
        wait_until(lambda: pool.hot.stands_by(0))
        assert queue.job("second").state == JobState.PENDING


def test_a_worker_claims_at_once_after_a_long_job(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(HOLD, "first")
    queue.add("true", "second")
    with crew(queue) as pool:
        pool.fill()
        wait_until(lambda: queue.job("first").state == JobState.PROCESSING)
        wait_until(lambda: pool.hot.enter(1))
        queue.let_go()
        wait_until(lambda: queue.job("second").state == JobState.COMPLETED)


def test_a_worker_that_finds_no_job_keeps_no_place(cli: Cli) -> None:
    with crew(Queue(cli)) as pool:
        pool.fill()
        wait_until(lambda: pool.resting[0])
        wait_until(lambda: pool.hot.enter(1))


def test_a_worker_that_died_lets_another_in(cli: Cli) -> None:
    queue = Queue(cli)
    with crew(queue) as pool:
        pool.fill()
        wait_until(lambda: pool.resting[0])
        assert pool.hot.enter(0)
        assert not pool.hot.enter(1)
        with queue.opened() as manager:
            (dead,) = manager.members("worker")
        os.kill(dead.pid, signal.SIGKILL)
        wait_until(pool.take_ended)
        assert pool.hot.hear() == [1]
