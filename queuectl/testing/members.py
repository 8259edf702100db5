"""The suite's part about those who work on the store, the dead among them, and the settings."""

from __future__ import annotations

import os
import select
from typing import Any, Callable, List, Optional, Tuple

import pytest

from queuectl import clock
from queuectl import job as rules
from queuectl.store.base import Lost, Member, Store
from queuectl.testing.common import NOW, Fixtures, add, claim_one

Reopen = Callable[[], Store]
# Longer than any of this takes, for the case that it does not happen.
PATIENCE = 10.0


def member(name: str, role: str = "worker", started: float = NOW, **values: Any) -> Member:
    """Make a member whose id is its name."""
    plain = Member(name, role, name, os.getpid(), "host", clock.to_iso(started), "s1")
    return plain._replace(**values)


def write(path: str, text: str) -> None:
    """Write a run's output."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def is_readable(fd: int, timeout: float) -> bool:
    """Wait until something can be read."""
    return bool(select.select([fd], [], [], timeout)[0])


def names(lost: List[Lost]) -> List[Tuple[str, Optional[str]]]:
    """Who died, and with which job."""
    return sorted((each.member.id, each.job.id if each.job else None) for each in lost)


class MemberContract(Fixtures):
    """What a store promises of its members, and of its settings."""

    def test_members_are_those_who_joined(self, store: Store, reopen: Reopen) -> None:
        """By role, oldest first, until they leave."""
        everybody = [
            member("w2", started=NOW + 1),
            member("w3", started=NOW),
            member("s1", "supervisor"),
        ]
        assert store.members("worker") == []
        for each in everybody:
            store.enroll(each)
        for look in (store, reopen()):
            assert look.members("worker") == [everybody[1], everybody[0]]
            assert look.members("supervisor") == [everybody[2]]
            assert look.lost(thorough=True) == []
        for each in everybody:
            store.leave(each.id)
        for look in (store, reopen()):
            assert look.members("worker") == look.members("supervisor") == []
            assert look.lost(thorough=True) == []

    def test_what_a_member_notes_is_read_by_others(self, store: Store, reopen: Reopen) -> None:
        """As often as it changes, shorter after longer too."""
        worker = member("w1")
        store.enroll(worker)
        busy = worker._replace(job="j" * 64, run=12, group=123456, born="987654321", boot="b" * 36)
        for noted in (busy, worker, busy._replace(run=13)):
            store.note(noted)
            assert reopen().members("worker") == [noted]

    def test_nodes_are_the_machines_of_the_living(self, store: Store, reopen: Reopen) -> None:
        """Each with its workers, and what these run."""
        assert store.nodes() == []
        dead = reopen()
        dead.enroll(member("w4", host="c"))
        dead.close()
        for each in (
            member("s1", "supervisor", host="b", version="2"),
            member("w1", host="b", version="1"),
            member("w2", host="b", version="2", job="a", run=1),
            member("w3", host="a", version="1"),
        ):
            store.enroll(each)
        for look in (store, reopen()):
            nodes = look.nodes()
            assert [node[:3] for node in nodes] == [("a", 1, 0), ("b", 2, 1)]
            assert [node.version for node in nodes] == ["1", "1, 2"]
            for node in nodes:
                assert abs(clock.from_iso(node.heard_at) - store.now()) < 60

    def test_a_dead_worker_is_found_with_its_job(self, store: Store, reopen: Reopen) -> None:
        """By one process only, until that buries it; the living are left alone."""
        alive, dead = reopen(), reopen()
        alive.enroll(member("w1"))
        dead.enroll(member("w2"))
        dead.enroll(member("w3"))
        jobs = add(store, "a", "b", "c")
        claim_one(alive, worker="w1")
        done = rules.complete(claim_one(dead, worker="w2"), NOW)
        held = claim_one(dead, worker="w2", done=done)
        dead.note(member("w2", job=held.id, run=held.runs))
        assert store.lost() == []
        dead.close()
        lost = store.lost()
        assert names(lost) == [("w2", "c"), ("w3", None)]
        found = next(each for each in lost if each.member.id == "w2")
        assert (found.member.job, found.member.run, found.job) == ("c", 1, held)
        assert held.seq == jobs[2].seq
        assert store.lost() == reopen().lost() == reopen().lost(thorough=True) == []
        assert [each.id for each in store.members("worker")] == ["w1"]
        store.save([rules.rescue(held, NOW, 2)])
        for each in lost:
            store.bury(each)
        assert store.lost(thorough=True) == reopen().lost(thorough=True) == []
        assert [each.id for each in reopen().members("worker")] == ["w1"]

    def test_a_dead_worker_has_only_what_it_still_held(self, store: Store, reopen: Reopen) -> None:
        """Not the job that it gave back or finished last, nor one that another has by now."""
        ends = (rules.complete, rules.release)
        for number, end in enumerate(ends):
            dead = reopen()
            dead.enroll(member(f"w{number}"))
            add(store, f"job{number}")
            dead.save([end(claim_one(dead, worker=f"w{number}"), NOW)])
            dead.close()
        assert names(store.lost()) == [("w0", None), ("w1", None)]
        dead, alive = reopen(), reopen()
        dead.enroll(member("w2"))
        alive.enroll(member("w3"))
        held = claim_one(dead, worker="w2")
        dead.close()
        store.save([rules.rescue(held, NOW, 0)])
        assert claim_one(alive, worker="w3").id == held.id
        assert names(store.lost()) == [("w2", None)]

    def test_the_dead_are_found_again_when_their_rescuer_dies(
        self, store: Store, reopen: Reopen
    ) -> None:
        """Nobody is forgotten."""
        dead, rescuer = reopen(), reopen()
        dead.enroll(member("w1"))
        add(store, "a")
        claim_one(dead)
        dead.close()
        assert names(rescuer.lost()) == [("w1", "a")]
        assert store.lost() == []
        rescuer.close()
        assert names(store.lost()) == [("w1", "a")]

    def test_a_job_of_a_worker_without_a_trace_is_found_by_a_thorough_look(
        self, store: Store
    ) -> None:
        """As after a loss of power; a worker that is enrolled has a trace."""
        store.enroll(member("w1"))
        add(store, "a", "b")
        claim_one(store, worker="w1")
        claimed = claim_one(store, worker="w2")
        assert store.lost() == []
        (lost,) = store.lost(thorough=True)
        assert (lost.member.id, lost.member.role, lost.job) == ("w2", "worker", claimed)
        assert (lost.member.job, lost.member.group) == (None, None)
        store.save([rules.rescue(claimed, NOW, 0)])
        store.bury(lost)
        assert store.lost(thorough=True) == []

    @pytest.mark.parametrize("output", ["said", "", None])
    def test_burying_keeps_the_output_of_the_last_run(
        self, store: Store, reopen: Reopen, output: Optional[str]
    ) -> None:
        """Where there is any."""
        dead = reopen()
        dead.enroll(member("w1"))
        add(store, "a")
        held = claim_one(dead)
        dead.note(member("w1", job=held.id, run=held.runs))
        if output is not None:
            write(dead.spool("w1"), output)
        dead.close()
        (lost,) = store.lost()
        store.bury(lost)
        kept = store.kept_output("a", 1)
        assert os.path.exists(kept) == bool(output)
        assert not os.path.exists(store.spool("w1"))
        if output:
            with open(kept, encoding="utf-8") as file:
                assert file.read() == output

    def test_burying_does_not_overwrite_output_that_was_kept(
        self, store: Store, reopen: Reopen
    ) -> None:
        """The worker may have died after it moved the file, and before it noted that."""
        dead = reopen()
        dead.enroll(member("w1", job="a", run=1))
        kept = store.kept_output("a", 1)
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        write(kept, "of the run")
        write(dead.spool("w1"), "of another")
        dead.close()
        (lost,) = store.lost()
        store.bury(lost)
        with open(kept, encoding="utf-8") as file:
            assert file.read() == "of the run"

    def test_a_supervisor_is_asked_to_stop(self, store: Store, reopen: Reopen) -> None:
        """It wakes up and knows; force stays, whoever asks again."""
        store.enroll(member("s1", "supervisor"))
        other = reopen()
        assert not is_readable(store.listen(), 0)
        assert store.stop_asked() is None
        for force, known in ((False, False), (True, True), (False, True)):
            assert other.ask_to_stop("s1", force)
            assert is_readable(store.listen(), PATIENCE)
            assert store.hear() == 0
            assert store.stop_asked() is known
            assert not is_readable(store.listen(), 0)
        assert other.stop_asked() is None

    def test_only_a_living_supervisor_can_be_asked_to_stop(
        self, store: Store, reopen: Reopen
    ) -> None:
        """Whoever asks is told."""
        dead = reopen()
        dead.enroll(member("s1", "supervisor"))
        dead.close()
        assert not store.ask_to_stop("s1", force=False)
        assert not store.ask_to_stop("nobody", force=True)

    def test_a_supervisor_wakes_for_new_jobs(self, store: Store, reopen: Reopen) -> None:
        """Those that are added, and those that come back; and learns how many."""
        store.enroll(member("s1", "supervisor"))
        other = reopen()

        def woken_by(number: int) -> None:
            heard = 0
            while heard < number:
                assert is_readable(store.listen(), PATIENCE)
                heard += store.hear()
            assert heard == number
            assert not is_readable(store.listen(), 0)
            assert store.hear() == 0

        add(other, "a", "b", "c")
        woken_by(3)
        other.save([rules.release(claim_one(other), NOW)])
        woken_by(1)
        failed = rules.fail(claim_one(other), NOW, "Exit code 1", 2)
        claim_one(other, done=failed)
        woken_by(1)

    def test_a_dead_supervisor_delays_no_enqueue(self, store: Store, reopen: Reopen) -> None:
        """Those that live are told all the same."""
        dead = reopen()
        dead.enroll(member("s1", "supervisor"))
        dead.close()
        store.enroll(member("s2", "supervisor"))
        add(store, "a")
        assert is_readable(store.listen(), PATIENCE)
        assert store.hear() == 1

    def test_settings_are_kept(self, store: Store, reopen: Reopen) -> None:
        """Each until it is changed or taken out, without touching the others."""
        other = reopen()
        assert store.settings() == other.settings() == {}
        store.configure({"max_retries": "5", "shell": "/bin/ä"})
        assert store.settings() == other.settings() == {"max_retries": "5", "shell": "/bin/ä"}
        other.configure({"max_retries": "6"})
        store.configure({"kill_grace": "1s", "shell": None, "unknown": None})
        for each in (store, other, reopen()):
            assert each.settings() == {"max_retries": "6", "kill_grace": "1s"}
        assert store.settings() is store.settings()

    def test_settings_that_were_read_do_not_change(self, store: Store) -> None:
        """Whoever compares what it read with what it reads now sees the change."""
        store.configure({"max_retries": "5"})
        before = store.settings()
        store.configure({"max_retries": "6"})
        assert before == {"max_retries": "5"}
        assert store.settings() == {"max_retries": "6"}
