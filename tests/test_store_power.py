"""Loss of power: after each step of an operation, in every state that the disk may be left in.

Each story is done once, with all that it does to the disk recorded (see `powerloss`). Whatever the
disk then holds, the next boot opens the store unaided, and finds a prefix of the commit order with
every change that was acknowledged. Then each line of the store that asks for a sync is left out in
turn: some state must show it, or the line would not be needed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Union

import pytest

from powerloss import Done, Medium, Recorder, Sync, Tree, all_sites, lay_out, read_tree
from queuectl import job as rules
from queuectl import machine
from queuectl.errors import NoStoreError, OutcomeUnknownError, QueueError
from queuectl.job import Job, JobState
from queuectl.store import recovery
from queuectl.store.base import Member
from queuectl.store.disk import sync_folder
from queuectl.store.file import FileStore
from queuectl.store.rebuild import HELD
from queuectl.testing.common import (
    HORIZON,
    NOW,
    add,
    claim_one,
    everything,
    new_job,
    run_and_complete,
)
from test_store_crash import a_tail, an_unsynced_file, some_history, some_jobs, some_purged
from test_store_kill import a_dead_job
from test_store_tools import Disk, fast_folder, zero

NAME = "folder/queuectl_data"
JOBS, SETTINGS = "jobs", "settings"
BEFORE, NOW_RUNNING, NEXT = (f"{number:08x}-0000-4000-8000-000000000000" for number in (1, 2, 3))


class Shown(NamedTuple):
    """What a store shows: nothing where there is none."""

    jobs: Optional[Tuple[Job, ...]]
    settings: Optional[Tuple[Tuple[str, str], ...]]


class Found(NamedTuple):
    """What the next boot finds.

    Attributes:
        shown: what the store shows.
        torn: what was cut off and kept.
    """

    shown: Shown
    torn: Tuple[bytes, ...]


class Step(NamedTuple):
    """A change that was made.

    Attributes:
        shown: what the store shows after it.
        promised: what of it must survive, with all that was before it: JOBS, SETTINGS or nothing.
    """

    shown: Shown
    promised: str


@contextlib.contextmanager
def booted(boot: str) -> Iterator[None]:
    """Make this process live in a boot of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "boot_id", lambda: boot)
        yield


class Story:
    """Something that is done to a store, recorded.

    Args:
        root: the folder of all that is recorded; nothing in it is outside of the disk.
        plan: what was there before, and is on the disk.

    Attributes:
        look: tells what the next boot finds.
        found: what it would have found at the beginning.
    """

    def __init__(self, root: Path, plan: Plan) -> None:
        self.disk = Disk(root / NAME)
        with booted(plan.boot):
            plan.prepare(self.disk)
            self.disk.close()
        self.recorder = Recorder(root)
        self.look = plan.look()
        found = self.look(self.recorder.start)
        assert isinstance(found, Found), found
        self.found = found
        self.steps = [Step(found.shown, "")]

    def open(self) -> FileStore:
        return self.disk.open()

    def do(self, act: Callable[[], object], promised: str = JOBS) -> None:
        """Make a change, which is one commit."""
        act()
        self.note(promised)

    def note(self, promised: str = "") -> None:
        """Take note of what the store shows now."""
        self.steps.append(Step(self.recorder.unnoticed(lambda: shown(self.disk.path)), promised))
        self.recorder.events.append(Done())

    def at_next_sync(self, name: str, act: Callable[[], object]) -> None:
        """Do something before a file of the store is synced, or its folder."""
        self.recorder.at_next_sync(os.path.join(NAME, name).rstrip("/"), act)

    def fail_next_sync(self, name: str) -> None:
        """Have the disk refuse to sync a file of the store, or its folder."""
        self.at_next_sync(name, refuse)


class Died(BaseException):
    """The process ends here."""


def refuse() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def die() -> None:
    raise Died


def without_times(job: Job) -> Job:
    """A job without when it was put with the dead, if a repair did that: each does it anew."""
    return replace(job, updated_at="", finished_at="") if job.last_error == HELD else job


def shown(path: Path) -> Shown:
    store = FileStore(str(path), create=False)
    try:
        jobs = tuple(map(without_times, everything(store)))
        return Shown(jobs, tuple(sorted(store.settings().items())))
    finally:
        store.close()


@functools.lru_cache(maxsize=None)
def look(tree: Tree) -> Union[Found, str]:
    """Open what the disk holds in the next boot: first a reader, then a writer; or what failed."""
    with fast_folder() as root, booted(NEXT), pytest.MonkeyPatch.context() as patch:
        # Nobody is about to end what was written by half.
        patch.setattr(time, "sleep", lambda seconds: None)
        lay_out(tree, root)
        disk = Disk(root / NAME)
        try:
            try:
                before = shown(disk.path)
            except NoStoreError:
                before = Shown(None, None)
            store = disk.open()
            added = add(store, "later")
            after = [*added, *(before.jobs or ())]
            if not everything(store) == list(shown(disk.path).jobs or ()) == after:
                return "what was read was cut by a writer, or what was written after it was lost"
            disk.verify()
            held = sorted(job.id for job in after if job.state == JobState.PROCESSING)
            if sorted(lost.job.id for lost in store.lost(thorough=True) if lost.job) != held:
                return "a job whose worker is gone is not found"
            return Found(before, tuple(disk.torn))
        except QueueError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            disk.close()


class RepairAgain:
    """Repairs what the disk holds in the next boot, as one does whose repair was cut short.

    The first that it sees is the store before the repair: either that is as it was, or a copy is.
    """

    def __init__(self) -> None:
        self._before: Dict[str, bytes] = {}
        self._seen: Dict[Tree, Union[Found, str]] = {}

    def __call__(self, tree: Tree) -> Union[Found, str]:
        if tree not in self._seen:
            self._seen[tree] = self._repair(tree)
        return self._seen[tree]

    def _repair(self, tree: Tree) -> Union[Found, str]:
        with fast_folder() as root, booted(NEXT):
            lay_out(tree, root)
            disk = Disk(root / NAME)
            copies = [path for path in disk.path.glob("before-repair-*") if path.suffix != ".part"]
            self._before = self._before or files(disk.path)
            for path in copies or [disk.path]:
                found = files(path)
                for name, data in self._before.items():
                    if found.get(name) != data:
                        return f"{name} is neither as it was, nor has a copy"
            try:
                disk.repair()
                disk.verify()
                return Found(shown(disk.path), ())
            except QueueError as error:
                return f"{type(error).__name__}: {error}"


def files(folder: Path) -> Dict[str, bytes]:
    """What is in a store's folder, but for locks, which hold nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def nothing(disk: Disk) -> None:
    pass


def create(story: Story) -> None:
    """The first command makes the store, and the folders above it."""
    story.do(lambda: story.open(), "")
    store = story.open()
    story.do(lambda: add(store, *(f"x{number}" for number in range(12))))
    story.do(lambda: story.open().add([new_job("y")]))


def change(story: Story) -> None:
    """What a user is told is done."""
    for act in (
        lambda store: add(store, "x"),
        lambda store: store.add([new_job(f"y{number}") for number in range(8)]),
        lambda store: store.save([rules.cancel(store.get("x"), NOW)]),
        lambda store: store.save([rules.retry(job, NOW) for job in store.select(["dead"])]),
        lambda store: store.remove(list(store.select(["cancelled"]))),
        lambda store: store.add(
            [new_job("child", after=("y0",), unique="k")],
            also=[rules.awaited(store.get("y0"), NOW, 1)],
        ),
        lambda store: store.remove([store.get("y0")], [rules.cancel(store.get("child"), NOW)]),
    ):
        story.do(lambda act=act: act(story.open()))


def configure(story: Story) -> None:
    store = story.open()
    for number in range(3):
        story.do(lambda number=number: store.configure({"max_retries": str(number)}), SETTINGS)


def work(story: Story) -> None:
    """A worker does not wait for the disk; who tends the store does, and so does its end."""
    store, supervisor = story.open(), story.open()
    running: List[Job] = []
    story.do(lambda: running.append(claim_one(store)), "")
    story.do(lambda: running.append(claim_one(store, done=rules.complete(running[0], NOW))), "")
    story.do(supervisor.tend)
    failed = rules.fail(running[1], NOW, "Exit code 1", 1, 1)
    story.do(lambda: store.save([failed], durable=False), "")
    story.do(lambda: claim_one(store, NOW + 2), "")
    story.do(supervisor.sync)


def join(story: Story) -> None:
    """What shows that a worker is there is never synced: its job is found without."""
    store, worker = story.open(), Member("w9", "worker", "Worker-9", 1, "host", "", "s9")
    store.enroll(worker)
    story.do(lambda: claim_one(store, worker="w9"), "")
    store.note(worker._replace(job="c", run=1))
    story.do(store.sync)


def rewrite(story: Story) -> None:
    """While the job file is rewritten, others enqueue."""
    store, other = story.open(), story.open()
    story.at_next_sync("jobs.jsonl.new", lambda: story.do(lambda: other.add([new_job("x" * 30)])))
    assert store.rewrite()
    story.do(lambda: claim_one(other), "")
    story.do(lambda: other.add([new_job("y")]))
    assert store.rewrite()
    story.do(lambda: other.add([new_job("z")]))


def rewrite_and_die(story: Story) -> None:
    """Whoever is told of a job in the new file sees to it that the disk holds its name."""
    store, other = story.open(), story.open()
    story.do(lambda: add(other, "x"))
    story.at_next_sync("jobs.jsonl.new", lambda: story.at_next_sync("", die))
    with pytest.raises(Died):
        store.rewrite()
    story.do(lambda: add(other, "y"))
    story.do(lambda: add(story.open(), "z"))


def after_a_reboot(disk: Disk) -> None:
    """The power was lost before: there are holes in what a worker wrote, and half a line."""
    some_jobs(disk)
    claim_one(disk.open())
    size = disk.jobs.stat().st_size
    zero(disk, size - 200, size - 100)
    with disk.jobs.open("ab") as file:
        file.write(b'{"id":"half')


def recover(story: Story) -> None:
    """The power is lost again while the first writer mends what the first loss left."""
    story.do(lambda: add(story.open(), "x"))
    story.do(lambda: claim_one(story.open()), "")
    story.do(lambda: add(story.open(), "y"))


def check_needlessly(story: Story) -> None:
    """An older note was put back: who checks the file must not vouch for what is on its way."""
    story.do(lambda: claim_one(story.open()), "")
    fd = os.open(story.disk.boot, os.O_WRONLY)
    os.pwrite(fd, BEFORE.encode(), 0)
    os.close(fd)
    story.do(lambda: add(story.open(), "x"))


def fail_to_sync(story: Story) -> None:
    """The disk refuses once, and then confirms whatever it is asked."""
    store, other = story.open(), story.open()
    for job_id in ("x", "y"):
        story.fail_next_sync("jobs.jsonl")
        story.do(lambda job_id=job_id: unconfirmed(store, job_id), "")
        story.do(lambda job_id=job_id: add(other, job_id + "1"))
        story.do(lambda job_id=job_id: add(store, job_id + "2"))


def fail_to_sync_the_folder(story: Story) -> None:
    store, other = story.open(), story.open()
    assert other.rewrite()
    story.fail_next_sync("")
    story.do(lambda: unconfirmed(store, "x"), "")
    story.do(lambda: add(store, "y"))
    story.do(lambda: add(other, "z"))


def fail_to_sync_for_another(story: Story) -> None:
    """Some kernels tell who syncs what another's failed sync has dropped that all is well."""
    store, other = story.open(), story.open()

    def drop() -> None:
        story.note()
        story.fail_next_sync("jobs.jsonl")
        story.do(lambda: unconfirmed(other, "y"), "")

    story.at_next_sync("jobs.jsonl", drop)
    unconfirmed(store, "x")
    story.do(lambda: add(story.open(), "z"))


def mend_and_die(story: Story) -> None:
    store, worker = story.open(), story.open()
    story.fail_next_sync("jobs.jsonl")
    story.do(lambda: unconfirmed(store, "x"), "")
    story.at_next_sync("jobs.jsonl.copy", lambda: story.at_next_sync("", die))
    with pytest.raises(Died):
        claim_one(worker)
    story.do(lambda: claim_one(worker), "")
    story.do(lambda: add(store, "y"))


def mend_for_another(story: Story) -> None:
    """Unless somebody has copied it meanwhile: a worker, which does not wait for the disk."""
    store, other, worker = story.open(), story.open(), story.open()
    # From now on it need not sync the folder.
    story.do(lambda: add(store, "w"))

    def drop_and_mend() -> None:
        story.note()
        story.fail_next_sync("jobs.jsonl")
        story.do(lambda: unconfirmed(other, "y"), "")
        assert worker.claim("w1", NOW, HORIZON, wanted=lambda: False) is None

    story.at_next_sync("jobs.jsonl", drop_and_mend)
    add(store, "x")
    story.note(JOBS)
    story.do(lambda: add(story.open(), "z"))


def damaged_everywhere(disk: Disk) -> None:
    """In the job file, the history and the settings; and a worker died."""
    store = disk.open()
    add(store, "a", "b", "c", "d", "e", "f")
    for _ in range(3):
        run_and_complete(store)
    store.configure({"max_retries": "7"})
    assert store.rewrite()
    run_and_complete(store)
    disk.close()
    for path in (disk.jobs, disk.path / "history-1.jsonl"):
        path.write_bytes(path.read_bytes().replace(b'"command":', b'"commend":', 1))
    with (disk.path / "settings.json").open("ab") as file:
        file.write(b"}")
    (disk.path / "workers").mkdir(mode=0o700, exist_ok=True)
    worker = Member("w1", "worker", "Worker-1", 1, "host", "", "s1")
    (disk.path / "workers" / "w1.json").write_text(json.dumps(worker._asdict()))


def damaged_jobs(disk: Disk) -> None:
    """The same but for the settings, the replacing of which would make other syncs needless."""
    damaged_everywhere(disk)
    (disk.path / "settings.json").unlink()


def damaged_settings(disk: Disk) -> None:
    """Nothing else is damaged."""
    some_jobs(disk)
    (disk.path / "settings.json").write_bytes(b"{")


def repair(story: Story) -> None:
    """What is whole is kept, whenever the power is lost, and the copy is there before a change."""
    story.do(story.disk.repair)


def unconfirmed(store: FileStore, job_id: str) -> None:
    with pytest.raises(OutcomeUnknownError):
        add(store, job_id)


class Plan(NamedTuple):
    """A story, and what was there before.

    Attributes:
        tell: does it.
        prepare: makes what was there.
        boot: the boot in which that was made.
        look: makes what tells what the next boot finds.
    """

    tell: Callable[[Story], object]
    prepare: Callable[[Disk], object] = some_jobs
    boot: str = NOW_RUNNING
    look: Callable[[], Callable[[Tree], Union[Found, str]]] = lambda: look


PLANS = {
    "create": Plan(create, nothing),
    "change": Plan(change, a_dead_job),
    "configure": Plan(configure),
    "work": Plan(work),
    "join": Plan(join),
    "rewrite": Plan(rewrite),
    "rewrite with a history": Plan(rewrite, some_history),
    "rewrite after a purge": Plan(rewrite, some_purged),
    "rewrite and die": Plan(rewrite_and_die, some_history),
    "cut a tail": Plan(recover, a_tail),
    "recover": Plan(recover, after_a_reboot, BEFORE),
    "recover an unsynced file": Plan(recover, an_unsynced_file, BEFORE),
    "check needlessly": Plan(check_needlessly),
    "fail to sync": Plan(fail_to_sync),
    "fail to sync the folder": Plan(fail_to_sync_the_folder),
    "fail to sync for another": Plan(fail_to_sync_for_another),
    "mend for another": Plan(mend_for_another),
    "mend and die": Plan(mend_and_die),
    "repair": Plan(repair, damaged_everywhere, look=RepairAgain),
    "repair jobs": Plan(repair, damaged_jobs, look=RepairAgain),
    "repair settings": Plan(repair, damaged_settings, look=RepairAgain),
}


class Told(NamedTuple):
    """A story that was recorded.

    Attributes:
        recorder: has what was done to the disk.
        steps: the changes that were made, behind what was there before.
        tail: what the next boot cuts off what was there before.
        sites: the lines of the store that asked for a sync.
        look: tells what the next boot finds.
    """

    recorder: Recorder
    steps: List[Step]
    tail: bytes
    sites: Set[str]
    look: Callable[[Tree], Union[Found, str]]


@functools.lru_cache(maxsize=None)
def told(name: str) -> Told:
    return tell(PLANS[name])


def tell(plan: Plan) -> Told:
    with fast_folder() as root:
        story = Story(root, plan)
        with booted(NOW_RUNNING), story.recorder:
            plan.tell(story)
        story.disk.close()
        medium = Medium(story.recorder.start)
        for event in story.recorder.events:
            if not isinstance(event, Sync):
                medium.take(event)
        assert medium.shown() == read_tree(root)
    sites = {site for event in story.recorder.events for site in getattr(event, "sites", ())}
    tail = b"".join(story.found.torn)
    return Told(story.recorder, story.steps, tail, sites, story.look)


def first_loss(story: Told, without: Optional[str] = None) -> Optional[str]:
    """Find a state of the disk that breaks a promise, if there is one.

    Args:
        story: what was done.
        without: a line that asks for a sync, to be left out.
    """
    medium, done = Medium(story.recorder.start), 0
    promised = {JOBS: 0, SETTINGS: 0}
    seen: Set[Tree] = set()
    # Up to there nothing is left out: another test looks at that.
    begun = without is None
    for number, event in enumerate([None, *story.recorder.events]):
        begun = begun or without in getattr(event, "sites", ())
        if isinstance(event, Done):
            done += 1
            if story.steps[done].promised:
                promised[story.steps[done].promised] = done
            seen.clear()
        elif event is not None:
            medium.take(event, holds=without not in getattr(event, "sites", ()))
        for tree in medium.states() if begun else ():
            if tree not in seen:
                seen.add(tree)
                wrong = broken(story.look(tree), story, promised, done)
                if wrong is not None:
                    return f"after event {number}, {event}:\n{wrong}\n{tree}"
    return None


def broken(
    found: Union[Found, str], story: Told, promised: Dict[str, int], done: int
) -> Optional[str]:
    if isinstance(found, str):
        return found
    for what, since in promised.items():
        allowed = [getattr(step.shown, what) for step in story.steps[since : done + 2]]
        if getattr(found.shown, what) not in allowed:
            return f"the {what} are {getattr(found.shown, what)}, not one of {allowed}"
    if not any(story.tail in torn for torn in found.torn) and story.tail:
        return "the tail was not kept"
    return None


@pytest.mark.parametrize("name", PLANS)
def test_whatever_a_loss_of_power_leaves_is_opened_and_holds_what_was_promised(name: str) -> None:
    lost = first_loss(told(name))
    assert lost is None, lost


FOR_SPEED = {"rewrite._run 1"}
"""A sync before the lock is taken, so that the one under it has little to do."""


@pytest.mark.parametrize("site", sorted(all_sites() - FOR_SPEED))
def test_no_line_that_asks_for_a_sync_can_be_left_out(site: str) -> None:
    asking = [told(name) for name in PLANS if site in told(name).sites]
    # The short ones first: one is enough.
    asking.sort(key=lambda story: len(story.recorder.events))
    assert asking
    assert any(first_loss(story, site) for story in asking)


def test_without_the_mark_a_lost_commit_would_look_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "mark_unsynced", lambda folder: None)
    assert first_loss(tell(PLANS["fail to sync"])) is not None


class TestModel:
    """What the model takes to be possible."""

    def left(self, start: bytes, act: Callable[[Recorder, Path], object]) -> Set[Optional[bytes]]:
        """What may be left of the file `a` of a folder, after something was done; or nothing."""
        with fast_folder() as root:
            (root / "a").write_bytes(start)
            with Recorder(root) as recorder:
                act(recorder, root)
            medium = Medium(recorder.start)
            for event in recorder.events:
                medium.take(event)
            return {dict(tree).get("a") for tree in medium.states()}

    def write(self, path: Path, offset: int, data: bytes, sync: bool = False) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(fd, data, offset)
        try:
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def test_what_was_added_may_be_cut_and_zeroed_in_part(self) -> None:
        new = b"b" * 1024
        left = self.left(b"a", lambda recorder, root: self.write(root / "a", 1, new))
        zeros, rest = b"\0" * 511, b"b" * 511
        assert {b"a", b"a" + new, b"ab", b"a" + new[:512], b"a" + new[:-1]} < left
        assert {b"a" + b"\0" * 1024, b"a" + rest + b"\0" * 513, b"a" + zeros + b"b" * 513} < left
        assert self.left(
            b"a", lambda recorder, root: self.write(root / "a", 1, new, sync=True)
        ) == {b"a" + new}

    def test_a_sector_that_was_there_is_old_or_new(self) -> None:
        start, new = b"a" * 1024, b"b" * 1024
        left = self.left(start, lambda recorder, root: self.write(root / "a", 0, new))
        halves = {start[:512] + new[512:], new[:512] + start[512:]}
        assert left == {start, new, *halves}

    def test_a_name_is_there_once_the_folder_was_synced(self) -> None:
        def replace(recorder: Recorder, root: Path) -> None:
            self.write(root / "b", 0, b"b", sync=True)
            os.rename(root / "b", root / "a")

        def replace_for_good(recorder: Recorder, root: Path) -> None:
            replace(recorder, root)
            sync_folder(str(root))

        assert self.left(b"a", replace) == {b"a", b"b"}
        assert self.left(b"a", replace_for_good) == {b"b"}

    def test_a_change_of_names_may_be_lost_alone(self) -> None:
        def move(recorder: Recorder, root: Path) -> None:
            os.rename(root / "a", root / "b")
            self.write(root / "a", 0, b"c", sync=True)

        assert self.left(b"a", move) == {b"a", None, b"c"}

    def test_what_a_failed_sync_dropped_no_later_one_brings_back(self) -> None:
        def fail(recorder: Recorder, root: Path) -> None:
            recorder.at_next_sync("a", refuse)
            with pytest.raises(OSError, match="Input/output error"):
                self.write(root / "a", 1, b"b", sync=True)
            self.write(root / "a", 2, b"c", sync=True)

        assert self.left(b"a", fail) == {b"a\0c"}
