"""The suite's part about stores that tell of each change: none is missing, none is told twice."""

from __future__ import annotations

import time
from typing import Callable, List, Optional, Tuple

import pytest

from queuectl import job as rules
from queuectl.job import JobState
from queuectl.store.base import Feed, JobChange, Store
from queuectl.testing.common import (
    NOW,
    Fixtures,
    add,
    claim_one,
    new_job,
    run_and_complete,
    run_and_fail,
)

Reopen = Callable[[], Store]
Told = List[Tuple[str, Optional[str]]]

_PATIENCE = 10.0  # seconds


def told(feed: Feed, number: int) -> Told:
    """What a feed tells next: so many changes, and then no more."""
    found: List[JobChange] = []
    deadline = time.monotonic() + _PATIENCE
    while len(found) < number and time.monotonic() < deadline:
        assert feed.look(found.append)
        time.sleep(0.001)
    assert feed.look(found.append)
    return [(change.id, change.state) for change in found]


class FeedContract(Fixtures):
    """What a store promises that can tell of each change."""

    @pytest.fixture
    def feeding(self, store: Store) -> Store:
        """The store, if it can."""
        feed = store.feed()
        if feed is None:
            pytest.skip("this store does not tell of each change")
        feed.close()
        return store

    def test_a_feed_tells_of_each_change_in_order(self, feeding: Store, reopen: Reopen) -> None:
        """From its beginning on, whoever made it; also of a claim that saves another job."""
        add(feeding, "before")
        other = reopen()
        with open_feed(feeding) as feed:
            assert told(feed, 0) == []
            add(other, "a", "b")
            claimed = claim_one(feeding)
            done = rules.complete(claimed, NOW)
            running = claim_one(other, done=done, worker="w2")
            failed = rules.fail(running, NOW, "Exit code 1", 60, 1)
            other.save([failed])
            assert told(feed, 6) == [
                ("a", JobState.PENDING),
                ("b", JobState.PENDING),
                ("before", JobState.PROCESSING),
                ("before", JobState.COMPLETED),
                ("a", JobState.PROCESSING),
                ("a", JobState.FAILED),
            ]
            feeding.remove([done], [rules.retry(failed, NOW)])
            assert sorted(told(feed, 2)) == [("a", JobState.PENDING), ("before", None)]

    def test_a_feed_tells_of_queues_and_of_changes_within_a_state(self, feeding: Store) -> None:
        (job,) = add(feeding, "a", queue="q")
        with open_feed(feeding) as feed:
            feeding.save([rules.edit(job, NOW, queue="other")])
            found: List[JobChange] = []
            deadline = time.monotonic() + _PATIENCE
            while not found and time.monotonic() < deadline:
                assert feed.look(found.append)
            assert found == [JobChange("a", JobState.PENDING, "other")]

    def test_feeds_are_at_places_of_their_own(self, feeding: Store) -> None:
        with open_feed(feeding) as first:
            add(feeding, "a")
            with open_feed(feeding) as second:
                run_and_complete(feeding)
                assert told(second, 2) == [("a", JobState.PROCESSING), ("a", JobState.COMPLETED)]
            assert [state for _, state in told(first, 3)] == [
                JobState.PENDING,
                JobState.PROCESSING,
                JobState.COMPLETED,
            ]

    def test_a_feed_loses_nothing_by_a_rewrite(self, feeding: Store, reopen: Reopen) -> None:
        """What was committed between its last look and the rewrite, and what comes behind that."""
        other = reopen()
        add(other, "a", "b", "c")
        with open_feed(feeding) as feed:
            run_and_complete(other)
            other.rewrite()
            run_and_fail(other, NOW + 60)
            assert [job_id for job_id, _ in told(feed, 4)] == ["a", "a", "b", "b"]
            other.rewrite()
            assert told(feed, 0) == []
            add(other, "d")
            assert told(feed, 1) == [("d", JobState.PENDING)]

    def test_a_feed_tells_of_many_jobs_that_are_added_at_once(self, feeding: Store) -> None:
        names = [f"job{number}" for number in range(2500)]
        with open_feed(feeding) as feed:
            feeding.add([new_job(name) for name in names])
            assert told(feed, len(names)) == [(name, JobState.PENDING) for name in names]


def open_feed(store: Store) -> Feed:
    """A feed that must be there."""
    feed = store.feed()
    assert feed is not None
    return feed
