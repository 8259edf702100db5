"""The suite's part about jobs that are kept: added, found, counted, changed and removed."""

from __future__ import annotations

import os
from typing import Callable, Dict, List, Tuple

import pytest

from queuectl import job as rules
from queuectl.errors import ClaimLostError, ConflictError, DuplicateIdError
from queuectl.job import Job, JobState
from queuectl.store.base import Counts, Store
from queuectl.testing.common import (
    NOW,
    Fixtures,
    add,
    claim_one,
    everything,
    ids,
    new_job,
    run_and_complete,
    run_and_fail,
)

Reopen = Callable[[], Store]

AWKWARD = [
    "echo 'it''s' \"quoted\" \\ back",
    "printf 'a\nb\tc'",
    "echo grüße 漢字 🚀",
    "echo \udcff\udc80 bytes that are not UTF-8",
    '"},{"id":"b","seq":2,"state":"completed","run_at":null}\n{"id":"b","seq":3,"state":"dead"',
    '{"commit":7,"sum":"00000000"}',
    'echo \'"worker":"w1"\'',
    "x" * 131_071,
]


def store_each_state(store: Store) -> List[Job]:
    """Add a job of each state, and one that is delayed; returns them oldest first."""
    add(store, "complete", "fail", "die", "cancel", "run", "wait")
    add(store, "later", run_at=NOW + 60)
    jobs = [run_and_complete(store)]
    jobs.append(run_and_fail(store, NOW + 2))
    died = claim_one(store)
    for attempt in (1, 2):
        failed = rules.fail(died, NOW, "Exit code 1", attempt)
        store.save([failed])
        died = rules.claim(failed, "w1", NOW + 1)
        store.save([died])
    jobs.append(rules.fail(died, NOW + 2, "Exit code 1", 1))
    waiting = store.get("cancel")
    assert waiting is not None
    jobs.append(rules.cancel(waiting, NOW))
    store.save(jobs[-2:])
    jobs.append(claim_one(store))
    return jobs + [job for job in reversed(everything(store)) if job.id in ("wait", "later")]


class JobContract(Fixtures):
    """What a store promises of the jobs it keeps."""

    def test_add_returns_the_jobs_in_order_with_dense_numbers(self, store: Store) -> None:
        """The first job has number 1, and each the next."""
        first = add(store, "b", "a")
        second = store.add([new_job("c")])
        assert ids(first + second) == ["b", "a", "c"]
        assert [job.seq for job in first + second] == [1, 2, 3]

    @pytest.mark.parametrize("command", AWKWARD, ids=range(len(AWKWARD)))
    def test_a_job_is_kept_as_it_is(self, store: Store, reopen: Reopen, command: str) -> None:
        """Every field comes back, whatever the command holds; also to another process."""
        job = new_job("a", command, run_at=NOW + 9, timeout=1.5, cwd="/tmp/ä \udcfe", max_retries=0)
        added = store.add([job, new_job("b")])
        assert reopen().get("a") == store.get("a") == added[0]
        assert added[0].to_dict() == job.to_dict()
        assert reopen().get("b") == added[1]
        assert everything(reopen()) == added[::-1]

    def test_adding_nothing_changes_nothing(self, store: Store) -> None:
        """As it may come to a program that adds what it finds in a file."""
        assert store.add([]) == []
        store.save([])
        store.remove([])
        assert store.counts() == Counts()

    @pytest.mark.parametrize("taken", ["pending", "completed", "both new"])
    def test_add_refuses_a_doubled_id_and_adds_none(self, store: Store, taken: str) -> None:
        """Whether the job that has it waits, is finished, or is of the same batch."""
        batch = ["new", "a"] if taken != "both new" else ["new", "b", "new"]
        add(store, "a")
        if taken == "completed":
            run_and_complete(store)
            store.rewrite()
        before = everything(store)
        with pytest.raises(DuplicateIdError) as caught:
            add(store, *batch)
        assert caught.value.job_id == batch[-1]
        assert everything(store) == before
        assert store.counts().total == 1
        assert [job.seq for job in add(store, "c")] == [2]

    def test_many_jobs_are_changed_at_once(self, store: Store) -> None:
        """As by a file of jobs, or `dlq retry --all`; one that is in the way stops them all."""
        names = [f"job{number}" for number in range(50)]
        jobs = add(store, *names)
        with pytest.raises(DuplicateIdError) as caught:
            add(store, *(f"new{number}" for number in range(50)), "job7")
        assert caught.value.job_id == "job7"
        store.save([rules.cancel(job, NOW) for job in jobs])
        cancelled = everything(store)[::-1]
        store.remove(cancelled[10:12])
        with pytest.raises(ConflictError):
            store.save([rules.retry(job, NOW) for job in cancelled])
        rest = cancelled[:10] + cancelled[12:]
        store.save([rules.retry(job, NOW) for job in rest])
        assert store.counts() == Counts(pending=48)
        assert ids(everything(store)[::-1]) == ids(rest)
        assert len(add(store, *names[10:12], *(f"new{number}" for number in range(50)))) == 52

    def test_an_id_is_free_again_once_its_job_is_removed(self, store: Store) -> None:
        """The new job has a number of its own."""
        store.remove(add(store, "a"))
        assert [job.seq for job in add(store, "a")] == [2]
        assert everything(store) == [store.get("a")]

    def test_get_takes_whole_ids_only(self, store: Store) -> None:
        """A prefix, an unknown id and an empty one are no job's."""
        add(store, "abcd")
        assert [store.get(job_id) for job_id in ("abc", "abcde", "x", "", "ab.d")] == [None] * 5

    def test_find_returns_ids_by_prefix(self, store: Store) -> None:
        """What is removed is not found; a dot is a dot; at most as many as were asked for."""
        store.remove([add(store, "job.1", "job.2", "job-3", "other")[1]])
        assert sorted(store.find("job", 9)) == ["job-3", "job.1"]
        assert store.find("job.", 9) == ["job.1"]
        assert store.find("job.1", 9) == ["job.1"]
        assert store.find("ob", 9) == []
        assert store.find("\udcff", 9) == []
        assert len(store.find("", 2)) == 2
        assert len(store.find("", 9)) == 3

    def test_find_names_each_job_once(self, store: Store) -> None:
        """However often it changed, and wherever a rewrite put it."""
        add(store, "job1", "job2")
        run_and_fail(store, NOW + 1)
        run_and_complete(store)
        store.rewrite()
        assert sorted(store.find("job", 9)) == ["job1", "job2"]

    def test_select_yields_newest_first(self, store: Store) -> None:
        """Of the states that were asked for, at most as many as were asked for."""
        jobs = store_each_state(store)
        assert [job.state for job in jobs] == [
            "completed",
            "failed",
            "dead",
            "cancelled",
            "processing",
            "pending",
            "pending",
        ]
        for one in JobState.ALL:
            found = [job for job in jobs[::-1] if job.state == one]
            assert list(store.select([one])) == found
        newest_first = jobs[::-1]
        assert everything(store) == newest_first
        assert list(store.select(JobState.ALL, 2)) == newest_first[:2]
        assert list(store.select(["dead", "failed"], 1)) == [jobs[2]]
        assert list(store.select(JobState.ALL, 0)) == list(store.select([])) == []
        assert len(list(store.select(JobState.ALL, 99))) == 7
        for place in (jobs[3].seq, jobs[0].seq, jobs[-1].seq + 1):
            older = [job for job in newest_first if job.seq < place]
            assert list(store.select(JobState.ALL, before=place)) == older
            assert list(store.select(JobState.ALL, 1, place)) == older[:1]

    def test_select_yields_one_moment(self, store: Store, reopen: Reopen) -> None:
        """What changes while the jobs are read does not show."""
        before = add(store, "a", "b", "c")
        reading = store.select(JobState.ALL)
        first = next(reading)
        other = reopen()
        claim_one(other)
        add(other, "d")
        other.rewrite()
        assert [first, *reading] == before[::-1]

    def test_dump_gives_all_of_one_moment(self, store: Store, reopen: Reopen) -> None:
        """Oldest first, wherever a rewrite put them, without what was removed."""
        jobs = store_each_state(store)
        store.rewrite()
        store.remove(add(store, "gone"))
        count, reading = store.dump()
        first = next(reading)
        add(reopen(), "new")
        assert [first, *reading] == jobs
        assert count == len(jobs)

    def test_jobs_of_any_state_can_be_added(self, store: Store, reopen: Reopen) -> None:
        """They are kept as they are, counted by their state, and looked after like others."""
        jobs = store_each_state(store)
        moved = [job for job in jobs if job.state != JobState.PROCESSING]
        store.remove(moved)
        added = reopen().add(moved, [job.id for job in moved])
        assert [job.to_dict() for job in added] == [job.to_dict() for job in moved]
        assert everything(store)[::-1][1:] == added
        assert store.counts() == Counts(
            pending=2, processing=1, completed=1, failed=1, dead=1, cancelled=1, delayed=1
        )
        assert claim_one(store).id == "wait"

    def test_counts_tell_each_state(self, store: Store, reopen: Reopen) -> None:
        """Delayed jobs are a part of the pending ones."""
        assert store.counts() == Counts()
        store_each_state(store)
        expected = Counts(
            pending=2, processing=1, completed=1, failed=1, dead=1, cancelled=1, delayed=1
        )
        assert store.counts() == reopen().counts() == expected
        assert expected.total == 7
        store.rewrite()
        assert store.counts() == reopen().counts() == expected
        store.remove(everything(store))
        assert store.counts() == Counts()

    def test_save_keeps_every_change(self, store: Store, reopen: Reopen) -> None:
        """Also to another process, and also if the disk need not hold it yet."""
        add(store, "a")
        failed = rules.fail(claim_one(store), NOW, "Exit code 3: \udcff", 2, 3)
        store.save([failed], durable=False)
        assert store.get("a") == reopen().get("a") == failed

    def test_save_refuses_what_does_not_follow_from_what_it_holds(self, store: Store) -> None:
        """Nothing is saved if one of the jobs changed meanwhile, is unknown, or is there twice."""
        jobs = add(store, "a", "b")
        cancelled = [rules.cancel(job, NOW) for job in jobs]
        store.save(cancelled[1:])
        before = everything(store)
        unknown = rules.cancel(new_job("c"), NOW)
        for batch in (cancelled, [cancelled[0], unknown], [cancelled[0], cancelled[0]], jobs[:1]):
            with pytest.raises(ConflictError):
                store.save(batch)
            assert everything(store) == before
        store.save(cancelled[:1])
        assert store.counts() == Counts(cancelled=2)

    def test_only_one_of_two_successors_is_saved(self, store: Store, reopen: Reopen) -> None:
        """When two processes change the same job, the second reads it again and decides again."""
        add(store, "a")
        first, second = store.get("a"), reopen()
        same = second.get("a")
        assert first is not None
        assert same is not None
        store.save([rules.cancel(first, NOW)])
        with pytest.raises(ConflictError):
            second.save([rules.cancel(same, NOW)])
        current = second.get("a")
        assert current is not None
        second.save([rules.retry(current, NOW)])
        assert store.counts() == Counts(pending=1)

    def test_a_late_result_changes_nothing(self, store: Store, reopen: Reopen) -> None:
        """Once a job was given back, claimed by another or finished, it is refused."""
        add(store, "a")
        old = claim_one(store)
        other = reopen()
        holder = other.get("a")
        assert holder is not None
        other.save([rules.rescue(holder, NOW, 0)])
        late = [rules.complete(old, NOW), rules.fail(old, NOW, "late", 0), rules.release(old, NOW)]

        def refuses_all() -> None:
            before = everything(other)
            for job in late:
                with pytest.raises(ClaimLostError):
                    store.save([job])
            assert everything(other) == everything(store) == before

        refuses_all()
        new = claim_one(other, worker="w2")
        assert (new.runs, new.worker) == (2, "w2")
        refuses_all()
        other.save([rules.complete(new, NOW)])
        refuses_all()
        store.rewrite()
        refuses_all()

    def test_a_late_result_does_not_touch_another_job_of_that_id(self, store: Store) -> None:
        """An id that was removed may belong to a new job, with as many changes behind it."""
        add(store, "a")
        old = claim_one(store)
        store.remove([old])
        with pytest.raises(ClaimLostError):
            store.save([rules.complete(old, NOW)])
        add(store, "a")
        new = claim_one(store)
        assert (old.rev, old.runs) == (new.rev, new.runs)
        with pytest.raises(ClaimLostError):
            store.save([rules.complete(old, NOW)])
        with pytest.raises(ConflictError):
            store.remove([old])
        assert store.get("a") == new

    def test_a_cancel_that_came_first_is_not_overwritten(self, store: Store) -> None:
        """A result that does not know of it is refused, but the claim is not lost."""
        add(store, "a")
        running = claim_one(store)
        store.save([rules.cancel(running, NOW)])
        with pytest.raises(ConflictError) as caught:
            store.save([rules.complete(running, NOW)])
        assert not isinstance(caught.value, ClaimLostError)
        current = store.get("a")
        assert current is not None
        store.save([rules.fail(current, NOW, "ended", 1)])
        assert store.counts() == Counts(cancelled=1)

    def test_remove_takes_jobs_out(self, store: Store, reopen: Reopen) -> None:
        """They are neither found nor listed nor claimed, and stay away after a rewrite."""
        jobs = add(store, "a", "b", "c", "d")
        completed = run_and_complete(store)
        store.remove([completed, *jobs[1:3]])
        for each in (store, reopen()):
            assert everything(each) == jobs[3:]
            assert [each.get(job_id) for job_id in "abc"] == [None] * 3
            assert each.find("", 9) == ["d"]
            assert each.counts() == Counts(pending=1)
        store.rewrite()
        assert ids([claim_one(reopen())]) == ["d"]

    def test_a_finished_job_stays_removed(self, store: Store, reopen: Reopen) -> None:
        """Wherever rewrites have put it meanwhile."""
        add(store, "a", "b", "c")
        finished = [run_and_complete(store) for _ in range(3)]
        store.rewrite()
        store.remove(finished[1:2])
        for _ in range(2):
            for each in (store, reopen()):
                assert everything(each) == [finished[2], finished[0]]
                assert each.get("b") is None
                assert each.counts() == Counts(completed=2)
            store.rewrite()
        store.remove([finished[0], finished[2]])
        for _ in range(2):
            store.rewrite()
            assert everything(reopen()) == everything(store) == []
        assert [job.seq for job in add(store, "b")] == [4]

    def test_remove_refuses_jobs_that_changed(self, store: Store) -> None:
        """Then none is removed."""
        jobs = add(store, "a", "b")
        store.save([rules.cancel(jobs[1], NOW)])
        before = everything(store)
        for batch in (jobs, [jobs[0], jobs[0]], [jobs[0], new_job("c")]):
            with pytest.raises(ConflictError):
                store.remove(batch)
            assert everything(store) == before

    def test_remove_takes_output_with_it(self, store: Store) -> None:
        """That of every run of the job, and of no other."""
        add(store, "a", "a.1")
        run_and_fail(store, NOW)
        job = run_and_complete(store)
        paths = [store.kept_output(job.id, run) for run in (1, 2)]
        other = store.kept_output("a.1", 1)
        for path in [*paths, other]:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write("output")
        store.remove([job])
        assert [os.path.exists(path) for path in [*paths, other]] == [False, False, True]

    def test_the_oldest_output_goes_first(self, store: Store) -> None:
        """Until the rest fits; what is spared stays, however old, and its size counts."""
        kept = [("b", 1), ("a.1", 2), ("a", 1), ("b", 2), ("a", 2), ("c", 7), ("a.1", 3)]
        paths = {store.kept_output(*output): output for output in kept}
        for age, path in enumerate(paths):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.truncate(1000)
            os.utime(path, (NOW + age, NOW + age))

        def left() -> List[Tuple[str, int]]:
            return [output for path, output in paths.items() if os.path.exists(path)]

        def never() -> Dict[str, int]:
            raise AssertionError("asked for nothing")

        store.trim_output(7000, never)
        assert left() == kept
        store.trim_output(6999, lambda: {"b": 2, "a": 1})
        assert left() == [("a.1", 2), ("a", 1), ("b", 2), ("a", 2), ("c", 7), ("a.1", 3)]
        store.trim_output(4000, lambda: {"b": 2, "a": 1})
        assert left() == [("a", 1), ("b", 2), ("a", 2), ("a.1", 3)]
        store.trim_output(0, lambda: {"a": 2, "b": 1})
        assert left() == [("b", 2), ("a", 2)]

    def test_a_store_without_output_has_none_to_remove(self, store: Store) -> None:
        """As most have at first."""
        add(store, "a")
        store.trim_output(0, lambda: {"a": 0})
        assert len(everything(store)) == 1
