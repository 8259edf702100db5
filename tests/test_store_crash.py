"""Death at every step: before, in and after every system call that changes a file.

The calls of the operating system are what is spoilt here, in a child of its own; the store's code
runs as it is. Whatever the child was doing, the next process opens the store unaided and finds the
change whole or absent.
"""

from __future__ import annotations

import os
from typing import Any, Callable, List, NamedTuple

import pytest

from queuectl import clock
from queuectl import job as rules
from queuectl.job import Job
from queuectl.store.base import Member
from queuectl.store.file import FileStore
from queuectl.testing.common import NOW, add, claim_one, everything, new_job
from test_store_tools import Child, Disk, new_disk, shown

CALLS = (
    "write",
    "pwrite",
    "ftruncate",
    "fsync",
    "fdatasync",
    "rename",
    "unlink",
    "mkdir",
    "mkfifo",
    "open",
)
KILLED = 9


def die_at(step: int) -> None:
    """Make this process die at a step: before and after each call, and within each write."""
    count = 0

    def pass_step() -> None:
        nonlocal count
        if count == step:
            os._exit(KILLED)
        count += 1

    def spoil(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **options)
            pass_step()
            if name in ("write", "pwrite"):
                if count == step:
                    half = bytes(args[1])[: len(args[1]) // 2]
                    real(args[0], half, *args[2:])
                pass_step()
            result = real(*args, **options)
            pass_step()
            return result

        setattr(os, name, call)

    for name in CALLS:
        spoil(name)


class Case(NamedTuple):
    """An operation.

    Attributes:
        prepare: what is there before it.
        act: does it, on a store that was just opened.
        afterwards: makes sure that what it was for can still be done.
    """

    prepare: Callable[[Disk], object]
    act: Callable[[FileStore], object]
    afterwards: Callable[[FileStore], object] = lambda store: None


def some_jobs(disk: Disk) -> None:
    store = disk.open()
    add(store, "a", "b", "c", "d")
    store.save([rules.complete(claim_one(store), NOW)])
    claim_one(store)


def some_history(disk: Disk) -> None:
    some_jobs(disk)
    store = disk.open()
    assert store.rewrite()
    (running,) = store.select(["processing"])
    store.save([rules.complete(running, NOW)])
    claim_one(store)


def some_purged(disk: Disk) -> None:
    some_history(disk)
    store = disk.open()
    assert store.rewrite()
    store.remove(list(store.select(["completed"]))[:1])


def a_tail(disk: Disk) -> None:
    some_jobs(disk)
    with disk.jobs.open("ab") as file:
        file.write(b'{"id":"half')


def a_reboot(disk: Disk) -> None:
    a_tail(disk)
    disk.reboot()


def an_unsynced_file(disk: Disk) -> None:
    a_tail(disk)
    disk.unsynced.write_bytes(b"")


def running(store: FileStore) -> Job:
    (job,) = store.select(["processing"])
    return job


def enroll(store: FileStore) -> None:
    store.enroll(Member("s1", "supervisor", "start", os.getpid(), "host", clock.to_iso(NOW), "s1"))
    store.enroll(Member("w1", "worker", "Worker-1", os.getpid(), "host", clock.to_iso(NOW), "s1"))


def enroll_and_leave(store: FileStore) -> None:
    enroll(store)
    store.leave("w1")
    store.leave("s1")


def bury_all(store: FileStore) -> None:
    for lost in store.lost():
        store.bury(lost)
    assert store.lost() == []


CASES = {
    "create": Case(lambda disk: None, lambda store: None),
    "add": Case(some_jobs, lambda store: add(store, "x", "y", "z")),
    "claim": Case(some_jobs, lambda store: claim_one(store)),
    "claim with done": Case(
        some_jobs, lambda store: claim_one(store, done=rules.complete(running(store), NOW))
    ),
    "save": Case(
        some_jobs,
        lambda store: store.save([rules.cancel(job, NOW) for job in store.select(["pending"])]),
    ),
    "remove": Case(some_jobs, lambda store: store.remove(everything(store))),
    "rewrite": Case(some_jobs, lambda store: store.rewrite(), lambda store: store.rewrite()),
    "rewrite with a history": Case(
        some_history, lambda store: store.rewrite(), lambda store: store.rewrite()
    ),
    "rewrite after a purge": Case(
        some_purged, lambda store: store.rewrite(), lambda store: store.rewrite()
    ),
    "cut a tail": Case(a_tail, lambda store: add(store, "x")),
    "rewrite with a tail": Case(a_tail, lambda store: store.rewrite()),
    "first write after a reboot": Case(a_reboot, lambda store: add(store, "x")),
    "replace an unsynced file": Case(an_unsynced_file, lambda store: add(store, "x")),
    "configure": Case(some_jobs, lambda store: store.configure({"max_retries": "5"})),
    "enroll": Case(some_jobs, enroll, bury_all),
    "leave": Case(some_jobs, enroll_and_leave, bury_all),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_change_is_whole_or_absent_wherever_its_process_dies(case: Case) -> None:
    step, results = 0, []
    while True:
        with new_disk() as disk:
            case.prepare(disk)
            disk.close()
            before = state(disk) if disk.jobs.exists() else None

            def act(disk: Disk = disk, step: int = step) -> None:
                die_at(step)
                case.act(FileStore(str(disk.path)))
                os._exit(0)

            child = Child(act)
            code = os.WEXITSTATUS(os.waitpid(child.pid, 0)[1])
            os.close(child._failure)
            assert code in (0, KILLED)
            if code == 0 and before is None:
                before = state(disk)
            if code == KILLED and before is None and not disk.jobs.exists():
                results.append("no store")
            else:
                results.append(state(disk))
            store = disk.open()
            case.afterwards(store)
            found = everything(store)
            added = add(store, "later")
            assert everything(store) == shown(disk) == added + found
            disk.verify()
            if code == 0:
                break
        step += 1
    after = results[-1]
    # Before the change for a while, then after it: never anything else, and never back.
    changes = [
        one for number, one in enumerate(results) if number == 0 or results[number - 1] != one
    ]
    assert changes in ([before, after], [after], ["no store", after])
    assert step > 3


def state(disk: Disk) -> List[object]:
    """What a process that has just started shows: jobs, counts and settings."""
    store = FileStore(str(disk.path), create=False)
    try:
        return [everything(store), store.counts(), dict(store.settings())]
    finally:
        store.close()


def test_an_added_job_survives_every_later_death(disk: Disk) -> None:
    """What was acknowledged is there, whoever dies after it and however."""
    store = disk.open()
    for step in range(40):
        (added,) = store.add([new_job(f"job{step}")])

        def act(step: int = step) -> None:
            die_at(step)
            other = FileStore(str(disk.path))
            other.rewrite()
            add(other, f"other{step}")

        child = Child(act)
        os.waitpid(child.pid, 0)
        os.close(child._failure)
        assert added in shown(disk)
        assert store.get(added.id) == added
    assert len([job for job in shown(disk) if job.id.startswith("job")]) == 40
    disk.verify()
