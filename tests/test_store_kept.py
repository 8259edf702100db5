"""What a repair keeps of a damaged commit, and what of that may be run."""

from __future__ import annotations

import contextlib
import os

import pytest

from queuectl import job as rules
from queuectl.soundness import to_job
from queuectl.store.folder import StoreFolder
from queuectl.store.lock import StoreLock
from queuectl.store.rebuild import HELD
from queuectl.store.repair import repair
from queuectl.testing.common import HORIZON, NOW, add, claim_one, everything, new_job
from test_store_doctor import clear
from test_store_tools import Disk, shown


def spoil(disk: Disk, old: bytes, new: bytes) -> None:
    """Change bytes of the job file, where they come last."""
    before, found, behind = disk.jobs.read_bytes().rpartition(old)
    assert found
    disk.jobs.write_bytes(before + new + behind)


def test_a_job_whose_command_may_be_another_is_not_run(disk: Disk) -> None:
    """Of a commit of several lines nobody knows which is spoilt."""
    jobs = [new_job(job_id, command=f"rm -r /tmp/{job_id}") for job_id in "abc"]
    disk.open().add([*jobs[:2], rules.cancel(jobs[2], NOW)])
    disk.close()
    spoil(disk, b"rm -r /tmp/b", b"rm -r /tmp//")
    repaired = disk.repair()
    assert (sorted(repaired.held), repaired.unchecked, repaired.lost) == (["a", "b"], ["c"], [])
    disk.verify()
    store = disk.open()
    assert store.claim("w", NOW + 999, HORIZON) is None
    found = {job.id: job for job in everything(store)}
    for job_id, command in (("a", "rm -r /tmp/a"), ("b", "rm -r /tmp//")):
        job = found[job_id]
        assert (job.state, job.command, job.attempts, job.rev) == ("dead", command, 0, 1)
        assert job.last_error == HELD
        to_job(job.to_dict())
    assert found["c"].state == "cancelled"
    assert [one.level for one in disk.examine()] == ["note"]
    store.save([rules.retry(found["a"], NOW)])
    assert claim_one(store).id == "a"


@pytest.mark.parametrize("state", ["pending", "delayed", "failed", "processing"])
def test_nor_is_one_that_waits_otherwise_or_runs(disk: Disk, state: str) -> None:
    store = disk.open()
    add(store, "a")
    if state == "delayed":
        store.add([new_job("b", run_at=NOW + 500), new_job("c")])
    else:
        add(store, "b", "c")
        store.remove([claim_one(store)])
    if state in ("processing", "failed"):
        claimed = claim_one(store)
        if state == "failed":
            store.save([rules.fail(claimed, NOW, "Exit code 1", 2, 1)])
    # In a rewritten file each job has one line, and all are of one commit.
    assert store.rewrite()
    disk.close()
    spoil(disk, b'"command":"true"', b'"command":"trve"')
    # What a repair keeps from being run is for no start to rescue.
    assert not any("dead workers" in one.message for one in disk.examine())
    assert {"b", "c"} <= {*disk.repair().held}
    disk.verify()
    assert disk.open().claim("w", NOW + 9999, HORIZON) is None


def test_a_command_that_an_older_line_vouches_for_is_run(disk: Disk) -> None:
    store = disk.open()
    add(store, "a")
    add(store, "b")
    first = claim_one(store)
    claim_one(store, done=rules.fail(first, NOW, "Exit code 1", 2, 1))
    disk.close()
    spoil(disk, b'"Exit code 1"', b'"Exit code 7"')
    repaired = disk.repair()
    assert (sorted(repaired.unchecked), repaired.held) == (["a", "b"], [])
    assert {job.id: job.state for job in shown(disk)} == {"a": "failed", "b": "processing"}


def test_a_command_that_is_not_as_it_was_is_held(disk: Disk) -> None:
    store = disk.open()
    add(store, "a")
    add(store, "b")
    claim_one(store, done=rules.fail(claim_one(store), NOW, "Exit code 1", 2, 1))
    disk.close()
    spoil(disk, b'"command":"true"', b'"command":"trve"')
    repaired = disk.repair()
    assert (repaired.unchecked, repaired.held) == (["a"], ["b"])


def test_of_two_jobs_with_one_number_that_is_kept_which_is_in_its_place(disk: Disk) -> None:
    for old, new, lost, kept in (
        (b'"id":"a","seq":1', b'"id":"a","seq":3', "a", "bcd"),
        (b'"id":"c","seq":3', b'"id":"c","seq":1', "c", "abd"),
        (b'"id":"d","seq":4', b'"id":"d","seq":2', "d", "abc"),
    ):
        clear(disk)
        disk.open().add([new_job(job_id) for job_id in "abcd"])
        disk.close()
        spoil(disk, old, new)
        repaired = disk.repair()
        assert repaired.lost == [lost]
        assert sorted(job.id for job in shown(disk)) == list(kept)
        disk.verify()


def test_of_two_jobs_with_one_number_in_a_rewritten_file(disk: Disk) -> None:
    """There are gaps, but the numbers rise."""
    store = disk.open()
    jobs = add(store, *(f"j{number}" for number in range(1, 16)))
    store.remove([job for job in jobs if job.seq % 3])
    assert store.rewrite()
    disk.close()
    spoil(disk, b'"id":"j3","seq":3', b'"id":"j3","seq":9')
    repaired = disk.repair()
    assert repaired.lost == ["j3"]
    assert sorted(job.id for job in shown(disk)) == ["j12", "j15", "j6", "j9"]


def test_two_jobs_with_one_number_are_both_named_where_nobody_can_tell(disk: Disk) -> None:
    disk.open().add([new_job("a"), new_job("b"), new_job("c")])
    disk.close()
    spoil(disk, b'"id":"b","seq":2', b'"id":"b","seq":3')
    repaired = disk.repair()
    assert {"b", "c"} <= {*repaired.lost, *repaired.reverted, *repaired.held}
    disk.verify()


def test_what_came_while_it_was_examined_is_kept(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one who had read what was damaged since."""
    store = disk.open()
    add(store, "a", "b")
    spoil(disk, b'"id":"a"', b'"id":"\0"')
    real, pending = os.open, [store]

    def add_before(path: str, *args: int) -> int:
        if str(path).endswith("rewrite.lock") and pending:
            pending.pop().add([new_job("c")])
        return real(path, *args)

    monkeypatch.setattr(os, "open", add_before)
    folder = StoreFolder(str(disk.path))
    with contextlib.closing(StoreLock(folder.lock)) as lock:
        repair(folder, lock)
    assert pending == []
    disk.verify()
    assert "c" in {job.id for job in shown(disk)}
