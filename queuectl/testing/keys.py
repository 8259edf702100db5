"""The suite's part about unique keys: of the jobs with one that are not over there is one."""

from __future__ import annotations

from typing import Callable

import pytest

from queuectl import job as rules
from queuectl.errors import ConflictError, KeyTakenError
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

Reopen = Callable[[], Store]


class KeyContract(Fixtures):
    """What a store promises of unique keys."""

    def test_a_key_has_one_holder(self, store: Store, reopen: Reopen) -> None:
        """While that waits, runs or is to be retried; nothing of another batch is added."""
        other = reopen()
        add(store, "a", unique="k")
        for each in (store, other, reopen()):
            before = everything(each)
            for batch in ([new_job("b", unique="k")], [new_job("c"), new_job("d", unique="k")]):
                with pytest.raises(KeyTakenError) as caught:
                    each.add(batch, ["b"] if len(batch) == 1 else [])
                assert (caught.value.key, caught.value.holder) == ("k", "a")
            assert everything(each) == before
            if each is store:
                run_and_fail(store, NOW)
            elif each is other:
                claim_one(other)
        add(store, "e", unique="K")
        assert ids([store.holder("k"), store.holder("K"), store.holder("")]) == ["a", "e", None]

    def test_two_of_one_batch_cannot_have_it(self, store: Store) -> None:
        """Unless one of them is over, as when a queue is moved here."""
        with pytest.raises(KeyTakenError) as caught:
            add(store, "a", "b", unique="k")
        assert caught.value.holder == "a"
        assert everything(store) == []
        over = rules.cancel(new_job("b", unique="k"), NOW)
        store.add([over, new_job("a", unique="k"), new_job("c", unique="other")])
        assert ids([store.holder("k")]) == ["a"]

    @pytest.mark.parametrize("end", ["complete", "cancel", "die", "remove"])
    def test_who_is_over_frees_its_key(self, store: Store, reopen: Reopen, end: str) -> None:
        """For those that were open before too, and also after a rewrite."""
        other = reopen()
        (job,) = add(store, "a", unique="k", max_retries=1)
        assert ids([other.holder("k")]) == ["a"]
        if end == "complete":
            run_and_complete(store)
        elif end == "cancel":
            store.save([rules.cancel(job, NOW)])
        elif end == "die":
            run_and_fail(store, NOW)
        else:
            store.remove([job])
        for each in (store, other, reopen()):
            assert each.holder("k") is None
        other.rewrite()
        assert other.holder("k") is None
        (new,) = add(other, "b", unique="k")
        for each in (store, other, reopen()):
            assert each.holder("k") == new
        with pytest.raises(KeyTakenError) as caught:
            store.add([new_job("c", unique="k")])
        assert caught.value.holder == "b"

    def test_one_job_takes_anothers_place_in_one_commit(self, store: Store, reopen: Reopen) -> None:
        """Unless that changed meanwhile."""
        (old,) = add(store, "a", unique="k")
        new = new_job("b", unique="k")
        replaced = rules.cancel(old, NOW, "replaced")
        claim_one(reopen())
        for given_ids in ([], ["b"]):
            with pytest.raises(ConflictError):
                store.add([new], given_ids, [replaced])
        store.save([rules.release(current(store, "a"), NOW)])
        replaced = rules.cancel(current(store, "a"), NOW, "replaced")
        (added,) = reopen().add([new], [], [replaced])
        assert everything(store) == [added, replaced]
        assert store.holder("k") == added
        assert ids([claim_one(store)]) == ["b"]

    def test_what_is_saved_beside_a_new_job_may_keep_its_key(self, store: Store) -> None:
        """A parent that has it is not over."""
        (parent,) = add(store, "a", unique="k")
        child = new_job("b", unique="k", after=("a",))
        with pytest.raises(KeyTakenError) as caught:
            store.add([child], [], [rules.awaited(parent, NOW, 1)])
        assert caught.value.holder == "a"
        assert everything(store) == [parent]

    def test_a_retry_cannot_have_a_key_that_was_taken(self, store: Store, reopen: Reopen) -> None:
        """Whether it was given up or cancelled; none of the others is retried either."""
        add(store, "dead", unique="k", max_retries=1)
        dead = run_and_fail(store, NOW)
        (waiting,) = add(store, "other", unique="o")
        cancelled = rules.cancel(waiting, NOW)
        store.save([cancelled])
        (holder,) = add(store, "holder", unique="k")
        before = everything(store)
        for each in (store, reopen()):
            with pytest.raises(KeyTakenError) as caught:
                each.save([rules.retry(cancelled, NOW), rules.retry(dead, NOW)])
            assert (caught.value.key, caught.value.holder) == ("k", "holder")
            assert everything(each) == before
        store.save([rules.retry(cancelled, NOW)])
        store.save([rules.cancel(holder, NOW), rules.retry(dead, NOW)])
        assert ids([store.holder("k"), store.holder("o")]) == ["dead", "other"]

    def test_a_retry_cannot_have_what_is_saved_beside_it(self, store: Store) -> None:
        """Nor can two that had it one after the other."""
        dead = []
        for job_id in ("a", "b"):
            add(store, job_id, unique="k", max_retries=1)
            dead.append(run_and_fail(store, NOW))
        with pytest.raises(KeyTakenError) as caught:
            store.save([rules.retry(job, NOW) for job in dead])
        assert caught.value.holder == "a"
        (held,) = add(store, "c", unique="k")
        with pytest.raises(KeyTakenError) as caught:
            store.save([rules.retry(dead[0], NOW), rules.edit(held, NOW, priority=3)])
        assert caught.value.holder == "c"

    def test_a_holder_keeps_its_key_whatever_happens_to_it(
        self, store: Store, reopen: Reopen
    ) -> None:
        """It is in nobody's way that could take it from itself."""
        (job,) = add(store, "a", unique="k")
        store.save([rules.edit(job, NOW, priority=4)])
        failed = run_and_fail(store, NOW)
        store.save([rules.retry(failed, NOW)])
        store.save([rules.release(claim_one(store), NOW)])
        assert store.holder("k") == reopen().holder("k") == current(store, "a")
        assert store.claimable(NOW, HORIZON)

    def test_nobody_has_a_key_by_its_text(self, store: Store, reopen: Reopen) -> None:
        """Whatever a command, a label or a variable holds, and whatever the key is."""
        for number, key in enumerate(('k"', '"unique":"k"', "k", "\\", "ä 🚀", "a,b]}")):
            assert store.holder(key) is None
            text = f'"unique":"{key}"'
            add(
                store,
                f"spoof{number}",
                command=f"{text} {key}",
                labels=("unique", f'"unique":"{key}"'.replace(" ", "").replace(",", "")),
                env=(f"A={text}", f"unique={key}"),
            )
            assert store.holder(key) is None
            (job,) = add(store, f"job{number}", unique=key)
            for each in (store, reopen()):
                assert each.holder(key) == job

    def test_the_first_of_two_processes_has_it(self, store: Store, reopen: Reopen) -> None:
        """Also if both looked before, and both have claimed."""
        other = reopen()
        add(store, "x", "y")
        claim_one(store)
        claim_one(other)
        assert store.holder("k") is other.holder("k") is None
        add(other, "a", unique="k")
        with pytest.raises(KeyTakenError):
            store.add([new_job("b", unique="k")])
        other.save([rules.cancel(current(other, "a"), NOW)])
        add(store, "b", unique="k")
        with pytest.raises(KeyTakenError):
            other.save([rules.retry(current(other, "a"), NOW)])
