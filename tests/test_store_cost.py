"""Flat cost, in bytes and system calls: neither depends on how much the store holds."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from typing import Callable, Dict, Iterator, List, NamedTuple, Tuple

import pytest

import tracing
from queuectl import job as rules
from queuectl.cli import app
from queuectl.job import Job, JobState
from queuectl.store.file import FileStore
from queuectl.testing.common import NOW, claim_one, new_job
from test_store_tools import Disk, new_disk
from tracing import trace

SIZES = (100, 20_000)
# Memory is asked for when Python thinks fit.
_MEMORY = re.compile(r"(?:brk|mmap|munmap|mremap|madvise|futex)\(|[^a-z]")
_MOVED = re.compile(
    r"(?:read|write|pread64|pwrite64)\(.* = (\d+)$|mmap\(\w+, (\d+), [^,]+, [^,]+, \d"
)
"""A line of strace that says how many bytes were read or written, or mapped of a file."""


class Cost(NamedTuple):
    """What something took.

    Attributes:
        calls: how often each system call was made.
        size: the bytes that were read, written or mapped.
    """

    calls: Dict[str, int]
    size: int


def cost(act: Callable[[], object]) -> Cost:
    def act_between_marks() -> None:
        os.kill(os.getpid(), 0)
        act()
        os.kill(os.getpid(), 0)

    found = trace(act_between_marks)
    assert found.code == 0, found.said
    begin, end = (at for at, line in enumerate(found.lines) if line.startswith("kill("))
    lines = found.lines[begin + 1 : end]
    calls = Counter(line.partition("(")[0] for line in lines if not _MEMORY.match(line))
    moved = filter(None, map(_MOVED.match, lines))
    return Cost(calls, sum(int(match[1] or match[2]) for match in moved))


def fill(disk: Disk, size: int) -> FileStore:
    """Make a store of so many jobs, half of them completed and half of those in the history."""
    store = disk.open()
    finished = replace(new_job("x"), state=JobState.COMPLETED, runs=1, attempts=1, rev=2)
    for part in "ab":
        store.rewrite()
        store.add([replace(finished, id=f"{part}{number}") for number in range(size // 4)])
    store.add([new_job(f"job{number}") for number in range(size - 2 * (size // 4))])
    assert store.counts().total == size
    return store


@pytest.fixture(scope="module")
def stores() -> Iterator[List[Tuple[Disk, FileStore]]]:
    """A small store and a large one; each measure is taken in a process of its own."""
    if tracing.missing() is not None:
        pytest.skip(str(tracing.missing()))
    with new_disk() as small, new_disk() as large:
        made = [(disk, fill(disk, size)) for disk, size in zip((small, large), SIZES)]
        for _, store in made:
            # As a worker has it from its supervisor.
            store.claimable(NOW, 1)
        yield made


def command(disk: Disk, *words: str) -> None:
    assert app.call(["--store", str(disk.path), *words]) == 0


def claim_and_finish(disk: Disk, store: FileStore) -> None:
    done: List[Job] = []
    for _ in range(5):
        done = [rules.complete(claim_one(store, done=job), NOW) for job in done or [None]]


ACTS: Dict[str, Callable[[Disk, FileStore], object]] = {
    "enqueue": lambda disk, store: command(disk, "enqueue", "true"),
    "enqueue twice": lambda disk, store: [store.add([new_job(job_id)]) for job_id in "yz"],
    "claim": lambda disk, store: claim_one(store),
    "claim and finish": claim_and_finish,
    "status": lambda disk, store: command(disk, "status"),
    "counts": lambda disk, store: store.counts(),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_it_costs_the_same_however_many_jobs_there_are(
    stores: List[Tuple[Disk, FileStore]], act: Callable[[Disk, FileStore], object]
) -> None:
    for each in stores:
        # Once without a look, so that what is done once only is done.
        act(*each)
    small, large = (cost(lambda each=each: act(*each)) for each in stores)
    assert large.calls == small.calls
    # Numbers have more digits: a dozen of them in each of five commits.
    assert abs(large.size - small.size) < 150
    assert 0 < large.size < 30_000


def test_what_looks_an_id_up_costs_more(stores: List[Tuple[Disk, FileStore]]) -> None:
    """So that it is known to be counted, also where it is a mapping that is read."""
    small, large = (cost(lambda store=store: store.get("job1")) for _, store in stores)
    assert large.size > 20 * small.size > 0
