"""A random walk through all that a queue does, held against a plain reference.

Several processes, each with a handle of its own on one file store, enqueue, claim, finish, die and
are rescued, while users pause, cancel, retry, edit and purge and the clock goes to and fro. The
reference is a list of jobs, and what README.md and docs/ say of them in the plainest words. After
each step every handle, and one that has just read the file from its start, must show the same.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queuectl import clock
from queuectl.errors import ConflictError, InvalidValueError, RequestError
from queuectl.filter import JobFilter
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.newjob import NewJob
from queuectl.store.base import Counts, Member
from queuectl.store.file import FileStore
from reference import START, WAITING, Entry, Reference, Refused

# Where the disk is not waited for, if there is such a place: this is about what is kept.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

QUEUES = ("default", "q", "r")
SERVED = st.none() | st.none() | st.lists(st.sampled_from(QUEUES), min_size=1, max_size=2)
WHO = st.integers(0, 3)
SLOT = st.integers(0, 2)
PICK = st.integers(0, 31)
PICKS = st.lists(PICK, min_size=1, max_size=3)
DELAY = st.sampled_from([-5, 0, 1, 1000, 60_000])
CODES = st.sampled_from([0, 0, 0, 1, 1, 2, 64])
PRIORITY = st.sampled_from([-10, 0, 0, 10])
# Below 3: a job of the same batch; else one that was enqueued before, the newest first.
PARENTS = st.lists(st.integers(0, 11), min_size=1, max_size=2)
POLICY = st.sampled_from([None, "skip", "error", "replace"])
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "priority": PRIORITY,
        "queue": st.sampled_from(QUEUES),
        "delay": DELAY,
        "after": PARENTS,
        "after_any": PARENTS,
        "unique": st.sampled_from(["k", "k", "K"]),
        "on_conflict": POLICY,
        "max_retries": st.sampled_from([0, 1, 2, 3]),
        "backoff_base": st.sampled_from([0.0, 0.5, 3.0]),
        "backoff_max": st.sampled_from([0.25, 2.0, 1000.0, math.inf]),
        "success_codes": st.sampled_from([(0, 1), (2,), (0, 64)]),
        "no_retry_on": st.sampled_from([(1,), (2, 64)]),
        "reuse": PICK,
    },
)
PLAIN = st.fixed_dictionaries({}, optional={"queue": st.sampled_from(QUEUES), "delay": DELAY})


class Outcome(NamedTuple):
    """How a run ends."""

    error: Optional[str] = None
    exit_code: Optional[int] = None
    interrupted: bool = False
    timed_out: bool = False
    signal: Optional[int] = None


OUTCOMES = st.one_of(
    CODES.map(lambda code: Outcome(None, code)),
    st.sampled_from(
        [
            Outcome("Timed out", None, timed_out=True),
            Outcome("Timed out", 0, timed_out=True),
            Outcome("Killed by signal 9", signal=9),
            Outcome("Interrupted", interrupted=True),
            Outcome("Cancelled", 0),
        ]
    ),
)


class Process:
    """A process of the store: a supervisor with one worker, or a user's that is neither."""

    def __init__(self, path: str, name: Optional[str], queues: Optional[List[str]]) -> None:
        self.store = FileStore(path)
        self.manager = QueueManager(self.store, {})
        self.queues = queues
        self.worker = name
        self.claimed: Optional[Job] = None
        self.entry: Optional[Entry] = None
        self.alive = True
        if name is not None:
            at = clock.to_iso(START / 1000)
            self.supervisor = Member(
                f"s{name}", "supervisor", "start", 1, "h", at, f"s{name}", queues=queues
            )
            self.store.enroll(self.supervisor)
            self.store.enroll(Member(name, "worker", name, 1, "h", at, f"s{name}"))


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(dir=FAST)
        self.path = os.path.join(self.folder, "queuectl_data")
        self.queue = Reference()
        self.clock = mock.patch.object(clock, "now", self.read_clock)
        self.clock.start()
        self.started = 0
        self.steps = 0
        self.user = Process(self.path, None, None)
        self.processes: List[Process] = []
        self.dead: List[Process] = []
        # Claims that are over, and whose results come too late.
        self.stale: List[Job] = []

    def read_clock(self) -> float:
        return self.queue.now / 1000

    def teardown(self) -> None:
        self.clock.stop()
        for process in (self.user, *self.processes):
            if process.alive:
                process.store.close()
        shutil.rmtree(self.folder)

    @initialize(queues=st.lists(SERVED, min_size=3, max_size=3), number=st.integers(0, 4))
    def begin(self, queues: List[Optional[List[str]]], number: int) -> None:
        self.processes = [self.start(each) for each in queues]
        for _ in range(number):
            self.submit(3, [{}])

    # What users do.

    @rule(who=WHO, options=REQUEST)
    def enqueue(self, who: int, options: Dict[str, Any]) -> None:
        self.submit(who, [options])

    @rule(who=WHO, options=PLAIN, pick=st.integers(3, 11), any_end=st.booleans())
    def enqueue_child(self, who: int, options: Dict[str, Any], pick: int, any_end: bool) -> None:
        self.submit(who, [{**options, "after_any" if any_end else "after": [pick]}])

    @rule(who=WHO, key=st.sampled_from(["k", "K"]), policy=POLICY, options=PLAIN)
    def enqueue_unique(
        self, who: int, key: str, policy: Optional[str], options: Dict[str, Any]
    ) -> None:
        self.submit(who, [{**options, "unique": key, "on_conflict": policy}])

    @rule(who=WHO, batch=st.lists(REQUEST, min_size=2, max_size=3))
    def enqueue_many(self, who: int, batch: List[Dict[str, Any]]) -> None:
        self.submit(who, batch)

    @rule(who=WHO, kinds=st.lists(st.sampled_from(["after", "after_any"]), min_size=2, max_size=3))
    def enqueue_family(self, who: int, kinds: List[str]) -> None:
        """Each is to follow the one before; the first runs soon, and once."""
        children = [{kind: [number]} for number, kind in enumerate(kinds)]
        self.submit(who, [{"priority": 10, "max_retries": 1}, *children])

    @rule(who=WHO, slot=SLOT, queue=st.sampled_from(QUEUES))
    def fill_queue(self, who: int, slot: int, queue: str) -> None:
        """So many run as may, and one more waits."""
        self.limit_queue(who, queue, 1)
        self.submit(who, [{"priority": 10, "queue": queue}] * 2)
        self.claim(slot)

    @rule(who=WHO, queue=st.sampled_from(QUEUES), paused=st.booleans())
    def pause_or_resume(self, who: int, queue: str, paused: bool) -> None:
        self.manager(who).set_queue(queue, paused=paused)
        (self.queue.paused.add if paused else self.queue.paused.discard)(queue)

    @rule(who=WHO, queue=st.sampled_from(QUEUES), limit=st.sampled_from([None, 1, 1, 2]))
    def limit_queue(self, who: int, queue: str, limit: Optional[int]) -> None:
        self.manager(who).set_queue(queue, concurrency=limit)
        self.queue.limits.pop(queue, None)
        if limit is not None:
            self.queue.limits[queue] = limit

    @rule(
        who=WHO,
        base=st.sampled_from([0.0, 0.5, 2.0]),
        longest=st.sampled_from([0.5, 2.0, 3600.0]),
    )
    def set_backoff(self, who: int, base: float, longest: float) -> None:
        manager = self.manager(who)
        manager.configure("backoff_base", str(base))
        manager.configure("backoff_max", str(longest))
        self.queue.base, self.queue.longest = base, longest

    @rule(who=WHO, picks=PICKS)
    def cancel(self, who: int, picks: List[int]) -> None:
        ids = self.ids(picks)
        done = self.attempt(lambda: self.manager(who).cancel(ids))
        meant = self.named(ids)
        if meant is None or any(entry.is_over for entry in meant):
            assert done is None
            return
        self.cancelled(done, meant)

    @rule(who=WHO, slot=SLOT, ends=st.booleans())
    def cancel_what_runs(self, who: int, slot: int, ends: bool) -> None:
        self.claim(slot)
        claimed = self.processes[slot].claimed
        if claimed is not None:
            self.cancel(who, [len(self.queue.entries) - claimed.seq])
            if ends:
                self.finish(slot, Outcome("Cancelled"), False, True)

    @rule(who=WHO, queue=st.sampled_from(QUEUES))
    def cancel_queue(self, who: int, queue: str) -> None:
        meant = [each for each in self.queue.there() if each.queue == queue and not each.is_over]
        self.cancelled(self.manager(who).cancel_all(JobFilter(queue=queue)), meant)

    @rule(who=WHO, picks=PICKS, of_dlq=st.booleans())
    def retry(self, who: int, picks: List[int], of_dlq: bool) -> None:
        ids = self.ids(picks)
        manager = self.manager(who)
        done = self.attempt(lambda: (manager.retry_dead if of_dlq else manager.retry)(ids))
        meant = self.named(ids)
        states = ["dead"] if of_dlq else ["failed", "dead", "cancelled"]
        if meant is None or any(entry.state not in states for entry in meant):
            assert done is None
            return
        keys = [entry.key for entry in self.queue.there() if not entry.is_over or entry in meant]
        if any(entry.is_over and keys.count(entry.key) > 1 for entry in meant if entry.key):
            assert done is None
            return
        assert [job.id for job in done] == [entry.id for entry in meant]
        self.queue.retried(meant)

    @rule(who=WHO, states=st.sampled_from([["dead"], ["cancelled"], ["failed", "dead"]]))
    def retry_all(self, who: int, states: List[str]) -> None:
        meant = [entry for entry in self.queue.there() if entry.state in states]
        taken = {entry.key for entry in self.queue.there() if not entry.is_over}
        done = self.manager(who).retry_all(JobFilter(states))
        retried = [self.queue.entries[job.seq - 1] for job in done.jobs]
        begun = [entry.key for entry in retried if entry.is_over and entry.key]
        assert len(begun) == len(set(begun))
        assert taken.isdisjoint(begun)
        refused = [entry for entry in meant if entry not in retried]
        assert {entry.id for entry in refused} == set(done.refused)
        assert {entry.key for entry in refused} <= {*taken, *begun} - {None}
        self.queue.retried(retried)

    @rule(
        who=WHO,
        pick=PICK,
        values=st.fixed_dictionaries(
            {},
            optional={
                "command": st.just("echo edited"),
                "priority": PRIORITY,
                "queue": st.sampled_from(QUEUES),
                "max_retries": st.sampled_from([0, 1, 2, 5]),
                "delay": DELAY,
            },
        ),
    )
    def edit(self, who: int, pick: int, values: Dict[str, Any]) -> None:
        ids, values = self.ids([pick]), dict(values)
        delay = values.pop("delay", None)
        run_at = {} if delay is None else {"run_at": (self.queue.now + delay) / 1000}
        done = self.attempt(lambda: self.manager(who).edit(ids[0], **values, **run_at))
        meant = self.named(ids)
        if meant is None or not (meant[0].waits or (meant[0].state == "dead" and not run_at)):
            assert done is None
            return
        (entry,) = meant
        if entry.waits and max(values.get("max_retries", 9), 1) <= entry.attempts:
            assert done is None
            return
        assert done is not None
        vars(entry).update(values)
        if delay is not None:
            entry.state = "pending"
            entry.run_at = self.queue.now + delay if delay > 0 else None

    @rule(
        who=WHO,
        states=st.sampled_from([JobState.ALL, ("completed",), ("cancelled",), ("dead",)]),
        queue=st.none() | st.sampled_from(QUEUES),
    )
    def purge(self, who: int, states: Sequence[str], queue: Optional[str]) -> None:
        meant = [
            entry
            for entry in self.queue.there()
            if entry.is_over and entry.state in states and queue in (None, entry.queue)
        ]
        done = self.manager(who).purge(JobFilter(states, queue))
        assert {job.id for job in done.jobs} == {entry.id for entry in meant}
        self.purged(done, meant)

    @rule(who=WHO, picks=PICKS)
    def purge_dead(self, who: int, picks: List[int]) -> None:
        ids = self.ids(picks)
        done = self.attempt(lambda: self.manager(who).purge_dead(ids))
        meant = self.named(ids)
        if meant is None or any(entry.state != "dead" for entry in meant):
            assert done is None
            return
        self.purged(done, meant)

    # What workers do.

    @rule(slot=SLOT)
    def claim(self, slot: int) -> None:
        process = self.processes[slot]
        if process.alive and process.claimed is None:
            self.claim_next(process)

    @rule(slot=SLOT, outcome=OUTCOMES, claims=st.booleans(), fresh=st.booleans())
    def finish(self, slot: int, outcome: Outcome, claims: bool, fresh: bool) -> None:
        process = self.processes[slot]
        if process.alive and process.claimed is not None:
            self.end_run(process, outcome, claims, fresh)

    @rule(slot=SLOT)
    def fail_for_good(self, slot: int) -> None:
        """Often it is one of a family."""
        self.claim(slot)
        self.finish(slot, Outcome(None, 3), False, False)

    @rule(outcome=OUTCOMES)
    def finish_all(self, outcome: Outcome) -> None:
        for slot in range(3):
            self.finish(slot, outcome, False, False)

    @rule(slot=SLOT)
    def die(self, slot: int) -> None:
        process = self.processes[slot]
        if process.alive:
            process.store.close()
            process.alive = False
            self.dead.append(process)

    @rule(slot=SLOT, queues=SERVED)
    def restart(self, slot: int, queues: Optional[List[str]]) -> None:
        """What runs is given back, unless it died."""
        process = self.processes[slot]
        if process.alive:
            process.store.note(process.supervisor._replace(stopping=True))
            self.check_reasons(self.user, [process])
            if process.claimed is not None:
                self.end_run(process, Outcome("Interrupted", interrupted=True), False, True)
            assert process.worker is not None
            for member in (process.worker, process.supervisor.id):
                process.store.leave(member)
            process.store.close()
            process.alive = False
        self.processes[slot] = self.start(queues)

    @precondition(lambda self: self.dead)
    @rule(slot=SLOT, thorough=st.booleans(), dies=st.booleans())
    def rescue(self, slot: int, thorough: bool, dies: bool) -> None:
        rescuer = self.processes[slot]
        if not rescuer.alive:
            rescuer = self.user
        found = {lost.member.id: lost for lost in rescuer.store.lost(thorough)}
        assert {str(process.worker) for process in self.dead} <= set(found)
        assert self.user.store.lost() == [] or rescuer is self.user
        if dies and rescuer is not self.user:
            self.die(slot)
            return
        for process in self.dead:
            lost = found[str(process.worker)]
            assert (lost.job is None) == (process.entry is None)
            rescued = rescuer.manager.rescue(lost)
            if process.entry is not None:
                assert rescued is not None
                self.queue.failed(process.entry, None)
                assert process.claimed is not None
                self.stale.append(process.claimed)
        for lost in found.values():
            rescuer.store.bury(lost)
        self.dead = []

    @precondition(lambda self: self.stale)
    @rule(who=WHO, pick=PICK, outcome=OUTCOMES)
    def come_too_late(self, who: int, pick: int, outcome: Outcome) -> None:
        """The result of a claim that is over changes nothing."""
        manager = self.manager(who)
        done = manager.conclude(self.stale[pick % len(self.stale)], **outcome._asdict())
        with pytest.raises(ConflictError):
            manager.finish(done)

    # What happens besides.

    @rule(who=WHO)
    def rewrite(self, who: int) -> None:
        self.process(who).store.rewrite()

    @rule(who=WHO)
    def reopen(self, who: int) -> None:
        self.user.store.close()
        self.user = Process(self.path, None, None)

    @rule(milliseconds=st.sampled_from([1, 250, 1000, 60_000, 10_000_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.queue.now += milliseconds

    @rule(early=st.booleans())
    def something_falls_due(self, early: bool) -> None:
        dues = [
            each.run_at for each in self.queue.there() if each.waits and each.run_at is not None
        ]
        if dues:
            self.queue.now = max(self.queue.now, min(dues) - early)

    @rule(milliseconds=st.sampled_from([1, 1000, 60_000, 10_000_000]))
    def clock_steps_back(self, milliseconds: int) -> None:
        self.queue.now -= milliseconds

    @rule(slot=SLOT)
    def all_run_that_can(self, slot: int) -> None:
        """Nobody waits for ever: only those behind a job that was given up are left."""
        for name in QUEUES:
            self.user.manager.set_queue(name, paused=False, concurrency=None)
        self.queue.paused, self.queue.limits = set(), {}
        if self.dead:
            self.rescue(slot, False, False)
        self.restart(slot, None)
        for other in range(3):
            self.finish(other, Outcome(None, 0), False, False)
        process = self.processes[slot]
        for _ in range(99):
            if process.claimed is not None:
                codes = process.entry.success_codes if process.entry is not None else ()
                self.end_run(process, Outcome(None, min(codes)), True, False)
            elif not self.claim_next(process):
                due = process.store.next_due()
                if due is None:
                    break
                self.queue.now = max(self.queue.now, math.ceil(due * 1000))
        assert process.manager.is_drained()
        for job in process.store.select(WAITING):
            blockers = self.queue.entries[job.seq - 1].blockers()
            assert any(parent.state in (*WAITING, "dead", "cancelled") for _, parent in blockers)
        assert not any(entry.waits and not entry.blockers() for entry in self.queue.there())

    # What must be so.

    @invariant()
    def all_show_the_same(self) -> None:
        self.steps += 1
        fresh = Process(self.path, None, None)
        living = [process for process in self.processes if process.alive]
        try:
            for process in (self.user, *living, fresh):
                self.check(process)
            self.check_reasons([self.user, *living, fresh][self.steps % (len(living) + 2)])
        finally:
            fresh.store.close()
        keys = [entry.key for entry in self.queue.there() if entry.key and not entry.is_over]
        assert len(keys) == len(set(keys))

    def check(self, process: Process) -> None:
        store, manager, there = process.store, process.manager, self.queue.there()
        assert [_shown(job) for job in store.dump()[1]] == [
            (self.queue.entries.index(entry) + 1, *_wanted(entry)) for entry in there
        ]
        assert manager.counts() == _counts(there)
        assert store.tally() == {
            queue: _counts([entry for entry in there if entry.queue == queue])
            for queue in {entry.queue for entry in there}
        }
        running = {queue: self.queue.running(queue) for queue in QUEUES}
        assert {"default": 0, **{q: n for q, n in store.running().items() if n}} == {
            "default": 0,
            **{q: n for q, n in running.items() if n},
        }
        waiting = [entry for entry in there if entry.waits]
        assert store.bound() == sum(bool(entry.parents) for entry in waiting)
        assert manager.blocked() == sum(bool(entry.blockers()) for entry in waiting)
        assert manager.scheduled(store.counts()) == sum(
            entry.state == "pending" and (entry.run_at or 0) > self.queue.now for entry in there
        )
        for key in ("k", "K"):
            holder = store.holder(key)
            held = [each.id for each in there if each.key == key and not each.is_over]
            assert [holder.id] == held if holder is not None else not held
        for queues in (None, process.queues, ["q", "r"]):
            claimable = bool(self.queue.claimable(queues))
            now = self.queue.now / 1000
            assert store.claimable(now, self.queue.longest, queues) == claimable
            assert manager.is_drained(queues) == self.queue.is_drained(queues)

    def check_reasons(self, process: Process, stopping: Sequence[Process] = ()) -> None:
        """Each reason is told for which a job waits, and no other."""
        serving = [each for each in self.processes if each.alive and each not in stopping]
        for entry in self.queue.there():
            job = process.store.get(entry.id)
            assert job is not None
            told = [(reason.kind, reason.what) for reason in process.manager.waiting_for(job)]
            wanted: List[Tuple[str, str]] = []
            if entry.waits:
                wanted += [(kind, parent.id) for kind, parent in entry.blockers()]
                if not self.queue.is_due(entry) and entry.run_at is not None:
                    at = clock.to_iso(entry.run_at / 1000)
                    wanted.append(("retry" if entry.state == "failed" else "scheduled", at))
                if entry.queue in self.queue.paused:
                    wanted.append(("paused", entry.queue))
                elif self.queue.is_full(entry.queue):
                    wanted.append(("full", entry.queue))
                if not serving:
                    wanted.append(("no_worker", ""))
                elif not any(p.queues is None or entry.queue in p.queues for p in serving):
                    wanted.append(("unserved", entry.queue))
            assert sorted(told) == sorted(wanted)

    # The reference.

    def cancelled(self, done: Any, meant: List[Entry]) -> None:
        ended = [entry for entry in meant if entry.waits]
        for entry in meant:
            if entry.waits:
                entry.end("cancelled")
            else:
                entry.cancel_requested = True
        followers = self.queue.give_up(ended)
        assert done is not None
        assert [job.id for job in done.jobs] == [entry.id for entry in meant] or len(meant) > 1
        assert {job.id for job in done.followers} == {entry.id for entry in followers}

    def purged(self, done: Any, meant: List[Entry]) -> None:
        followers = self.queue.give_up([entry for entry in meant if entry.state != "completed"])
        for entry in meant:
            entry.purged = True
        assert done is not None
        assert {job.id for job in done.followers} == {entry.id for entry in followers}

    # How each is done.

    def start(self, queues: Optional[List[str]]) -> Process:
        self.started += 1
        return Process(self.path, f"w{self.started}", queues)

    def process(self, who: int) -> Process:
        process = self.processes[who] if who < len(self.processes) else self.user
        return process if process.alive else self.user

    def manager(self, who: int) -> QueueManager:
        return self.process(who).manager

    @staticmethod
    def attempt(act: Callable[[], Any]) -> Any:
        """What comes of it; nothing if it is refused."""
        try:
            return act()
        except (RequestError, InvalidValueError):
            return None

    def ids(self, picks: Sequence[int]) -> List[str]:
        """The ids of some jobs, the newest first; maybe of such that are purged."""
        if not self.queue.entries:
            return ["none"]
        return [self.queue.entries[-1 - pick % len(self.queue.entries)].id for pick in picks]

    def named(self, ids: Sequence[str]) -> Optional[List[Entry]]:
        """The jobs of these ids, each once; nothing if one is missing."""
        found = [self.queue.of(job_id) for job_id in dict.fromkeys(ids)]
        present = [entry for entry in found if entry is not None]
        return present if len(present) == len(found) else None

    def submit(self, who: int, batch: List[Dict[str, Any]]) -> None:
        requests = self.requests(batch)
        receipt = self.attempt(lambda: self.manager(who).submit(requests))
        before = self.queue.there()
        try:
            jobs = self.queue.admitted(requests)
        except Refused:
            assert receipt is None
            return
        assert receipt is not None
        assert [job.id for job in receipt.jobs] == [entry.id for entry in jobs]
        assert receipt.known == {entry.id for entry in jobs if entry in before}

    def requests(self, batch: List[Dict[str, Any]]) -> List[NewJob]:
        first = len(self.queue.entries) + 1
        ids = []
        for number, options in enumerate(batch):
            reused = self.ids([options["reuse"]])[0] if "reuse" in options else "none"
            ids.append(f"j{first + number}" if reused == "none" else reused)

        def name(pick: int) -> str:
            if pick < len(batch):
                return ids[pick]
            return self.ids([pick - 3])[0]

        requests = []
        for job_id, options in zip(ids, batch):
            values = {k: v for k, v in options.items() if k not in ("reuse", "delay")}
            for kind in ("after", "after_any"):
                values[kind] = [name(pick) for pick in options.get(kind, ())]
            if "delay" in options:
                values["run_at"] = (self.queue.now + options["delay"]) / 1000
            requests.append(NewJob(f"echo {job_id}", id=job_id, cwd="/", **values))
        return requests

    def claim_next(self, process: Process, done: Optional[Job] = None) -> bool:
        """Claim as the worker of a process; tell whether there was a job."""
        assert process.worker is not None
        but = self.queue.entries[done.seq - 1] if done is not None else None
        job = process.manager.claim(process.worker, done, queues=process.queues)
        if done is not None:
            self.ended(process)
        wanted = [entry for entry in self.queue.claimable(process.queues) if entry is not but]
        process.claimed = job
        process.entry = None
        assert (None if job is None else job.id) == next((each.id for each in wanted), None)
        if job is None:
            if but is None:
                self.check_next_due(process)
            return False
        process.entry = wanted[0]
        process.entry.state = "processing"
        process.entry.worker = process.worker
        process.entry.run_at = None
        process.entry.attempts += 1
        process.entry.runs += 1
        return True

    def check_next_due(self, process: Process) -> None:
        """Who finds nothing sleeps until then: it must not be too late."""
        dues = [
            entry.run_at
            for entry in self.queue.there()
            if entry.waits and entry.run_at is not None and not entry.blockers()
            if process.queues is None or entry.queue in process.queues
            if entry.queue not in self.queue.paused and not self.queue.is_full(entry.queue)
        ]
        due = process.store.next_due(process.queues)
        assert (due is None and not dues) or round((due or 0) * 1000) == min(dues)

    def end_run(self, process: Process, outcome: Outcome, claims: bool, fresh: bool) -> None:
        assert process.claimed is not None
        assert process.entry is not None
        current = process.store.current(process.claimed)
        assert current is not None
        assert current.cancel_requested == process.entry.cancel_requested
        job = current if fresh else process.claimed
        self.outcome = outcome
        while True:
            done = process.manager.conclude(job, **outcome._asdict())
            try:
                if claims:
                    self.claim_next(process, done)
                else:
                    process.manager.finish(done)
                    self.ended(process)
                    process.claimed = process.entry = None
            except ConflictError:
                # It was changed meanwhile, as by a cancel.
                assert job != current
                job = current
            else:
                return

    def ended(self, process: Process) -> None:
        """Take in what the outcome of a run means."""
        entry, outcome = process.entry, self.outcome
        assert entry is not None
        assert process.claimed is not None
        self.stale.append(process.claimed)
        self.queue.ended(entry, **outcome._asdict())


def _shown(job: Job) -> Tuple[Any, ...]:
    return (
        job.seq,
        job.id,
        job.command,
        job.priority,
        job.queue,
        None if job.run_at is None else round(clock.from_iso(job.run_at) * 1000),
        job.unique,
        job.max_retries,
        job.state,
        job.attempts,
        job.runs,
        job.interruptions,
        job.cancel_requested,
        job.worker,
    )


def _wanted(entry: Entry) -> Tuple[Any, ...]:
    return (
        entry.id,
        entry.command,
        entry.priority,
        entry.queue,
        entry.run_at,
        entry.key,
        entry.max_retries,
        entry.state,
        entry.attempts,
        entry.runs,
        entry.interruptions,
        entry.cancel_requested,
        entry.worker,
    )


def _counts(entries: List[Entry]) -> Counts:
    states = [entry.state for entry in entries]
    delayed = sum(each.state == "pending" and each.run_at is not None for each in entries)
    return Counts(delayed=delayed, **{state: states.count(state) for state in JobState.ALL})


class LongQueueMachine(QueueMachine):
    """The same, for more and longer walks."""


QueueMachine.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=40,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=list(HealthCheck),
)
LongQueueMachine.TestCase.settings = settings(
    QueueMachine.TestCase.settings, max_examples=15, stateful_step_count=50
)
TestQueueMachine = pytest.mark.timeout(300)(QueueMachine.TestCase)
TestLongQueueMachine = pytest.mark.slow(
    pytest.mark.long(pytest.mark.timeout(600)(LongQueueMachine.TestCase))
)
