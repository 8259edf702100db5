"""The suite's part about dependencies: which jobs wait for others, and until when."""

from __future__ import annotations

from typing import Any, Callable, List, Sequence

import pytest

from queuectl import job as rules
from queuectl.errors import ClaimLostError, ConflictError
from queuectl.job import Job, JobState
from queuectl.store.base import Store
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
    new_job,
    run_and_complete,
    run_and_fail,
)

Reopen = Callable[[], Store]


def add_child(
    store: Store,
    job_id: str,
    after: Sequence[str] = (),
    after_any: Sequence[str] = (),
    **values: Any,
) -> Job:
    """Add a job that waits for others; those that have not completed are told of it."""
    parents = [current(store, parent) for parent in dict.fromkeys([*after, *after_any])]
    also = [rules.awaited(job, NOW, 1) for job in parents if job.state != JobState.COMPLETED]
    job = new_job(job_id, after=tuple(after), after_any=tuple(after_any), **values)
    return store.add([job], [job_id], also)[0]


def give_up(store: Store, job_id: str) -> Job:
    """Run a job, which is given up."""
    claimed = claim_one(store)
    assert claimed.id == job_id
    dead = rules.fail(claimed, NOW, "Exit code 1", 0, 1)
    store.save([dead])
    return dead


class DependencyContract(Fixtures):
    """What a store promises of jobs that wait for others."""

    def test_a_child_waits_until_its_parent_completed(self, store: Store, reopen: Reopen) -> None:
        """It is not claimable before, whoever asks, and keeps its age."""
        other = reopen()
        (parent,) = add(store, "parent")
        child = add_child(store, "child", ["parent"])
        add(store, "last")
        assert (child.after, child.parents) == (("parent",), (parent.seq,))
        assert current(other, "parent").dependents == 1
        held = claim_one(other)
        assert held.id == "parent"
        for each in (store, other, reopen()):
            assert ids([claim(each), claim(each)]) == ["last" if each is store else None, None]
        other.save([rules.complete(held, NOW)])
        for each in (store, other, reopen()):
            assert each.claimable(NOW, HORIZON)
        assert ids([claim(store), claim(other)]) == ["child", None]

    def test_a_parent_may_be_named_both_ways(self, store: Store, reopen: Reopen) -> None:
        """As one that must complete, and as one that must end: it must complete."""
        other = reopen()
        add(store, "parent")
        assert other.claimable(NOW, HORIZON)
        add_child(store, "child", ["parent"], ["parent"])
        held = claim_one(other)
        assert ids([claim(store), claim(other)]) == [None, None]
        child = claim_one(other, done=rules.complete(held, NOW))
        other.save([rules.complete(child, NOW)])
        assert ids([claim(store), claim(other), claim(reopen())]) == [None, None, None]

    def test_every_parent_must_complete(self, store: Store, reopen: Reopen) -> None:
        """In whatever order; of those to end any end will do."""
        other = reopen()
        add(store, "a", "b", "c", max_retries=1)
        add_child(store, "child", ["a", "b"], ["c"])
        assert claim(other, queues=["none"]) is None
        held = {job.id: job for job in (claim_one(store, worker=f"w{n}") for n in range(3))}
        store.save([rules.fail(held["c"], NOW, "Exit code 1", 0)])
        assert claim(other) is None
        store.save([rules.complete(held["b"], NOW)])
        assert claim(other) is None
        assert claim_all(reopen()) == []
        store.save([rules.complete(held["a"], NOW)])
        assert ids([claim(other)]) == ["child"]

    @pytest.mark.parametrize("end", ["completed", "dead", "cancelled"])
    def test_after_any_waits_for_an_end_however(
        self, store: Store, reopen: Reopen, end: str
    ) -> None:
        """A failure that is retried is none."""
        other = reopen()
        add(store, "parent", max_retries=2)
        add_child(store, "child", after_any=["parent"])
        run_and_fail(store, NOW)
        job = current(store, "parent")
        if end == "cancelled":
            assert ids([claim(other)]) == ["parent"]
            store.save([rules.release(current(store, "parent"), NOW)])
            store.save([rules.cancel(current(store, "parent"), NOW)])
        else:
            job = claim_one(store)
            assert job.id == "parent"
            assert not other.claimable(NOW, HORIZON)
            done = rules.complete(job, NOW) if end == "completed" else None
            store.save([done or rules.fail(job, NOW, "Exit code 1", 0)])
        assert current(store, "parent").state == end
        assert ids([claim(other), claim(other)]) == ["child", None]

    @pytest.mark.parametrize("moved", [False, True])
    def test_a_parent_that_completed_before_is_not_waited_for(
        self, store: Store, reopen: Reopen, moved: bool
    ) -> None:
        """Wherever it is kept, and also once it is removed."""
        add(store, "parent")
        run_and_complete(store)
        if moved:
            store.rewrite()
        child = add_child(store, "child", ["parent"])
        assert (child.after, child.parents) == (("parent",), ())
        assert reopen().claimable(NOW, HORIZON)
        store.remove([current(store, "parent")])
        assert ids([claim(reopen())]) == ["child"]

    def test_jobs_of_one_batch_may_name_each_other(self, store: Store, reopen: Reopen) -> None:
        """Whichever comes first in it."""
        other = reopen()
        assert not other.claimable(NOW, HORIZON)
        batch = [
            new_job("last", after=("mid",), after_any=("first",)),
            new_job("first", dependents=2),
            new_job("mid", after=("first",), dependents=1),
        ]
        added = store.add(batch, ["last", "first", "mid"])
        assert [job.parents for job in added] == [(3, -2), (), (2,)]
        order = []
        for each in (store, other, reopen()):
            job = claim_one(each)
            assert claim(other) is None
            order.append(job.id)
            store.save([rules.complete(job, NOW)])
        assert order == ["first", "mid", "last"]

    def test_a_dead_parent_keeps_its_children(self, store: Store, reopen: Reopen) -> None:
        """Until it is retried and completes, also where it is known from the start only."""
        add(store, "parent", max_retries=1)
        add_child(store, "child", ["parent"])
        give_up(store, "parent")
        add_child(store, "late", ["parent"])
        for _ in range(2):
            for each in (store, reopen()):
                assert not each.claimable(NOW, HORIZON)
                assert claim(each) is None
            store.rewrite()
        store.save([rules.retry(current(store, "parent"), NOW)])
        run_and_complete(store)
        assert claim_all(reopen()) == ["child", "late"]

    def test_a_parent_that_begins_anew_is_waited_for_again(
        self, store: Store, reopen: Reopen
    ) -> None:
        """By who waits for its end, and was not claimed meanwhile."""
        other = reopen()
        add(store, "parent", max_retries=1)
        add_child(store, "child", after_any=["parent"])
        dead = give_up(store, "parent")
        assert other.claimable(NOW, HORIZON)
        store.save([rules.retry(dead, NOW)])
        held = claim_one(other)
        assert held.id == "parent"
        assert claim(store) is None
        assert claim(reopen()) is None
        other.save([rules.complete(held, NOW)])
        assert ids([claim(store), claim(other)]) == ["child", None]

    def test_done_frees_the_child_for_the_next_claim(self, store: Store, reopen: Reopen) -> None:
        """The one that saves it, also if another process claimed it; in its order."""
        other = reopen()
        add(store, "a")
        add_child(store, "b", ["a"])
        add_child(store, "c", after_any=["b"])
        add(store, "d", max_retries=1)
        job = claim_one(store)
        for each, next_one in ((store, "b"), (other, "c"), (other, "d")):
            job = claim_one(each, done=rules.complete(job, NOW))
            assert job.id == next_one
        add_child(store, "e", ["d"])
        add(store, "f")
        known = current(store, "d")
        # One that is given up frees nobody who needs it, nor is it claimed itself.
        assert ids([claim(other, done=rules.fail(known, NOW, "Exit code 1", 0))]) == ["f"]
        assert claim(store) is None
        assert claim(reopen()) is None

    def test_a_parent_that_is_removed_is_not_waited_for(self, store: Store, reopen: Reopen) -> None:
        """Whoever removes it ends its children in the same commit, if they must not run."""
        other = reopen()
        add(store, "a", "b", max_retries=1)
        add_child(store, "kept", ["a"])
        add_child(store, "ended", ["b"])
        add_child(store, "any", after_any=["a", "b"])
        dead = [give_up(store, "a"), give_up(store, "b")]
        assert ids([claim(other), claim(other)]) == ["any", None]
        dead = [current(store, "a"), current(store, "b")]
        ended = rules.cancel(current(store, "ended"), NOW, "b was purged")
        store.remove(dead, [ended])
        assert current(reopen(), "ended") == ended
        assert ids([claim(other), claim(other), claim(reopen())]) == ["kept", None, None]

    def test_remove_and_what_is_saved_with_it_are_one(self, store: Store) -> None:
        """If either changed meanwhile, neither is done."""
        jobs = add(store, "a", "b")
        cancelled = rules.cancel(jobs[1], NOW)
        store.save([cancelled])
        before = everything(store)
        with pytest.raises(ConflictError):
            store.remove(jobs[:1], [rules.cancel(jobs[1], NOW)])
        with pytest.raises(ConflictError):
            store.remove(jobs[1:], [rules.cancel(jobs[0], NOW)])
        with pytest.raises(ConflictError):
            store.remove([cancelled], [rules.retry(cancelled, NOW)])
        assert everything(store) == before

    def test_a_parent_that_changed_meanwhile_is_told_of_no_child(
        self, store: Store, reopen: Reopen
    ) -> None:
        """Then the child is not added either."""
        (parent,) = add(store, "parent")
        also = [rules.awaited(parent, NOW, 1)]
        child = new_job("child", after=("parent",))
        claim_one(reopen())
        for given_ids in ([], ["child"]):
            with pytest.raises(ConflictError):
                store.add([child], given_ids, also)
        assert store.get("child") is None
        store.add([child], [], [rules.awaited(current(store, "parent"), NOW, 1)])
        assert current(store, "parent").dependents == 1

    def test_who_ends_a_parent_must_know_of_its_children(
        self, store: Store, reopen: Reopen
    ) -> None:
        """A result that does not is refused, but its claim is not lost."""
        other = reopen()
        add(store, "parent")
        held = claim_one(store)
        add_child(other, "child", ["parent"])
        done = rules.complete(held, NOW)
        acts: List[Callable[[], object]] = [
            lambda: claim(store, done=done),
            lambda: store.save([done]),
        ]
        for act in acts:
            with pytest.raises(ConflictError) as caught:
                act()
            assert not isinstance(caught.value, ClaimLostError)
        assert store.current(held) != held
        assert claim(other) is None
        known = current(store, "parent")
        assert known.dependents == 1
        assert ids([claim(store, done=rules.complete(known, NOW)), claim(other)]) == ["child", None]

    def test_a_child_that_waits_for_its_time_too(self, store: Store, reopen: Reopen) -> None:
        """For both, whichever is over first; and it falls due once its parents let it."""
        other = reopen()
        add(store, "parent")
        add_child(store, "soon", ["parent"], run_at=NOW + 5)
        assert claim(other, queues=["none"]) is None
        held = claim_one(store)
        assert claim(other, NOW + 9) is None
        assert other.next_due() is None
        assert claim(store, done=rules.complete(held, NOW)) is None
        assert claim(other, NOW) is None
        assert other.next_due() == NOW + 5
        assert not reopen().claimable(NOW + 4.999, HORIZON)
        assert ids([claim(other, NOW + 5)]) == ["soon"]

    def test_a_failed_child_awaits_no_retry_while_its_parent_keeps_it(self, store: Store) -> None:
        """As when the parent was retried by hand after the child had begun."""
        add(store, "parent", max_retries=1)
        add_child(store, "child", after_any=["parent"])
        dead = give_up(store, "parent")
        run_and_fail(store, NOW + 1)
        assert store.awaits_retry()
        store.save([rules.retry(dead, NOW)])
        assert not store.awaits_retry()
        assert store.next_due() is None
        run_and_complete(store)
        assert ids([claim(store, NOW + 1)]) == ["child"]

    def test_a_child_with_a_priority_in_a_queue(self, store: Store, reopen: Reopen) -> None:
        """It blocks nobody while it waits, and comes first after."""
        other = reopen()
        add(store, "parent", "b", "c")
        add_child(store, "child", ["parent"], priority=9, queue="q")
        assert not other.claimable(NOW, HORIZON, ["q"])
        held = claim_one(store)
        assert ids([claim(other)]) == ["b"]
        store.save([rules.complete(held, NOW)])
        assert ids([claim(other), claim(other)]) == ["child", "c"]

    def test_an_edit_of_a_child_frees_nobody(self, store: Store, reopen: Reopen) -> None:
        """Nor is it forgotten where it went."""
        other = reopen()
        add(store, "parent")
        child = add_child(store, "child", ["parent"])
        assert other.claimable(NOW, HORIZON)
        store.save([rules.edit(child, NOW, priority=5, queue="q")])
        assert not other.claimable(NOW, HORIZON, ["q"])
        assert ids([claim(other), claim(other)]) == ["parent", None]
        done = rules.complete(current(store, "parent"), NOW)
        store.save([done])
        assert ids([claim(other, queues=["q"])]) == ["child"]

    def test_who_claims_in_order_passes_a_child_by(self, store: Store, reopen: Reopen) -> None:
        """It is found behind them once it may be claimed, by those who looked before and after."""
        other = reopen()
        add(store, "parent")
        add_child(store, "child", ["parent"])
        add(store, "b", "c", "d", "e", "f")
        held = claim_one(store, worker="w9")
        assert other.claimable(NOW, HORIZON)
        claimed = [claim_one(store)]
        for _ in range(2):
            claimed.append(claim_one(store, done=rules.complete(claimed[-1], NOW)))
        assert ids(claimed) == ["b", "c", "d"]
        third = reopen()
        store.save([rules.complete(held, NOW)])
        assert ids([claim(other), claim(third), claim(store), claim(other)]) == [
            "child",
            "e",
            "f",
            None,
        ]

    def test_a_rewrite_keeps_who_waits_for_whom(self, store: Store, reopen: Reopen) -> None:
        """Before, while and after; for those that were open, and for new ones."""
        other = reopen()
        add(store, "a", "b")
        add_child(store, "child", ["a"], ["b"])
        assert other.claimable(NOW, HORIZON)
        store.rewrite()
        run_and_complete(store)
        store.rewrite()
        for each in (store, other, reopen()):
            assert ids([claim(each)]) == ["b" if each is store else None]
        other.rewrite()
        store.save([rules.cancel(current(store, "b"), NOW)])
        store.save([rules.release(current(store, "b"), NOW)])
        store.rewrite()
        assert current(store, "b").state == JobState.CANCELLED
        assert ids([claim(reopen()), claim(other)]) == ["child", None]

    def test_children_finds_those_that_wait(self, store: Store, reopen: Reopen) -> None:
        """For any of the jobs, oldest first; not those that run, ended or are gone."""
        parents = add(store, "a", "b", "c")
        add_child(store, "first", ["a"])
        add_child(store, "both", ["b", "a"])
        add_child(store, "any", after_any=["b"])
        add_child(store, "gone", ["a"])
        add_child(store, "over", ["a", "b"])
        add_child(store, "grandchild", ["both"])
        add(store, "spoof", command='"parents":[1,2]', labels=('"parents":[1]',))
        store.remove([current(store, "gone")])
        store.save([rules.cancel(current(store, "over"), NOW)])
        for each in (store, reopen()):
            now = [current(each, job.id) for job in parents]
            assert ids(each.children(now[:1])) == ["first", "both"]
            assert ids(each.children(now[1:2])) == ["both", "any"]
            assert ids(each.children(now)) == ["first", "both", "any"]
            assert each.children(now[2:]) == each.children([]) == []
            assert ids(each.children([current(each, "both")])) == ["grandchild"]
            each.rewrite()
        run_and_complete(store)
        assert ids(store.children([current(store, "a")])) == ["first", "both"]

    def test_more_parents_than_one_looks_at_singly(self, store: Store, reopen: Reopen) -> None:
        """A batch of many, and a child of all."""
        names = [f"job{number}" for number in range(40)]
        store.add([new_job(name, dependents=1) for name in names])
        parents = [current(store, name) for name in names]
        also = [rules.awaited(job, NOW, 1) for job in parents]
        store.add([new_job("child", after=tuple(names))], ["child"], also)
        assert ids(store.children([current(store, name) for name in names])) == ["child"]
        held: List[Job] = []
        for _ in names:
            held.append(claim_one(reopen() if not held else store))
        assert claim(store) is None
        store.save([rules.complete(job, NOW) for job in held[1:]])
        assert claim(store) is None
        store.save([rules.complete(held[0], NOW)])
        assert ids([claim(store)]) == ["child"]
