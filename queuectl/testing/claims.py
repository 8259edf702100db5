"""The suite's part about claims: which job is handed out, when, and that nobody else gets it."""

from __future__ import annotations

from typing import Callable

import pytest

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import ClaimLostError, ConflictError
from queuectl.store.base import Counts, Store
from queuectl.testing.common import (
    HORIZON,
    NOW,
    WAITING,
    Fixtures,
    add,
    claim,
    claim_one,
    current,
    everything,
    ids,
    run_and_fail,
)

Reopen = Callable[[], Store]
MS = 0.001


class ClaimContract(Fixtures):
    """What a store promises of claims."""

    def test_an_empty_store_has_nothing_to_claim(self, store: Store) -> None:
        """Looking changes nothing."""
        assert claim(store) is None
        assert not store.claimable(NOW, HORIZON)
        assert store.counts() == Counts()

    def test_a_claim_is_kept(self, store: Store, reopen: Reopen) -> None:
        """The job is processing, names its worker, and is charged an attempt."""
        (job,) = add(store, "a")
        claimed = claim_one(store, NOW + 5, "w7")
        assert claimed == rules.claim(job, "w7", NOW + 5)
        assert store.get("a") == reopen().get("a") == claimed
        assert store.counts() == Counts(processing=1)

    def test_a_long_job_is_claimed_whole(self, store: Store, reopen: Reopen) -> None:
        """However many bytes its record takes."""
        add(store, "a", command="\udcff" * 131_071)
        claimed = claim_one(store)
        assert claimed.command == "\udcff" * 131_071
        failed = rules.fail(claimed, NOW, "x" * 1_000_000, 0)
        assert claim(reopen(), done=failed) is None
        assert claim_one(store).last_error == "x" * 1_000_000

    def test_one_that_is_not_wanted_any_more_is_not_made(self, store: Store) -> None:
        """What is done is saved all the same; and it is only asked if there is a job."""
        assert store.claim("w", NOW, HORIZON, None, lambda: 1 // 0 == 0) is None
        add(store, "a", "b")
        done = rules.complete(claim_one(store), NOW)
        assert store.claim("w", NOW, HORIZON, done, lambda: False) is None
        assert store.counts() == Counts(pending=1, completed=1)
        assert ids([store.claim("w", NOW, HORIZON, None, lambda: True)]) == ["b"]

    def test_the_oldest_comes_first(self, store: Store) -> None:
        """Whatever the ids and the times say."""
        add(store, "c", "a")
        add(store, "b")
        assert ids([claim(store) for _ in range(4)]) == ["c", "a", "b", None]

    def test_nobody_gets_what_another_claimed(self, store: Store, reopen: Reopen) -> None:
        """Each job goes to one of two processes in turn, also if both looked before."""
        other = reopen()
        add(store, "a", "b", "c", "d", "e")
        assert store.claimable(NOW, HORIZON)
        assert other.claimable(NOW, HORIZON)
        claimed = [claim(each, worker="w") for _ in range(3) for each in (store, other)]
        assert ids(claimed) == ["a", "b", "c", "d", "e", None]
        assert not other.claimable(NOW, HORIZON)

    def test_a_claim_sees_what_others_did(self, store: Store, reopen: Reopen) -> None:
        """Jobs added, released, cancelled and removed by another process; also after a rewrite."""
        assert claim(store) is None
        other = reopen()
        jobs = add(other, "a", "b", "c", "d")
        assert ids([claim(store)]) == ["a"]
        other.save([rules.cancel(jobs[1], NOW)])
        other.remove(jobs[2:3])
        other.rewrite()
        held = other.get("a")
        assert held is not None
        other.save([rules.release(held, NOW)])
        assert ids([claim(store) for _ in range(3)]) == ["a", "d", None]
        other.rewrite()
        add(other, "e")
        assert ids([claim(store), claim(other)]) == ["e", None]

    def test_a_retry_waits_for_its_time_to_the_millisecond(self, store: Store) -> None:
        """Not one early, not one late."""
        add(store, "a")
        due = NOW + 2.345
        run_and_fail(store, due)
        for early in (NOW, due - MS):
            assert not store.claimable(early, HORIZON)
            assert claim(store, early) is None
        assert store.claimable(due, HORIZON)
        claimed = claim_one(store, due)
        assert (claimed.attempts, claimed.runs, claimed.run_at) == (2, 2, None)

    def test_a_delayed_job_waits_for_its_time_to_the_millisecond(self, store: Store) -> None:
        """However far ahead that is: the horizon is for retries."""
        due = NOW + 3 * HORIZON
        add(store, "a", run_at=due)
        for early in (NOW, due - MS):
            assert not store.claimable(early, HORIZON)
            assert claim(store, early) is None
        assert ids([claim(store, due)]) == ["a"]

    def test_what_is_due_comes_by_age(self, store: Store) -> None:
        """A job that waited keeps its place before younger ones, whichever fell due first."""
        add(store, "a", "b", "c")
        run_and_fail(store, NOW + 2)
        run_and_fail(store, NOW + 1)
        add(store, "d", run_at=NOW + 1)
        add(store, "e")
        assert ids([claim(store, NOW + 1)]) == ["b"]
        assert ids([claim(store, NOW + 2) for _ in range(5)]) == ["a", "c", "d", "e", None]

    def test_a_released_job_keeps_its_place(self, store: Store) -> None:
        """It is due at once, before the younger ones."""
        add(store, "a", "b", "c")
        first = claim_one(store)
        claim_one(store)
        store.save([rules.release(first, NOW)])
        assert ids([claim(store) for _ in range(3)]) == ["a", "c", None]

    def test_a_job_that_failed_again_waits_anew(self, store: Store) -> None:
        """An earlier time of the same job releases nothing."""
        add(store, "a")
        failed = run_and_fail(store, NOW + 10)
        store.save([rules.retry(failed, NOW)])
        run_and_fail(store, NOW + 20)
        assert claim(store, NOW + 10) is None
        assert store.next_due() == NOW + 20
        assert ids([claim(store, NOW + 20)]) == ["a"]

    def test_cancelled_and_removed_jobs_do_not_fall_due(self, store: Store) -> None:
        """Also if they were waiting for their time."""
        add(store, "a", "b")
        failed = [run_and_fail(store, NOW + 1), run_and_fail(store, NOW + 1)]
        store.save([rules.cancel(failed[0], NOW)])
        store.remove(failed[1:])
        assert claim(store, NOW + 1) is None
        assert store.next_due() is None

    def test_a_retry_beyond_the_horizon_is_due(self, store: Store) -> None:
        """So far ahead it can only be because the clock stepped back; one exactly there is not."""
        add(store, "a")
        run_and_fail(store, NOW + 2)
        at_horizon = NOW + 2 - HORIZON
        assert claim(store, at_horizon) is None
        assert not store.claimable(at_horizon, HORIZON)
        assert store.claimable(at_horizon - MS, HORIZON)
        assert ids([claim(store, at_horizon - MS)]) == ["a"]

    def test_a_near_retry_does_not_hide_one_beyond_the_horizon(self, store: Store) -> None:
        """The clock stepped back, and a job has failed since."""
        add(store, "a", "b", "c")
        then = NOW - 2 * HORIZON
        first, second = claim_one(store), claim_one(store)
        store.save([rules.fail(first, NOW, "Exit code 1", 2)])
        store.save([rules.fail(second, then, "Exit code 1", 2)])
        assert ids([claim(store, then) for _ in range(3)]) == ["a", "c", None]
        assert store.next_due() == then + 2

    def test_what_was_due_is_not_when_the_clock_steps_back(
        self, store: Store, reopen: Reopen
    ) -> None:
        """All processes agree, whatever the time was when they looked last."""
        add(store, "a", "b")
        run_and_fail(store, NOW + 60)
        claim_one(store)
        add(store, "c", run_at=NOW + 60)
        for each in (store, reopen()):
            assert each.claimable(NOW + 60, HORIZON)
            assert not each.claimable(NOW, HORIZON)
            assert claim(each) is None
            assert each.next_due() == NOW + 60
        assert ids([claim(store, NOW + 60) for _ in range(3)]) == ["a", "c", None]

    def test_next_due_names_the_earliest(self, store: Store, reopen: Reopen) -> None:
        """Of retries and delayed jobs; nothing where none waits."""
        assert store.next_due() is None
        add(store, "a", "b")
        assert claim(store) is not None
        assert store.next_due() is None
        other = reopen()
        running = other.get("a")
        assert running is not None
        other.save([rules.fail(running, NOW, "Exit code 1", 30)])
        (later,) = add(other, "c", run_at=NOW + 20)
        assert ids([claim(store), claim(store)]) == ["b", None]
        assert store.next_due() == NOW + 20
        other.save([rules.cancel(later, NOW)])
        assert claim(store) is None
        assert store.next_due() == NOW + 30

    def test_done_is_saved_with_the_next_claim(self, store: Store, reopen: Reopen) -> None:
        """Also if there is nothing left to claim."""
        add(store, "a", "b")
        done = rules.complete(claim_one(store), NOW)
        second = claim_one(store, done=done)
        assert (second.id, store.get("a")) == ("b", done)
        assert reopen().counts() == Counts(completed=1, processing=1)
        done = rules.fail(second, NOW, "Exit code 1", 5)
        assert claim(store, done=done) is None
        assert reopen().get("b") == done
        assert store.next_due() == NOW + 5

    def test_done_can_be_claimed_by_the_next_claim(self, store: Store) -> None:
        """The claim that saves it chooses among the others."""
        add(store, "a", "b")
        failed = rules.fail(claim_one(store), NOW, "Exit code 1", 0)
        assert ids([claim(store, done=failed), claim(store), claim(store)]) == ["b", "a", None]

    def test_done_of_a_claim_that_is_over_is_refused(self, store: Store, reopen: Reopen) -> None:
        """Then nothing is claimed either."""
        add(store, "a", "b")
        old = claim_one(store)
        done = rules.complete(old, NOW)
        other = reopen()

        def refuses() -> None:
            before = everything(other)
            with pytest.raises(ClaimLostError):
                claim(store, done=done)
            assert everything(store) == everything(other) == before

        other.save([rules.rescue(old, NOW, 0)])
        refuses()
        assert ids([claim(other, worker="w2")]) == ["a"]
        refuses()
        held = other.get("a")
        assert held is not None
        other.remove([held])
        refuses()
        add(other, "a")
        other.rewrite()
        assert ids([claim(other), claim(other)]) == ["b", "a"]
        refuses()

    def test_of_two_results_of_one_claim_the_first_counts(
        self, store: Store, reopen: Reopen
    ) -> None:
        """Also if neither comes from who claimed."""
        add(store, "a", "b", "c")
        other, third = reopen(), reopen()
        assert other.claimable(NOW, HORIZON)
        assert third.claimable(NOW, HORIZON)
        done = rules.complete(claim_one(store), NOW)
        assert ids([claim(other, done=done)]) == ["b"]
        for late in (store, third, other):
            with pytest.raises(ClaimLostError):
                claim(late, done=done)
        assert ids([claim(store), claim(third)]) == ["c", None]

    def test_a_failure_with_the_next_claim_is_seen_by_others(
        self, store: Store, reopen: Reopen
    ) -> None:
        add(store, "a", "b")
        other = reopen()
        assert other.claimable(NOW, HORIZON)
        failed = rules.fail(claim_one(store), NOW, "Exit code 1", 5)
        assert ids([claim(store, done=failed)]) == ["b"]
        assert not other.claimable(NOW, HORIZON)
        assert ids([claim(other, NOW + 5)]) == ["a"]

    def test_done_must_know_of_a_cancel(self, store: Store, reopen: Reopen) -> None:
        """The claim holds, so the result is decided again; nothing was claimed."""
        add(store, "a", "b")
        running = claim_one(store)
        reopen().save([rules.cancel(running, NOW)])
        with pytest.raises(ConflictError) as caught:
            claim(store, done=rules.complete(running, NOW))
        assert not isinstance(caught.value, ClaimLostError)
        assert store.counts() == Counts(pending=1, processing=1)
        current = store.get("a")
        assert current is not None
        assert ids([claim(store, done=rules.release(current, NOW))]) == ["b"]
        assert store.counts() == Counts(cancelled=1, processing=1)

    def test_changed_tells_what_others_did_to_the_held_job(
        self, store: Store, reopen: Reopen
    ) -> None:
        """Not what they did to others, nor that a rewrite has moved it."""
        other = reopen()
        add(store, "a", "b", "c")
        held = claim_one(store)
        assert store.current(held) == held
        claim_one(other, worker="w2")
        add(other, "d")
        for _ in range(2):
            other.rewrite()
            assert store.current(held) == held
        other.save([rules.cancel(held, NOW)])
        assert store.current(held) != held
        other.rewrite()
        assert store.current(held) != held
        ended = rules.fail(current(store, "a"), NOW, "Ended", 0)
        second = claim_one(store, done=ended)
        assert store.current(second) == second
        other.remove([second])
        assert store.current(second) != second
        other.rewrite()
        assert store.current(second) != second

    def test_the_claims_of_a_process_end_independently(self, store: Store) -> None:
        """It may hold several, and report them in any order."""
        add(store, "a", "b", "c", "d")
        held = [claim_one(store, worker=f"w{number}") for number in range(3)]
        assert ids([claim(store, done=rules.complete(held[0], NOW))]) == ["d"]
        store.save([rules.complete(held[2], NOW)])
        assert claim(store, done=rules.complete(held[1], NOW)) is None
        assert store.counts() == Counts(completed=3, processing=1)

    def test_a_rewrite_changes_nothing(self, store: Store, reopen: Reopen) -> None:
        """Not what is kept, nor what is due, nor who holds a claim; done by anyone at any time."""
        other = reopen()
        add(store, "a", "b", "c", "d")
        add(store, "e", run_at=NOW + 7)
        running = claim_one(store)
        claim_one(store, done=rules.complete(running, NOW))
        failed = run_and_fail(other, NOW + 5)
        before = everything(store)
        for each in (other, store, reopen()):
            each.rewrite()
            for look in (store, other, reopen()):
                assert everything(look) == before
                assert look.get("c") == failed
                assert look.counts() == Counts(
                    pending=2, processing=1, completed=1, failed=1, delayed=1
                )
        held = store.get("b")
        assert held is not None
        assert ids([claim(store, done=rules.complete(held, NOW)), claim(other)]) == ["d", None]
        assert store.next_due() == NOW + 5
        assert ids([claim(other, NOW + 7), claim(store, NOW + 7)]) == ["c", "e"]
        assert list(store.select(WAITING)) == []

    def test_times_are_those_of_the_text(self, store: Store) -> None:
        """A time survives being stored, to the millisecond."""
        for number, due in enumerate((NOW + 0.001, NOW + 0.999, NOW + 1e8 + 0.123)):
            add(store, f"job{number}", run_at=due)
            assert claim(store, due - MS) is None
            assert store.next_due() == due == clock.from_iso(clock.to_iso(due))
            assert ids([claim(store, due)]) == [f"job{number}"]
