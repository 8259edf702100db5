"""The suite's part about order: priorities, and named queues that are paused or full."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Optional

from queuectl import job as rules
from queuectl.queues import rule_changes
from queuectl.store.base import Counts, Member, Store
from queuectl.testing.common import (
    HORIZON,
    NOW,
    Fixtures,
    add,
    claim,
    claim_all,
    claim_one,
    current,
    everything,
    ids,
    run_and_complete,
    run_and_fail,
)
from queuectl.testing.members import PATIENCE, is_readable

Reopen = Callable[[], Store]
MS = 0.001


def rule(store: Store, queue: str, concurrency: Optional[int] = None, paused: bool = False) -> None:
    """Set the rule of a queue."""
    store.configure(rule_changes(queue, {"concurrency": concurrency, "paused": paused}))


class QueueContract(Fixtures):
    """What a store promises of priorities and queues."""

    def test_higher_priority_comes_first_then_age(self, store: Store, reopen: Reopen) -> None:
        """Whichever was added first, below zero too; also to a process that comes later."""
        for number, priority in enumerate((0, -10, 10, 0, 1_000_000, 10, -1_000_000)):
            add(store, f"job{number}", priority=priority)
        assert ids([claim(store), claim(reopen())]) == ["job4", "job2"]
        assert claim_all(store) == ["job5", "job0", "job3", "job1", "job6"]

    def test_many_priorities_are_one_order(self, store: Store) -> None:
        """A priority that nobody waits with any more can come back."""
        for job_id, priority in (("a", 1), ("b", 50), ("c", 3), ("d", 50), ("e", -7)):
            add(store, job_id, priority=priority)
        assert ids([claim(store) for _ in range(4)]) == ["b", "d", "c", "a"]
        add(store, "f", priority=50)
        add(store, "g")
        add(store, "h", priority=-7)
        assert claim_all(store) == ["f", "g", "e", "h"]

    def test_a_high_priority_that_waits_for_its_time_blocks_nobody(self, store: Store) -> None:
        """Neither a delayed job nor a retry; once it is due it comes first."""
        add(store, "delayed", priority=10, run_at=NOW + 5)
        add(store, "retry", priority=20)
        run_and_fail(store, NOW + 5)
        add(store, "a", "b", "c")
        assert ids([claim(store)]) == ["a"]
        assert ids([claim(store, NOW + 5) for _ in range(4)]) == ["retry", "delayed", "b", "c"]

    def test_what_falls_due_keeps_its_age(self, store: Store) -> None:
        """Among those of its priority."""
        add(store, "a", priority=5, run_at=NOW + 5)
        add(store, "b", "c", priority=5)
        run_and_fail(store, NOW + 5)
        assert claim_all(store, NOW + 5) == ["a", "b", "c"]

    def test_a_released_job_keeps_its_priority_and_its_age(
        self, store: Store, reopen: Reopen
    ) -> None:
        """Seen by others, whatever they claimed meanwhile."""
        other = reopen()
        add(store, "low", priority=-1)
        add(store, "a", "b", priority=7)
        add(store, "mid")
        held = claim_one(store)
        assert ids([claim(other)]) == ["b"]
        store.save([rules.release(held, NOW)])
        assert claim_all(other) == ["a", "mid", "low"]

    def test_an_edit_moves_a_waiting_job(self, store: Store, reopen: Reopen) -> None:
        """To another priority or queue and back: the place that it had is left."""
        other = reopen()
        job, *_ = add(store, "a", "b", "c")
        assert other.claimable(NOW, HORIZON)
        for values in ({"priority": -3}, {"queue": "q"}, {"priority": 4}, {"queue": "default"}):
            job = rules.edit(job, NOW, **values)
            store.save([job])
            for each in (store, other):
                assert each.claimable(NOW, HORIZON, ["q"]) == (job.queue == "q")
        assert claim_all(other) == ["a", "b", "c"]

    def test_an_edit_lowers_a_job_that_waits_for_its_time(
        self, store: Store, reopen: Reopen
    ) -> None:
        """It is claimed once, from where it is now, at its time."""
        other = reopen()
        add(store, "retry", "later")
        failed = run_and_fail(store, NOW + 5)
        (delayed,) = add(store, "delayed", run_at=NOW + 5)
        assert not other.claimable(NOW, HORIZON, ["q"])
        store.save([rules.edit(failed, NOW, queue="q", priority=-2)])
        store.save([rules.edit(delayed, NOW, priority=-1)])
        assert claim_all(other) == ["later"]
        assert other.next_due() == other.next_due(["q"]) == other.next_due(["default"]) == NOW + 5
        assert other.awaits_retry(["q"])
        assert not other.awaits_retry(["default"])
        assert claim_all(other, NOW + 5) == ["delayed", "retry"]
        assert claim_all(store, NOW + 5) == []

    def test_a_time_that_was_asked_for_is_no_backoff(self, store: Store) -> None:
        """However far ahead: not even a job that failed before is due early."""
        add(store, "a")
        failed = run_and_fail(store, NOW + 5)
        edited = rules.edit(failed, NOW, NOW + 3 * HORIZON)
        store.save([edited])
        assert claim(store, NOW + 5) is None
        assert claim(store, NOW + 3 * HORIZON - MS) is None
        assert claim_one(store, NOW + 3 * HORIZON).attempts == 2

    def test_a_claim_may_be_of_some_queues(self, store: Store, reopen: Reopen) -> None:
        """Several are one order; a queue that no job names has none to give."""
        other = reopen()
        add(store, "a1", queue="a")
        add(store, "b1", queue="b")
        add(store, "d1")
        add(store, "a2", queue="a", priority=5)
        add(store, "b2", "b3", queue="b", priority=5)
        assert claim(store, queues=["absent"]) is None
        assert claim(store, queues=[]) is None
        assert not other.claimable(NOW, HORIZON, ["absent"])
        both = [claim(each, queues=["b", "a"]) for each in (store, other, store)]
        assert ids(both) == ["a2", "b2", "b3"]
        assert ids([claim(other, queues=("default",))]) == ["d1"]
        assert not store.claimable(NOW, HORIZON, ["default"])
        assert ids([claim(store, queues=["b", "absent"])]) == ["b1"]
        assert claim_all(store) == ["a1"]

    def test_nothing_comes_from_a_paused_queue(self, store: Store, reopen: Reopen) -> None:
        """From its pause on until it is resumed, whoever asks; the others go on."""
        other = reopen()
        add(store, "a1", "a2", queue="a", priority=9)
        add(store, "d1", "d2", "d3")
        assert other.claimable(NOW, HORIZON, ["a"])
        rule(store, "a", paused=True)
        for each, next_one in ((store, "d1"), (other, "d2"), (reopen(), "d3")):
            assert not each.claimable(NOW, HORIZON, ["a"])
            assert claim(each, queues=["a"]) is None
            assert ids([claim(each)]) == [next_one]
        rule(other, "a")
        assert ids([claim(store, queues=["a"]), claim(other)]) == ["a1", "a2"]

    def test_the_usual_queue_can_be_paused_and_limited(self, store: Store, reopen: Reopen) -> None:
        """As any other."""
        other = reopen()
        add(store, "a", "b", "c")
        rule(store, "default", paused=True)
        assert claim(other) is None
        rule(store, "default", 2)
        assert ids([claim(other), claim(store), claim(other)]) == ["a", "b", None]
        assert not other.claimable(NOW, HORIZON)

    def test_a_pause_lets_what_runs_finish(self, store: Store) -> None:
        """And keeps what fails or is released for later."""
        add(store, "a", "b", "c", queue="q")
        held = [claim_one(store, worker=worker) for worker in ("w1", "w2", "w3")]
        rule(store, "q", paused=True)
        assert claim(store, done=rules.complete(held[0], NOW)) is None
        assert claim(store, done=rules.release(held[1], NOW)) is None
        assert claim(store, done=rules.fail(held[2], NOW, "Exit code 1", 3)) is None
        assert store.counts() == Counts(completed=1, pending=1, failed=1)
        assert store.next_due() is None
        assert not store.awaits_retry()
        assert claim_all(store, NOW + 3) == []
        rule(store, "q")
        assert store.awaits_retry()
        assert claim_all(store, NOW + 3) == ["b", "c"]

    def test_no_more_run_at_once_than_the_queue_allows(self, store: Store, reopen: Reopen) -> None:
        """Over all processes; what ends makes room, however it ends."""
        other = reopen()
        rule(store, "q", 2)
        add(store, "a", "b", "c", "d", "e", queue="q", priority=3)
        add(store, "x", "y", "z")
        first, second = claim_one(store), claim_one(other, worker="w2")
        assert ids([first, second]) == ["a", "b"]
        for each in (store, other, reopen()):
            assert not each.claimable(NOW, HORIZON, ["q"])
            assert claim(each, queues=["q"]) is None
        assert ids([claim(other)]) == ["x"]
        store.save([rules.complete(first, NOW)])
        third = claim_one(other)
        assert third.id == "c"
        other.save([rules.rescue(second, NOW, 9)])
        fourth = claim_one(store, worker="w2")
        assert fourth.id == "d"
        other.save([rules.release(third, NOW)])
        assert ids([claim(store, worker="w3"), claim(other)]) == ["c", "y"]
        other.remove([fourth])
        assert ids([claim(store), claim(other), claim(store)]) == ["e", "z", None]

    def test_done_makes_room_for_the_claim_that_saves_it(
        self, store: Store, reopen: Reopen
    ) -> None:
        """Also if another process claimed it; not for one that it does not save."""
        other = reopen()
        rule(store, "q", 1)
        add(store, "a", "b", "c", "d", queue="q")
        job = claim_one(store)
        with_done = claim_one(store, done=rules.complete(job, NOW))
        assert with_done.id == "b"
        assert claim(store, worker="w2") is None
        third = claim_one(other, done=rules.fail(with_done, NOW, "Exit code 1", 0))
        assert third.id == "c"
        # What it saves is not what it claims.
        assert ids([claim(other, done=rules.release(third, NOW))]) == ["b"]
        assert other.running()["q"] == 1

    def test_done_of_another_queue_makes_no_room(self, store: Store) -> None:
        """Each queue counts its own."""
        rule(store, "q", 1)
        rule(store, "p", 1)
        add(store, "q1", "q2", queue="q")
        add(store, "p1", "p2", queue="p")
        held = [claim_one(store, worker="w1"), claim_one(store, worker="w2")]
        assert ids(held) == ["q1", "p1"]
        assert ids([claim(store, done=rules.complete(held[1], NOW))]) == ["p2"]
        assert claim(store) is None

    def test_a_rule_may_change_while_jobs_run(self, store: Store, reopen: Reopen) -> None:
        """Fewer than run now are reached by letting them end; more at once."""
        other = reopen()
        add(store, *"abcdef", queue="q")
        held = [claim_one(each, worker=f"w{at}") for at, each in enumerate((store, other, store))]
        rule(other, "q", 1)
        assert claim(store) is None
        for job in held[:2]:
            assert claim(store, done=rules.complete(current(store, job.id), NOW)) is None
        last = claim_one(other, done=rules.complete(held[2], NOW))
        assert last.id == "d"
        rule(store, "q", 2)
        assert ids([claim(store), claim(other)]) == ["e", None]
        rule(other, "q")
        assert ids([claim(store)]) == ["f"]
        assert "queue.q.concurrency" not in store.settings()

    def test_what_waits_in_a_full_queue_does_not_fall_due(self, store: Store) -> None:
        """But it is known to wait: when there is room it is claimed."""
        rule(store, "q", 1)
        add(store, "a", "b", queue="q")
        run_and_fail(store, NOW + 5)
        held = claim_one(store)
        assert claim(store, NOW + 5) is None
        assert not store.claimable(NOW + 5, HORIZON)
        assert store.next_due() is None
        assert store.awaits_retry()
        assert ids([claim(store, NOW + 5, done=rules.complete(held, NOW))]) == ["a"]
        assert not store.awaits_retry()

    def test_a_retry_that_is_due_is_awaited_until_it_is_claimed(self, store: Store) -> None:
        """As when there is no room for it any more."""
        add(store, "a", "b", queue="q", priority=-1)
        run_and_fail(store, NOW + 5)
        assert store.claimable(NOW + 5, HORIZON)
        assert store.awaits_retry()
        claim_one(store)
        rule(store, "q", 1)
        assert claim(store, NOW + 5) is None
        assert store.awaits_retry()

    def test_awaits_retry_tells_of_failed_jobs_only(self, store: Store, reopen: Reopen) -> None:
        """In the queues that are asked about; one that was claimed again waits no more."""
        add(store, "delayed", run_at=NOW + 5)
        add(store, "a", queue="q")
        assert not store.awaits_retry()
        run_and_fail(store, NOW + 5)
        for each in (store, reopen()):
            assert each.awaits_retry()
            assert each.awaits_retry(["q", "default"])
            assert not each.awaits_retry(["default"])
        assert ids([claim(store, NOW + 5, queues=["q"])]) == ["a"]
        assert not store.awaits_retry()

    def test_its_own_backoff_tells_how_far_ahead_a_retry_can_lie(self, store: Store) -> None:
        """Twice that, for jitter; further ahead it is only as the clock stepped back."""
        add(store, "short", backoff_base=2.0, backoff_max=1.5)
        add(store, "long", backoff_base=2.0, backoff_max=10 * HORIZON)
        run_and_fail(store, NOW + 3)
        run_and_fail(store, NOW + 20 * HORIZON)
        assert claim(store) is None
        assert claim(store, NOW - 2 * HORIZON + 1) is not None
        assert claim(store) is None
        assert ids([claim(store, NOW - 1)]) == ["long"]

    def test_a_tiny_backoff_is_one(self, store: Store, reopen: Reopen) -> None:
        """However it is written."""
        values = {"backoff_base": 1e-9, "backoff_max": 1e-05, "queue": "q", "priority": 3}
        (job,) = add(store, "a", **values)
        assert current(reopen(), "a") == job
        assert not reopen().claimable(NOW, HORIZON, ["default"])
        assert ids([claim(reopen(), queues=["q"])]) == ["a"]

    def test_running_and_tally_tell_each_queue(self, store: Store, reopen: Reopen) -> None:
        """What runs, and how many jobs there are in each state; wherever a rewrite put them."""
        assert store.running() == {"default": 0}
        assert store.tally() == {}
        add(store, "a", "b", "c")
        add(store, "x", "y", queue="q", priority=1)
        add(store, "z", queue="r", run_at=NOW + 5)
        run_and_complete(store)
        claim_one(store)
        claim_one(store)
        expected = {
            "default": Counts(pending=2, processing=1),
            "q": Counts(completed=1, processing=1),
            "r": Counts(pending=1, delayed=1),
        }
        for each in (store, reopen()):
            assert each.running() == {"default": 1, "q": 1}
            assert each.tally() == expected
            each.rewrite()
            assert each.running() == {"default": 1, "q": 1}
            assert each.tally() == expected
        store.save([rules.edit(current(store, "b"), NOW, queue="q")])
        store.remove([current(store, "x"), current(store, "y"), current(store, "z")])
        assert store.running() == {"default": 1}
        assert store.tally() == {
            "default": Counts(pending=1, processing=1),
            "q": Counts(pending=1),
        }

    def test_what_is_removed_is_claimed_from_no_queue(self, store: Store, reopen: Reopen) -> None:
        """Also if it waited, and for its time."""
        other = reopen()
        jobs = add(store, "a", queue="q", priority=2)
        jobs += add(store, "b", queue="q", run_at=NOW + 5)
        jobs += add(store, "c", priority=1)
        assert other.claimable(NOW, HORIZON, ["q"])
        store.remove(jobs)
        for each in (store, other, reopen()):
            assert not each.claimable(NOW + 9, HORIZON)
            assert claim(each, NOW + 9) is None
            assert each.next_due() is None

    def test_every_field_comes_back(self, store: Store, reopen: Reopen) -> None:
        """As it was, whatever happens to the job and wherever it is kept."""
        values: Dict[str, Any] = {
            "priority": -7,
            "queue": "Q.1",
            "unique": 'key "q" \\ ä 🚀',
            "labels": ("a", "ä=🚀"),
            "env": ("A=1", 'B="\n\udcff'),
            "shell": "/bin/sh",
            "backoff_base": 1.5,
            "backoff_max": 3155760000.0,
            "success_codes": (0, 3),
            "no_retry_on": (2, 64),
            "timeout": 5.0,
        }
        job, plain = [*add(store, "a", **values), *add(store, "b")]
        claimed = claim_one(store, queues=["Q.1"])
        failed = rules.fail(claimed, NOW, "Killed", 1, signal=9, timed_out=True)
        store.save([failed])
        for each in (store, reopen()):
            found = current(each, "a")
            assert found == failed
            assert found.to_dict(reveal=True) == failed.to_dict(reveal=True)
            for name, value in values.items():
                assert (getattr(found, name), type(getattr(found, name))) == (value, type(value))
            each.rewrite()
        completed = rules.complete(claim_one(store, NOW + 1, queues=["Q.1"]), NOW)
        store.save([completed])
        for _ in range(2):
            assert everything(reopen()) == [plain, completed]
            assert (completed.signal, completed.timed_out) == (None, False)
            store.rewrite()
        assert (job.seq, job.parents) == (1, ())

    def test_news_is_told_of_a_queue_that_opens(self, store: Store, reopen: Reopen) -> None:
        """By a new rule, or by a job that ends."""
        rule(store, "q", 1)
        add(store, "a", "b", queue="q")
        held = claim_one(store)
        listener = reopen()
        listener.enroll(Member("s1", "supervisor", "Supervisor", os.getpid(), "host", "2025", "s1"))
        listener.listen()
        assert listener.hear() == 0
        reopen().save([rules.complete(held, NOW)])
        assert is_readable(listener.listen(), PATIENCE)
        assert listener.hear() > 0
        for act in ({"concurrency": 3}, {"paused": True}, {}):
            rule(store, "q", **act)
            assert is_readable(listener.listen(), PATIENCE)
            assert listener.hear() > 0
        listener.leave("s1")
