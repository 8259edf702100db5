"""SIGKILL before every system call of every kind of commit, as the kernel sees them.

`test_store_crash` spoils the calls that Python makes; here nothing is touched: strace kills the
process when it is about to make its Nth call of a name, for every name and every N, until it ends
by itself. The next process opens the store unaided, and finds the change whole or absent, and whole
if it was acknowledged.
"""

from __future__ import annotations

import os
import shutil
import signal
from itertools import count
from pathlib import Path
from typing import List, Set, Tuple

import pytest

import tracing
from queuectl import clock, machine
from queuectl import job as rules
from queuectl.errors import KeyTakenError
from queuectl.store.base import Member
from queuectl.store.file import FileStore
from queuectl.testing.common import NOW, add, claim_one, current, everything, new_job
from support import Cli
from test_store_crash import CASES, Case, some_jobs, state
from test_store_tools import Disk, fast_folder, in_child, shown
from tracing import Trace, trace, trace_command

pytestmark = pytest.mark.usefixtures("strace")

CHANGING = {
    *("write", "pwrite64", "ftruncate", "fsync", "fdatasync", "flock"),
    *("rename", "unlink", "mkdir", "mknodat", "openat"),
}
"""Calls that change what others see, or that come right before or after one that does."""


def a_dead_worker(disk: Disk) -> None:
    some_jobs(disk)
    disk.close()

    def work() -> None:
        store = FileStore(str(disk.path))
        worker = Member("w9", "worker", "Worker-9", os.getpid(), "host", clock.to_iso(NOW), "s9")
        store.enroll(worker)
        job = claim_one(store, worker="w9")
        store.note(worker._replace(job=job.id, run=job.runs))
        Path(store.spool("w9")).write_bytes(b"printed\n")

    in_child(work)


def a_dead_job(disk: Disk) -> None:
    some_jobs(disk)
    store = disk.open()
    add(store, "last", max_retries=1)
    jobs = [claim_one(store) for _ in range(3)]
    store.save([rules.fail(job, NOW, "Exit code 1", 1, 1) for job in jobs])


def a_family(disk: Disk) -> None:
    """A parent that is dead and has output, its child, and the holder of a key."""
    some_jobs(disk)
    store = disk.open()
    add(store, "parent", max_retries=1, priority=1, dependents=1, queue="q")
    store.save([rules.fail(claim_one(store), NOW, "Exit code 1", 1, 1)])
    kept = Path(store.kept_output("parent", 1))
    kept.parent.mkdir(parents=True)
    kept.write_text("output")
    (parent,) = store.select(["dead"])
    store.add([new_job("child", after=("parent",))], [], [rules.awaited(parent, NOW, 1)])
    add(store, "holder", unique="k")


def add_a_child(store: FileStore) -> None:
    (parent,) = store.select(["dead"])
    new = new_job("x", after=("parent",), after_any=("c",), unique="new", queue="q", priority=5)
    also = [rules.awaited(job, NOW, 1) for job in (parent, current(store, "c"))]
    store.add([new], ["x"], also)


def replace_the_holder(store: FileStore) -> None:
    also = [rules.cancel(current(store, "holder"), NOW, "replaced")]
    store.add([new_job("x", unique="k")], [], also)


def purge_a_parent(store: FileStore) -> None:
    store.remove([current(store, "parent")], [rules.cancel(current(store, "child"), NOW)])


def key_has_one_holder(store: FileStore) -> None:
    (holder,) = [job for job in everything(store) if job.unique == "k" and not job.is_over]
    with pytest.raises(KeyTakenError):
        store.add([new_job("y", unique="k")])
    assert store.holder("k") == holder


def child_is_kept(store: FileStore) -> None:
    children = [job for job in everything(store) if "parent" in job.after and job.waits]
    assert store.children(list(store.select(["dead"]))) == children[::-1]
    assert not store.claimable(NOW, 1, ["q"])
    assert bool(children) == (store.get("parent") is not None)


def rescue(store: FileStore) -> None:
    for lost in store.lost():
        if lost.job is not None:
            store.save([rules.rescue(lost.job, NOW, 1)], durable=False)
        store.bury(lost)


def rescue_whom_others_left(store: FileStore) -> None:
    rescue(store)
    assert not [job for job in everything(store) if job.worker == "w9"]
    assert not Path(store.spool("w9")).exists()


def retry(store: FileStore) -> None:
    store.save([rules.retry(job, NOW) for job in store.select(["dead"])])


@pytest.fixture
def strace() -> None:
    """Skips the tests where there is no strace."""
    reason = tracing.missing()
    if reason is not None:
        pytest.skip(reason)


ALL_CASES = {
    **CASES,
    "add without an id": Case(some_jobs, lambda store: store.add([new_job("x")])),
    "add many": Case(some_jobs, lambda store: add(store, *(f"x{n}" for n in range(20)))),
    "rescue": Case(a_dead_worker, rescue, rescue_whom_others_left),
    "retry": Case(a_dead_job, retry),
    "purge": Case(a_dead_job, lambda store: store.remove(list(store.select(["dead"])))),
    "add a child": Case(a_family, add_a_child, child_is_kept),
    "replace": Case(a_family, replace_the_holder, key_has_one_holder),
    "purge a parent": Case(a_family, purge_a_parent, child_is_kept),
}


class Killing:
    """One case, done again and again from the same beginning.

    Args:
        case: what is done.
        folder: where.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._begin = folder / "begin"
        self._disk = Disk(folder / "queuectl_data")
        case.prepare(self._disk)
        self._disk.close()
        self._is_new = not self._disk.jobs.exists()
        self._before = None if self._is_new else state(self._disk)
        if not self._is_new:
            self._disk.path.rename(self._begin)
        # Asked for once by each process, and known to the children from now on.
        machine.boot_id()
        found, _ = self._traced()
        self.calls = found.calls
        self._after = state(self._disk)

    def kill_at(self, call: str, number: int) -> bool:
        """Kill it before a call; look what the next process finds; tell whether it got so far."""
        inject = f"inject={call}:signal=KILL:when={number}"
        found, acknowledged = self._traced("-e", f"trace={call}", "-e", inject)
        if found.code == 0:
            assert found.calls.count(call) < number
            assert acknowledged
        else:
            assert found.code == -signal.SIGKILL, found.said
            assert found.calls[number - 1 :] == [call]
            assert found.lines[-1] == "+++ killed by SIGKILL +++"
        self._look(acknowledged)
        return found.code != 0

    def _traced(self, *options: str) -> Tuple[Trace, bool]:
        """Do it from the beginning; return its trace, and whether it was acknowledged."""
        if self._disk.path.exists():
            shutil.rmtree(self._disk.path)
        if not self._is_new:
            shutil.copytree(self._begin, self._disk.path)
        heard, tell = os.pipe()

        def act() -> None:
            self._case.act(FileStore(str(self._disk.path)))
            os.write(tell, b"done")

        found = trace(act, *options)
        os.close(tell)
        acknowledged = bool(os.read(heard, 1))
        os.close(heard)
        return found, acknowledged

    def _look(self, acknowledged: bool) -> None:
        disk = self._disk
        if disk.jobs.exists():
            found = state(disk)
            assert found == self._after if acknowledged else found in (self._before, self._after)
        else:
            assert self._is_new
            assert not acknowledged
        store = disk.open()
        self._case.afterwards(store)
        jobs = everything(store)
        added = add(store, "later")
        assert everything(store) == shown(disk) == added + jobs
        disk.verify()
        disk.close()


def kill_everywhere(case: Case, only: Set[str]) -> int:
    kills = 0
    with fast_folder() as folder:
        killing = Killing(case, folder)
        for call in sorted({*killing.calls} & (only or {*killing.calls})):
            for number in count(1):
                if not killing.kill_at(call, number):
                    break
                kills += 1
            # Which memory Python asks for differs from time to time.
            if call in CHANGING:
                assert number - 1 == killing.calls.count(call)
    return kills


@pytest.mark.parametrize("case", ALL_CASES.values(), ids=ALL_CASES)
def test_killed_before_a_call_that_matters(case: Case) -> None:
    assert kill_everywhere(case, CHANGING) > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["create", "claim with done", "rewrite with a history"])
def test_killed_before_any_call(name: str) -> None:
    """Also before those that change nothing, in one case of each way to write."""
    assert kill_everywhere(ALL_CASES[name], set()) > 20


COMMANDS = {
    "enqueue --file": ["enqueue", "--file", "many"],
    "dlq retry": ["dlq", "retry", "--all"],
    "config set": ["config", "set", "max_retries", "7"],
}


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_is_killed_did_all_or_nothing(
    cli: Cli, tmp_path: Path, words: List[str]
) -> None:
    """Whole commands, killed before each call that changes a file of the store."""
    begin = tmp_path / "begin"
    (tmp_path / "many").write_text("true\n" * 3)
    cli.run("enqueue", "--id", "dead", "--max-retries", "1", "false", check=0)
    cli.run("start", "--drain", "--quiet", check=0)
    cli.store.rename(begin)

    def look() -> Tuple[int, List[Tuple[str, str]], str]:
        jobs = [(job["command"], job["state"]) for job in cli.json("list")]
        return len(jobs), jobs, cli.run("config", "get", "max_retries", check=0).stdout

    def run(*options: str) -> Tuple[Trace, str]:
        shutil.copytree(begin, cli.store)
        found, out, _ = trace_command(words, tmp_path, cli.environment(), *options)
        return found, out

    shutil.copytree(begin, cli.store)
    before = look()
    shutil.rmtree(cli.store)
    assert run()[0].code == 0
    after = look()
    assert after != before
    kills = 0
    for call in ("pwrite64", "fdatasync", "fsync", "rename"):
        for number in count(1):
            shutil.rmtree(cli.store)
            inject = f"inject={call}:signal=KILL:when={number}"
            traced, out = run("-e", f"trace={call}", "-e", inject)
            killed = "+++ killed by SIGKILL +++" in traced.lines
            assert traced.code == (-signal.SIGKILL if killed else 0)
            found = look()
            assert found == after if out or not killed else found in (before, after)
            cli.run("enqueue", "later", check=0)
            if not killed:
                break
            kills += 1
    assert kills > 2
