"""Several processes at once: nobody sees half a commit or loses one; each job has one holder."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from typing import Callable, ClassVar, Dict, Iterator, List

import pytest

from queuectl import job as rules
from queuectl.errors import ConflictError, DamagedError, DuplicateIdError, StoreGoneError
from queuectl.job import Job, JobState
from queuectl.store import jobfile
from queuectl.store.base import Counts
from queuectl.store.disk import sync_folder
from queuectl.store.file import FileStore
from queuectl.testing.common import HORIZON, NOW, add, claim_one, everything, ids, new_job
from test_store_tools import Child, Disk, in_child, shown, wait_for

BATCH = 5


@contextmanager
def working(disk: Disk, *works: Callable[[FileStore], None]) -> Iterator[List[Child]]:
    """Let children work, each with a store of its own, until the block ends; none may fail."""
    over = disk.path.parent / "over"

    def child(work: Callable[[FileStore], None], number: int) -> None:
        random.seed(number)
        store = FileStore(str(disk.path))
        while not over.exists():
            work(store)

    children = [Child(lambda w=w, n=n: child(w, n)) for n, w in enumerate(works)]
    try:
        yield children
    finally:
        over.touch()
        for each in children:
            each.finish()


def is_full(store: FileStore) -> bool:
    """Whether there is enough to look at; a larger store is only slower."""
    return store.counts().total >= 16 * BATCH


def enqueue_batches(store: FileStore) -> None:
    if is_full(store):
        return
    batch = os.urandom(4).hex()
    store.add([new_job(f"{batch}.{number}") for number in range(BATCH)])


def enqueue_given(store: FileStore) -> None:
    if is_full(store):
        return
    batch = os.urandom(4).hex()
    add(store, *(f"{batch}.{number}" for number in range(BATCH)))


def run_jobs(store: FileStore) -> None:
    worker = f"w{os.getpid()}"
    done = None
    for _ in range(10):
        job = store.claim(worker, NOW, HORIZON, done)
        if job is None:
            return
        done = rules.complete(job, NOW)
    assert done is not None
    store.save([done], durable=False)


def cancel_some(store: FileStore) -> None:
    pending = list(store.select(["pending"], 3))
    with suppress(ConflictError):
        store.save([rules.cancel(job, NOW) for job in pending], durable=False)


def purge_batches(store: FileStore) -> None:
    """Remove whole batches that are finished."""
    finished = {}
    for job in store.select(["completed", "cancelled"]):
        finished.setdefault(job.id.split(".")[0], []).append(job)
    whole = [jobs for jobs in finished.values() if len(jobs) == BATCH]
    if whole:
        with suppress(ConflictError):
            store.remove(random.choice(whole))


def rewrite(store: FileStore) -> None:
    store.rewrite()


def die_in_the_middle(store: FileStore) -> None:
    """Fork a process that dies after half a write, as its tail is what others must cut."""

    def act() -> None:
        real = os.pwrite

        def write(fd: int, data: bytes, at: int) -> int:
            real(fd, bytes(data)[: random.randrange(1, len(data))], at)
            os._exit(0)

        os.pwrite = write
        enqueue_batches(FileStore(store.url))

    if not is_full(store):
        in_child(act)


@pytest.mark.slow
def test_readers_see_whole_commits_only(disk: Disk) -> None:
    """Thousands of looks, while others add, run, cancel, remove, die and rewrite."""
    reader = disk.open()
    looker = disk.open()
    looks = 0
    seen: List[str] = []
    works = [
        enqueue_batches,
        enqueue_given,
        run_jobs,
        cancel_some,
        purge_batches,
        rewrite,
        die_in_the_middle,
    ]
    with working(disk, *works):
        deadline = time.monotonic() + 40
        while looks < 2500:
            assert time.monotonic() < deadline, looks
            jobs = everything(reader)
            assert [job.seq for job in jobs] == sorted({job.seq for job in jobs}, reverse=True)
            batches = {}
            for job in jobs:
                batches[job.id.split(".")[0]] = batches.get(job.id.split(".")[0], 0) + 1
            assert set(batches.values()) <= {BATCH}
            for _ in range(20):
                assert looker.counts().total % BATCH == 0
            if jobs:
                job = random.choice(jobs)
                for found in (reader.get(job.id), looker.get(job.id)):
                    assert found is None or (found.seq, found.rev >= job.rev) == (job.seq, True)
                assert set(reader.find(job.id[:8], 9)) in (
                    {f"{job.id[:8]}.{n}" for n in range(BATCH)},
                    set(),
                )
            looker.claimable(NOW, HORIZON)
            looks += 25
            seen.extend(job.id for job in jobs[:1])
    assert len(set(seen)) > 5
    # The last thing that happened may have been a death.
    reader.add([new_job("last")])
    disk.verify()


@pytest.mark.slow
def test_each_job_is_claimed_once(disk: Disk) -> None:
    """By processes that claim all at once, while the file is rewritten."""
    add(disk.open(), *(f"job{number}" for number in range(400)))
    log = disk.path.parent / "log"

    def run(store: FileStore) -> None:
        done = None
        while True:
            job = store.claim(f"w{os.getpid()}", NOW, HORIZON, done)
            if job is None:
                return
            with log.open("a") as file:
                file.write(f"{job.id} {job.runs}\n")
            if job.runs == 1 and job.seq % 10 == 0:
                done = rules.fail(job, NOW, "Exit code 1", 0, 1)
            else:
                done = rules.complete(job, NOW)

    with working(disk, run, run, run, rewrite):
        wait_for(lambda: disk.open().counts().completed == 400, timeout=20)
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 440
    assert disk.open().counts() == Counts(completed=400)
    disk.verify()


@pytest.mark.slow
@pytest.mark.parametrize("indexed", [False, True], ids=["plain", "indexed"])
def test_of_many_successors_one_is_saved(disk: Disk, indexed: bool) -> None:
    """Every save that was accepted is there: `rev` counts them, however many others tried."""
    add(disk.open(), *(f"job{number}" for number in range(9)))
    log = disk.path.parent / "log"

    def change(store: FileStore) -> None:
        if indexed:
            store.claimable(NOW, HORIZON)
        picked = random.sample(range(9), random.choice([1, 2, 9]))
        jobs = [store.get(f"job{number}") for number in picked]
        changed = [
            rules.cancel(job, NOW) if job.waits else rules.retry(job, NOW)
            for job in jobs
            if job is not None
        ]
        with suppress(ConflictError):
            store.save(changed, durable=False)
            with log.open("a") as file:
                file.write("x" * len(changed))

    with working(disk, change, change, change, rewrite):
        wait_for(lambda: log.exists() and log.stat().st_size >= 1000, timeout=20)
    assert sum(job.rev for job in shown(disk)) == log.stat().st_size
    disk.verify()


@pytest.mark.slow
def test_of_many_who_want_an_id_one_gets_it(disk: Disk) -> None:
    disk.open()
    log = disk.path.parent / "log"

    def enqueue(store: FileStore) -> None:
        wanted = [f"job{number}" for number in sorted(random.sample(range(300), 3))]
        with suppress(DuplicateIdError):
            add(store, *wanted)
            with log.open("a") as file:
                file.write("x" * 3)

    with working(disk, enqueue, enqueue, enqueue, rewrite, run_jobs):
        wait_for(lambda: log.exists() and log.stat().st_size >= 150, timeout=20)
    jobs = shown(disk)
    assert len(jobs) == len({job.id for job in jobs}) == log.stat().st_size
    disk.verify()


def test_of_many_who_make_a_store_one_does(disk: Disk) -> None:
    made = disk.path.parent / "made"

    def make() -> None:
        store = FileStore(str(disk.path), notice=lambda text: made.open("a").write("x"))
        store.add([new_job(f"job{os.getpid()}")])

    for _ in range(10):
        children = [Child(make) for _ in range(4)]
        for child in children:
            child.finish()
        assert made.read_text() == "x"
        assert len(shown(disk)) == 4
        disk.verify()
        made.unlink()
        for file in disk.path.iterdir():
            file.unlink()


@pytest.mark.parametrize("create", [True, False])
def test_a_store_that_is_made_just_now_is_not_damaged(
    disk: Disk, create: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its job file was not there yet when another process looked for it."""
    disk.path.mkdir(mode=0o700)
    real = os.listdir

    def make_before(path: str) -> List[str]:
        monkeypatch.setattr(os, "listdir", real)
        add(disk.open(), "a")
        return real(path)

    monkeypatch.setattr(os, "listdir", make_before)
    assert ids(everything(disk.open(create))) == ["a"]
    assert disk.notices == [f"created store {disk.path}"]


def test_one_rewrites_at_a_time(disk: Disk) -> None:
    """And the others go on meanwhile: a rewrite that hangs keeps nobody waiting."""
    store = disk.open()
    add(store, "a", "b")
    running = disk.path.parent / "running"

    def hang() -> None:
        real = os.fdatasync

        def sync(fd: int) -> None:
            running.touch()
            threading.Event().wait()

        own = FileStore(str(disk.path))
        os.fdatasync = sync
        own.rewrite()
        real(0)

    child = Child(hang)
    try:
        wait_for(running.exists)
        assert store.rewrite() is False
        add(store, "c")
        job = claim_one(store)
        store.save([rules.complete(job, NOW)])
    finally:
        child.kill()
    assert store.rewrite() is True
    assert ids(shown(disk)) == ["c", "b", "a"]
    disk.verify()


def test_what_is_committed_during_a_rewrite_is_in_the_new_file(disk: Disk) -> None:
    """Added, finished, released, removed; also what was on its way to the history."""
    store = disk.open()
    add(store, *"abcdefgh")
    done = [rules.complete(claim_one(store), NOW) for _ in range(2)]
    store.save(done)
    held = claim_one(store)
    inode = disk.jobs.stat().st_ino
    step = disk.path.parent / "step"

    def slow() -> None:
        own = FileStore(str(disk.path))
        real = os.pwrite

        def write(fd: int, data: bytes, at: int) -> int:
            if not step.exists():
                step.touch()
                wait_for(lambda: step.read_text() == "go")
            return real(fd, data, at)

        os.pwrite = write
        assert own.rewrite()

    child = Child(slow)
    wait_for(step.exists)
    store.remove([done[0]])
    add(store, "x", "y")
    claimed = claim_one(store, done=rules.complete(held, NOW))
    store.save([rules.release(claimed, NOW)])
    expected = everything(store)
    step.write_text("go")
    child.finish()
    assert disk.jobs.stat().st_ino != inode
    assert everything(store) == shown(disk) == expected
    assert ids([claim_one(store)]) == ["d"]
    for _ in range(2):
        assert store.rewrite()
        assert len(shown(disk)) == 9
        disk.verify()


def test_a_rewrite_gives_way_to_another_that_was_faster(disk: Disk) -> None:
    """As when a disk failed meanwhile, and a writer began a new file."""
    store = disk.open()
    add(store, "a", "b")
    step = disk.path.parent / "step"

    def slow() -> None:
        own = FileStore(str(disk.path))
        real = os.fdatasync

        def sync(fd: int) -> None:
            if not step.exists():
                step.touch()
                wait_for(lambda: step.read_text() == "go")
            real(fd)

        os.fdatasync = sync
        assert own.rewrite() is False

    child = Child(slow)
    wait_for(step.exists)
    disk.unsynced.touch()
    add(store, "c")
    step.write_text("go")
    child.finish()
    assert ids(shown(disk)) == ["c", "b", "a"]
    disk.verify()


class TestRemovedStore:
    """`rm -rf queuectl_data` is a supported reset: everybody notices, nobody makes it anew."""

    USES: ClassVar[Dict[str, Callable[[FileStore, Job], object]]] = {
        "add": lambda store, job: store.add([new_job("x")]),
        "add with an id": lambda store, job: add(store, "x"),
        "get": lambda store, job: store.get("a"),
        "select": lambda store, job: store.select(["pending"]),
        "counts": lambda store, job: store.counts(),
        "claim": lambda store, job: store.claim("w", NOW, HORIZON),
        "claim with done": lambda store, job: store.claim(
            "w", NOW, HORIZON, rules.complete(job, NOW)
        ),
        "claimable": lambda store, job: store.claimable(NOW, HORIZON),
        "save": lambda store, job: store.save([rules.complete(job, NOW)]),
        "remove": lambda store, job: store.remove([job]),
        "configure": lambda store, job: store.configure({"max_retries": "5"}),
        "sync": lambda store, job: store.sync(),
        "tend": lambda store, job: store.tend(),
        "rewrite": lambda store, job: store.rewrite(),
    }

    @pytest.mark.parametrize("anew", [False, True], ids=["removed", "made anew"])
    @pytest.mark.parametrize("use", USES.values(), ids=USES)
    def test_every_use_notices(
        self, disk: Disk, use: Callable[[FileStore, Job], object], anew: bool
    ) -> None:
        store = disk.open()
        add(store, "a", "b")
        job = claim_one(store)
        for file in disk.path.iterdir():
            file.unlink()
        disk.path.rmdir()
        if anew:
            other = disk.open()
            add(other, "new")
            before = disk.jobs.read_bytes()
        for _ in range(2):
            with pytest.raises(StoreGoneError, match="was removed while in use"):
                use(store, job)
        store.close()
        if anew:
            assert disk.jobs.read_bytes() == before
            assert ids(shown(disk)) == ["new"]
            assert other.settings() == {}
        else:
            assert not disk.path.exists()

    def test_one_that_is_removed_before_it_is_synced_is_gone(
        self, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No disk failed, so the outcome is known."""

        def sync_removed(path: str) -> None:
            shutil.rmtree(path)
            sync_folder(path)

        monkeypatch.setattr(jobfile, "sync_folder", sync_removed)
        store = disk.open()
        with pytest.raises(StoreGoneError, match="was removed while in use"):
            add(store, "a")
        store.close()
        assert not disk.path.exists()

    def test_a_job_file_that_alone_vanished_is_noticed_too(self, disk: Disk) -> None:
        store = disk.open()
        add(store, "a")
        disk.jobs.unlink()
        with pytest.raises(StoreGoneError):
            store.add([new_job("x")])
        with pytest.raises(DamagedError):
            disk.open()


def test_a_state_is_one_of_those_that_were_committed(disk: Disk) -> None:
    """A claim that saves the job before it: nobody sees the one without the other."""
    store, reader = disk.open(), disk.open()
    add(store, *(f"job{number}" for number in range(30)))
    held = claim_one(store)

    def work(own: FileStore) -> None:
        # Commits of two jobs: there is always exactly one that is processing.
        (job,) = own.select([JobState.PROCESSING])
        own.claim("w", NOW, HORIZON, rules.complete(job, NOW))

    assert held.state == JobState.PROCESSING

    def works(own: FileStore) -> None:
        if own.counts().pending > 0:
            work(own)

    with working(disk, works):
        while reader.counts().pending > 0:
            assert reader.counts().processing == 1
            assert len(list(reader.select([JobState.PROCESSING]))) == 1
