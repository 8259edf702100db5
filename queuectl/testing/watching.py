"""The suite's part about jobs that are looked at again and again, while others change them."""

from __future__ import annotations

from typing import Callable, Dict, Optional

from queuectl import job as rules
from queuectl.job import Job
from queuectl.store.base import Store, Watch
from queuectl.testing.common import (
    NOW,
    Fixtures,
    add,
    claim_one,
    ids,
    run_and_complete,
    run_and_fail,
)

Reopen = Callable[[], Store]


def changed(watch: Watch) -> Dict[str, Optional[Job]]:
    """What a watch yields."""
    return dict(watch.look())


def die(store: Store, at: float) -> Job:
    """Claim the next job and let it fail until it is dead."""
    dead = rules.fail(claim_one(store, at), at, "Exit code 1", 1)
    store.save([dead])
    while dead.waits:
        again = rules.claim(dead, "w1", at)
        store.save([again])
        dead = rules.fail(again, at, "Exit code 1", 1)
        store.save([dead])
    return dead


class WatchContract(Fixtures):
    """Some jobs, or what all are doing, at the cost of what was committed since the last look."""

    def test_a_watch_yields_all_and_then_what_changed(self, store: Store) -> None:
        """Also what changed by claims in order, which an index need not read."""
        first, second, _ = add(store, "a", "b", "c")
        with store.watch(["a", "b", "none"]) as watch:
            assert changed(watch) == {"a": first, "b": second, "none": None}
            assert changed(watch) == {}
            claimed = claim_one(store)
            assert changed(watch) == {"a": claimed}
            completed = rules.complete(claimed, NOW)
            running = claim_one(store, done=completed)
            assert changed(watch) == {"a": completed, "b": running}
            add(store, "d")
            assert changed(watch) == {}

    def test_a_watch_sees_what_others_change(self, store: Store, reopen: Reopen) -> None:
        """Several times between two looks, the newest counts."""
        add(store, "a", "b")
        other = reopen()
        with store.watch(["a", "b"]) as watch:
            changed(watch)
            failed = run_and_fail(other, NOW + 2)
            assert changed(watch) == {"a": failed}
            assert changed(watch) == {}

    def test_a_watch_sees_a_purge_and_who_has_the_id_then(self, store: Store) -> None:
        add(store, "a", "b")
        with store.watch(["a", "b"]) as watch:
            changed(watch)
            done = run_and_complete(store)
            store.remove([done])
            assert changed(watch) == {"a": None}
            [again] = add(store, "a")
            assert changed(watch) == {"a": again}
            assert again.seq != done.seq

    def test_a_watch_goes_on_after_a_rewrite(self, store: Store, reopen: Reopen) -> None:
        """What was moved away as completed is still found, and what comes after it too."""
        add(store, "a", "b", "c")
        other = reopen()
        with store.watch(["a", "b"]) as watch:
            changed(watch)
            completed = run_and_complete(other)
            other.rewrite()
            assert changed(watch)["a"] == completed
            claimed = claim_one(other)
            assert changed(watch) == {"b": claimed}
            other.rewrite()
            done = rules.complete(claimed, NOW)
            other.save([done])
            assert changed(watch)["b"] == done

    def test_many_jobs_can_be_watched(self, store: Store) -> None:
        names = [f"job{number}" for number in range(50)]
        jobs = add(store, *names)
        with store.watch(names) as watch:
            assert changed(watch) == {job.id: job for job in jobs}

    def test_watches_and_claims_do_not_disturb_each_other(self, store: Store) -> None:
        """A claimer and its own watch are at different places of what was committed."""
        add(store, *"abcdef")
        with store.watch("abcdef") as watch:
            for _ in range(3):
                assert claim_one(store).runs == 1
                changed(watch)
                assert claim_one(store).runs == 1

    def test_activity_is_what_runs_and_what_failed_last(self, store: Store, reopen: Reopen) -> None:
        add(store, *"abcdef")
        assert store.activity(2) == ([], [])
        other = reopen()
        first, second, third = (die(other, NOW + at) for at in (1, 2, 3))
        failed = run_and_fail(other, NOW + 90, NOW + 4)
        running = claim_one(other, NOW + 5)
        assert store.activity(2) == ([running], [failed, third])
        assert store.activity(9) == ([running], [failed, third, second, first])
        assert other.activity(1) == ([running], [failed])

    def test_activity_forgets_what_goes_on(self, store: Store) -> None:
        """Retried, purged, ended: however many there are beside the few that were asked for."""
        names = [f"job{number}" for number in range(60)]
        add(store, *names)
        dead = [die(store, NOW + number) for number in range(60)]
        assert store.activity(3).failures == dead[:-4:-1]
        store.save([rules.retry(job, NOW + 100) for job in dead[5:]])
        assert store.activity(3).failures == dead[4:1:-1]
        store.remove(dead[1:5])
        assert store.activity(3).failures == dead[:1]
        running = claim_one(store, NOW + 100)
        assert store.activity(3).running == [running]
        store.save([rules.complete(running, NOW + 101)])
        assert store.activity(3) == ([], dead[:1])

    def test_activity_goes_on_after_a_rewrite(self, store: Store, reopen: Reopen) -> None:
        add(store, "a", "b", "c")
        other = reopen()
        dead = die(other, NOW)
        running = claim_one(other)
        assert store.activity(5) == ([running], [dead])
        run_and_complete(other)
        other.rewrite()
        assert store.activity(5) == ([running], [dead])
        other.save([rules.complete(running, NOW)])
        assert store.activity(5) == ([], [dead])

    def test_running_jobs_are_in_the_order_of_their_starts(self, store: Store) -> None:
        add(store, "a", "b")
        add(store, "urgent", priority=5)
        started = [claim_one(store, NOW + at) for at in (1, 2, 3)]
        assert ids(started) == ["urgent", "a", "b"]
        assert store.activity(1).running == started
