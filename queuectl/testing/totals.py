"""The suite's part about what is counted for good, and which job has waited longest."""

from __future__ import annotations

from typing import Callable, Dict

from queuectl import job as rules
from queuectl.store.base import Store
from queuectl.testing.common import (
    HORIZON,
    NOW,
    Fixtures,
    add,
    claim_one,
    current,
    everything,
    ids,
    new_job,
    run_and_complete,
    run_and_fail,
)
from queuectl.totals import BOUNDS

Reopen = Callable[[], Store]
SECONDS = tuple(bound / 1000 for bound in BOUNDS)


def counted(store: Store) -> Dict[str, int]:
    """The totals that are not those of histograms, nor 0."""
    totals = store.totals().items()
    return {name: number for name, number in totals if number and name.isalpha()}


def measured(store: Store, name: str) -> Dict[str, int]:
    """The buckets of a histogram that hold anything, and its sum."""
    totals = store.totals().items()
    return {
        key[len(name) :]: number
        for key, number in totals
        if number and key.startswith((f"{name}:", f"{name}_"))
    }


class TotalsContract(Fixtures):
    """Totals follow from what becomes of jobs; see `queuectl.totals`."""

    def test_each_change_is_counted_once(self, store: Store, reopen: Reopen) -> None:
        assert counted(store) == {}
        add(store, "a", "b", "c", max_retries=2)
        run_and_complete(store)
        failed = run_and_fail(store, NOW + 5)
        assert counted(reopen()) == {"completed": 1, "failed": 1}
        store.save([rules.cancel(current(store, "c"), NOW)])
        assert counted(store) == {"completed": 1, "failed": 1, "cancelled": 1}
        again = claim_one(store, NOW + 5)
        assert (again.id, counted(store)["retried"]) == (failed.id, 1)
        store.save([rules.rescue(again, NOW + 6, 1)])
        expected = {"completed": 1, "failed": 2, "cancelled": 1, "retried": 1}
        expected.update(dead=1, rescued=1)
        assert counted(reopen()) == expected

    def test_neither_purge_nor_rewrite_takes_from_them(self, store: Store, reopen: Reopen) -> None:
        add(store, "a", "b", "c")
        done = [run_and_complete(store, NOW + 2), run_and_complete(store, NOW + 2)]
        run_and_fail(store, NOW + 5)
        before = store.totals()
        store.remove(done)
        store.rewrite()
        assert reopen().totals() == store.totals() == before
        moved = rules.complete(rules.claim(new_job("moved"), "w1", NOW), NOW)
        store.add([moved], ["moved"])
        assert store.totals() == {**before, "completed": 3}
        assert "moved" in ids(everything(store))

    def test_what_is_retried_by_hand_is_counted_once(self, store: Store) -> None:
        add(store, "a", max_retries=2)
        failed = run_and_fail(store, NOW + 5)
        store.save([rules.retry(failed, NOW)])
        assert counted(store)["retried"] == 1
        store.save([rules.fail(claim_one(store), NOW, "Exit code 1", 1, 1)])
        assert counted(store) == {"failed": 2, "retried": 1, "dead": 1}
        store.save([rules.retry(current(store, "a"), NOW)])
        store.save([rules.cancel(current(store, "a"), NOW)])
        store.save([rules.retry(current(store, "a"), NOW)])
        claim_one(store)
        assert counted(store) == {"failed": 2, "retried": 3, "dead": 1, "cancelled": 1}

    def test_what_is_given_back_or_only_noted_is_no_failure(self, store: Store) -> None:
        add(store, "a")
        store.save([rules.release(claim_one(store), NOW)])
        store.save([rules.awaited(current(store, "a"), NOW, 1)])
        running = claim_one(store)
        store.save([rules.cancel(running, NOW)])
        assert counted(store) == {}
        store.save([rules.fail(current(store, "a"), NOW, "Cancelled", 0)])
        assert counted(store) == {"cancelled": 1}

    def test_a_claim_that_saves_counts_both(self, store: Store) -> None:
        add(store, "a", "b")
        claim_one(store, NOW + 3, done=rules.complete(claim_one(store, NOW + 1), NOW + 3))
        assert counted(store) == {"completed": 1}
        assert measured(store, "waited") == {":2": 1, ":3": 1, "_ms": 4000}
        assert measured(store, "ran") == {":3": 1, "_ms": 2000}

    def test_a_bucket_holds_what_lasted_up_to_its_bound(self, store: Store) -> None:
        add(store, *"abcdef")
        expected: Dict[str, int] = {}
        total = 0
        for number in (0, 4, len(SECONDS) - 1):
            bound = SECONDS[number]
            for took, bucket in ((bound, number), (bound + 0.001, number + 1)):
                store.save([rules.complete(claim_one(store, NOW + took), NOW + 2 * took)])
                expected[f":{bucket}"] = expected.get(f":{bucket}", 0) + 1
                total += round(took * 1000)
        for name in ("waited", "ran"):
            assert measured(store, name) == {**expected, "_ms": total}

    def test_a_wait_begins_when_the_time_has_come(self, store: Store) -> None:
        add(store, "a", run_at=NOW + 50)
        run = claim_one(store, NOW + 50.25)
        assert measured(store, "waited") == {":1": 1, "_ms": 250}
        store.save([rules.fail(run, NOW + 51, "Exit code 1", 9)])
        claim_one(store, NOW + 60.5)
        assert measured(store, "waited") == {":1": 2, "_ms": 750}
        store.save([rules.release(current(store, "a"), NOW + 61)])
        claim_one(store, NOW + 61.02)
        assert measured(store, "waited") == {":0": 1, ":1": 2, "_ms": 770}
        assert measured(store, "ran") == {":1": 1, ":2": 1, "_ms": 1250}

    def test_a_clock_that_steps_back_takes_nothing_away(self, store: Store) -> None:
        add(store, "a")
        store.save([rules.complete(claim_one(store, NOW - 5), NOW - 9)])
        assert store.totals()["waited:0"] == store.totals()["ran:0"] == 1
        assert measured(store, "ran") == {":0": 1}

    def test_the_oldest_is_the_first_that_could_be_claimed(
        self, store: Store, reopen: Reopen
    ) -> None:
        assert store.oldest(NOW, HORIZON) is None
        add(store, "later", run_at=NOW + 50)
        (parent,) = add(store, "parent", queue="q")
        child = new_job("child", after=("parent",), queue="r", priority=9)
        store.add([child], ["child"], [rules.awaited(parent, NOW, 1)])
        add(store, "urgent", priority=5)
        other = reopen()
        assert ids([store.oldest(NOW, HORIZON)]) == ["parent"]
        assert ids([other.oldest(NOW + 50, HORIZON)]) == ["later"]
        store.configure({"queue.q.paused": "yes"})
        assert ids([store.oldest(NOW, HORIZON)]) == ["parent"]
        store.save([rules.complete(claim_one(store, queues=["default"]), NOW)])
        store.configure({"queue.q.paused": None})
        store.save([rules.complete(claim_one(store), NOW)])
        assert ids([other.oldest(NOW, HORIZON)]) == ["child"]
        run_and_fail(store, NOW + 60)
        assert store.oldest(NOW + 49, HORIZON) is None
        store.rewrite()
        assert ids([store.oldest(NOW + 60, HORIZON)]) == ["later"]
