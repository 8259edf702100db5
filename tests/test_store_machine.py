"""A random walk that holds each store against the reference in memory.

Two handles of one store act in turn, as two processes would, each with its own view of what is
kept; after every step both, and a third that was just opened, must show exactly what the reference
shows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import RequestError, WrongStateError
from queuectl.job import Job, JobState
from queuectl.queues import QueueRule, rule_changes
from queuectl.store.base import Store
from queuectl.store.file import FileStore
from queuectl.store.journal import Journal
from queuectl.store.opening import open_store
from queuectl.testing import MemoryStore
from servers import new_store

START = 1_762_707_697.0
HORIZON = 100.0
# Where the disk is not waited for, if there is such a place: this is about what is kept.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

IDS = st.sampled_from([f"job{number}" for number in range(8)])
QUEUES = ("default", "q", "r")
# Mostly nothing of it, as most jobs are.
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from([0, 0, 5, -5]),
        "queue": st.sampled_from(QUEUES),
        "unique": st.sampled_from(["k", "K"]),
        "backoff_max": st.sampled_from([0.5, 1000.0]),
        "labels": st.just(("a", "b")),
    },
)
PLACES = st.fixed_dictionaries(
    {"priority": st.sampled_from([0, 5]), "queue": st.sampled_from(QUEUES)}
)
SERVED = st.none() | st.none() | st.lists(st.sampled_from(QUEUES), max_size=2)
RULES = st.builds(QueueRule, st.sampled_from([None, 1, 2]), st.sampled_from([False, False, True]))
WHO = st.integers(0, 1)
PICK = st.integers(0, 63)
SECONDS = st.one_of(
    st.sampled_from([0.0, 0.001, 1.0, 99.0]), st.integers(0, 90_000).map(lambda n: n / 1000)
)
EVENTS = st.sampled_from(["complete", "fail", "rescue", "release", "cancel", "retry"])


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(dir=FAST)
        self.begin_store()
        self.model = MemoryStore(self.folder)
        self.stores = [self.open(), self.open()]
        self.now = START
        # Every version of every job that somebody has seen.
        self.seen: List[Job] = []

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        try:
            self.verify()
        finally:
            shutil.rmtree(self.folder)

    def begin_store(self) -> None:
        """Choose where the store will be."""
        raise NotImplementedError

    def open(self) -> Store:
        """Open the store once more."""
        raise NotImplementedError

    def verify(self) -> None:
        """Look at what is left of the store in the end."""

    @initialize(number=st.integers(0, 5))
    def begin(self, number: int) -> None:
        self.both(0, lambda store: store.add([self.new(f"first{each}") for each in range(number)]))

    @rule(
        who=WHO,
        job_ids=st.lists(IDS, min_size=1, max_size=3),
        delay=st.none() | SECONDS,
        options=OPTIONS,
    )
    def add(
        self, who: int, job_ids: List[str], delay: Optional[float], options: Dict[str, Any]
    ) -> None:
        run_at = None if delay is None else self.now + delay
        jobs = [self.new(job_id, run_at, **options) for job_id in job_ids]
        self.saw(self.both(who, lambda store: store.add(jobs, job_ids)) or [])

    @rule(
        who=WHO,
        picks=st.lists(PICK, min_size=1, max_size=2, unique=True),
        number=st.integers(1, 2),
        any_end=st.booleans(),
        stale=st.booleans(),
        options=OPTIONS,
    )
    def add_children(
        self,
        who: int,
        picks: List[int],
        number: int,
        any_end: bool,
        stale: bool,
        options: Dict[str, Any],
    ) -> None:
        """Jobs that wait for the same others; of two the first waits for the second too."""
        jobs = self.seen if stale else self.jobs()
        parents = {jobs[pick % len(jobs)].id: jobs[pick % len(jobs)] for pick in picks if jobs}
        ids = [f"child{len(self.seen)}-{each}" for each in range(number)]
        names = {"after_any" if any_end else "after": tuple(parents)}
        children = [self.new(job_id, None, **{**options, **names}) for job_id in ids]
        if number == 2:
            names = {"after": (*children[0].after, ids[1]), "after_any": children[0].after_any}
            children[0] = replace(children[0], **names)
            children[1] = replace(children[1], dependents=1, unique=None)
        also = [
            rules.awaited(job, self.now, number)
            for job in parents.values()
            if job.state != JobState.COMPLETED
        ]
        self.saw(self.both(who, lambda store: store.add(children, [], also)) or [])
        self.saw([job for job in also if self.model.get(job.id) == job])

    @rule(who=WHO, pick=PICK, options=OPTIONS)
    def replace_one(self, who: int, pick: int, options: Dict[str, Any]) -> None:
        """A new job takes the place of one that waits, and maybe its key."""
        waiting = [job for job in self.jobs() if job.waits]
        if waiting:
            old = waiting[pick % len(waiting)]
            new = self.new(f"child{len(self.seen)}", None, **{"unique": old.unique, **options})
            also = [rules.cancel(old, self.now, "replaced")]
            self.saw(self.both(who, lambda store: store.add([new], [], also)) or [])

    @rule(who=WHO, pick=PICK, changes=PLACES, delay=st.none() | SECONDS)
    def edit(self, who: int, pick: int, changes: Dict[str, Any], delay: Optional[float]) -> None:
        jobs = [job for job in self.jobs() if job.waits or job.state == JobState.DEAD]
        if jobs:
            job = jobs[pick % len(jobs)]
            run_at = self.now + delay if delay is not None and job.waits else None
            edited = rules.edit(job, self.now, run_at, **changes)
            self.both(who, lambda store: store.save([edited]))
            self.saw([edited])

    @rule(who=WHO, queue=st.sampled_from(QUEUES), new=RULES)
    def set_rule(self, who: int, queue: str, new: QueueRule) -> None:
        self.both(who, lambda store: store.configure(rule_changes(queue, new._asdict())))

    @rule(who=WHO, queues=SERVED)
    def claim(self, who: int, queues: Optional[List[str]]) -> None:
        self.claim_with(who, None, queues)

    @precondition(lambda self: any(job.state == JobState.PROCESSING for job in self.seen))
    @rule(who=WHO, pick=PICK, event=EVENTS, delay=SECONDS, fresh=st.booleans())
    def claim_when_done(self, who: int, pick: int, event: str, delay: float, fresh: bool) -> None:
        running = [job for job in self.seen if job.state == JobState.PROCESSING]
        job: Optional[Job] = running[-1 - pick % len(running)]
        if fresh and job is not None:
            job = self.model.get(job.id)
        if job is not None and job.state == JobState.PROCESSING:
            done = self.changed(job, event, delay)
            if done is not None and done.state != JobState.PROCESSING:
                self.claim_with(who, done)

    @precondition(lambda self: self.seen)
    @rule(who=WHO, picks=st.lists(PICK, min_size=1, max_size=3), event=EVENTS, delay=SECONDS)
    def save_what_was_seen(self, who: int, picks: List[int], event: str, delay: float) -> None:
        picked = [self.seen[-1 - pick % len(self.seen)] for pick in picks]
        self.save(who, picked, event, delay)

    @rule(who=WHO, picks=st.lists(PICK, min_size=1, max_size=3), event=EVENTS, delay=SECONDS)
    def save_what_is(self, who: int, picks: List[int], event: str, delay: float) -> None:
        self.save(who, self.pick(picks), event, delay)

    @rule(who=WHO, picks=st.lists(PICK, min_size=1, max_size=3), stale=st.booleans())
    def remove(self, who: int, picks: List[int], stale: bool) -> None:
        jobs = (
            [self.seen[-1 - pick % len(self.seen)] for pick in picks]
            if stale and self.seen
            else self.pick(picks)
        )
        self.both(who, lambda store: store.remove(jobs))

    @rule(who=WHO, pick=PICK)
    def remove_a_parent(self, who: int, pick: int) -> None:
        """Together with it, those that wait for it are ended."""
        jobs = [job for job in self.jobs() if job.dependents]
        if jobs:
            parent = jobs[pick % len(jobs)]
            children = [job for job in self.model.children([parent]) if job.id != parent.id]
            ended = [rules.cancel(job, self.now, "purged") for job in children]
            self.both(who, lambda store: store.remove([parent], ended))
            self.saw(ended)

    @rule(who=WHO)
    def rewrite(self, who: int) -> None:
        self.stores[who].rewrite()

    @rule(who=WHO)
    def reopen(self, who: int) -> None:
        self.stores[who].close()
        self.stores[who] = self.open()

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now = clock.from_iso(clock.to_iso(self.now + seconds))

    @rule(seconds=st.one_of(SECONDS, st.sampled_from([100.0, 100.001, 1000.0])))
    def clock_steps_back(self, seconds: float) -> None:
        self.now = clock.from_iso(clock.to_iso(self.now - seconds))

    @precondition(lambda self: self.model.next_due() is not None)
    @rule(early=st.booleans())
    def time_passes_until_something_is_due(self, early: bool) -> None:
        dues = [job.run_at for job in self.jobs() if job.waits and job.run_at is not None]
        self.now = clock.from_iso(clock.to_iso(clock.from_iso(min(dues)) - early * 0.001))

    @invariant()
    def all_show_the_same(self) -> None:
        fresh = self.open()
        try:
            for store in (*self.stores, fresh):
                self.shows_the_same(store)
        finally:
            fresh.close()

    def shows_the_same(self, store: Store) -> None:
        jobs = self.jobs()
        assert list(store.select(JobState.ALL)) == jobs
        assert store.counts() == self.model.counts()
        assert sorted(store.find("job", 99)) == sorted(self.model.find("job", 99))
        for job_id in {job.id for job in self.seen[-8:]} | {"job0", "absent"}:
            assert store.get(job_id) == self.model.get(job_id)
        for queues in (None, ["default"], ["q", "r"]):
            asked = (self.now, HORIZON, queues)
            assert store.claimable(*asked) == self.model.claimable(*asked)
            assert store.awaits_retry(queues) == self.model.awaits_retry(queues)
        assert store.running() == self.model.running()
        assert store.tally() == self.model.tally()
        assert store.children(jobs) == self.model.children(jobs)
        for key in ("k", "K"):
            assert store.holder(key) == self.model.holder(key)
        for state in (JobState.DEAD, JobState.COMPLETED):
            assert list(store.select([state], 2)) == list(self.model.select([state], 2))

    def claim_with(self, who: int, done: Optional[Job], queues: Optional[List[str]] = None) -> None:
        claimed = self.both(
            who, lambda store: store.claim("w1", self.now, HORIZON, done, queues=queues)
        )
        if claimed is not None:
            self.saw([claimed])
        if done is None and claimed is None:
            assert self.stores[who].next_due(queues) == self.model.next_due(queues)

    def save(self, who: int, jobs: List[Job], event: str, delay: float) -> None:
        changed = [self.changed(job, event, delay) for job in jobs]
        saved = [job for job in changed if job is not None]
        self.both(who, lambda store: store.save(saved))
        self.saw([job for job in saved if self.model.get(job.id) == job])

    def both(self, who: int, act: Callable[[Store], Any]) -> Any:
        """Do the same to the store and the reference; both must answer or refuse alike."""
        ours, theirs = _outcome(act, self.stores[who]), _outcome(act, self.model)
        assert ours == theirs
        return ours[0]

    def changed(self, job: Job, event: str, delay: float) -> Optional[Job]:
        """The job after an event, or nothing where the rules do not allow it."""
        try:
            if event == "fail":
                return rules.fail(job, self.now, "Exit code 1", delay, 1)
            if event == "rescue":
                return rules.rescue(job, self.now, delay)
            changed: Job = getattr(rules, event)(job, self.now)
            return changed
        except WrongStateError:
            return None

    def new(self, job_id: str, run_at: Optional[float] = None, **options: Any) -> Job:
        if "backoff_max" in options:
            options["backoff_base"] = 2.0
        return rules.enqueue(
            job_id, f"echo {job_id}", self.now, max_retries=3, run_at=run_at, **options
        )

    def saw(self, jobs: List[Job]) -> None:
        self.seen.extend(jobs)

    def pick(self, picks: List[int]) -> List[Job]:
        jobs = self.jobs()
        return [jobs[pick % len(jobs)] for pick in picks] if jobs else []

    def jobs(self) -> List[Job]:
        return list(self.model.select(JobState.ALL))


def _outcome(act: Callable[[Store], Any], store: Store) -> Tuple[Any, Optional[Type[RequestError]]]:
    try:
        return act(store), None
    except RequestError as error:
        return None, type(error)


class FileMachine(StoreMachine):
    def begin_store(self) -> None:
        self.path = os.path.join(self.folder, "queuectl_data")

    def open(self) -> Store:
        return FileStore(self.path)

    def verify(self) -> None:
        """Every byte of the job file is as it was written."""
        journal = Journal(os.path.join(self.path, "jobs.jsonl"))
        good = journal.last_good()
        assert good is not None
        assert good.end == os.path.getsize(journal.path)
        assert good.meta["seq"] == self.model._shared.last_seq
        journal.close()


class RedisMachine(StoreMachine):
    server = ""

    def begin_store(self) -> None:
        self.url = new_store(self.server)

    def open(self) -> Store:
        return open_store(self.url, True, lambda text: None)


@pytest.fixture(scope="module")
def server_of_machine(redis_server: str) -> None:
    """Where the machine, which knows no fixtures, makes its stores."""
    RedisMachine.server = redis_server


SETTINGS = settings(
    max_examples=18,
    stateful_step_count=50,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=list(HealthCheck),
)
FileMachine.TestCase.settings = SETTINGS
# Each of its steps takes ten times as long.
RedisMachine.TestCase.settings = settings(SETTINGS, max_examples=8)
TestStoreMachine = pytest.mark.slow(pytest.mark.timeout(300)(FileMachine.TestCase))
TestRedisMachine = pytest.mark.usefixtures("server_of_machine")(
    pytest.mark.slow(pytest.mark.timeout(300)(RedisMachine.TestCase))
)
