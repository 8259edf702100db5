"""One order explains what many processes saw, however they got in each other's way."""

from __future__ import annotations

import pickle
import random
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from linear import Op, Recorder, check
from queuectl import job as rules
from queuectl.errors import ClaimLostError, ConflictError, DuplicateIdError, KeyTakenError
from queuectl.job import Job, JobState
from queuectl.store.file import FileStore
from queuectl.testing.common import NOW, new_job
from test_store_tools import Child, Disk

PROCESSES = 8
STEPS = 800
ENOUGH = 60  # jobs; more are only slower to look at


class Actor:
    """One process: it does what workers and users do, in any order.

    Args:
        disk: the store's folder.
        number: which process it is.
        began: when all began, in seconds of the monotonic clock.
    """

    def __init__(self, disk: Disk, number: int, began: float) -> None:
        self._store = FileStore(str(disk.path))
        self._worker = f"w{number}"
        self._began = began
        self._random = random.Random(number)
        self._record = Recorder(self._store)
        self._running: Optional[Job] = None
        self._seen: List[Job] = []
        self._rewrites = 0

    def act(self) -> Tuple[List[Op], int]:
        """Take all steps; return what was written down, and how many rewrites there were."""
        acts: Dict[Callable[[], None], int] = {
            self.enqueue: 4,
            self.work: 10,
            self.retry_dead: 2,
            self.change_what_was_seen: 2,
            self.purge: 1,
            self.list: 3,
            self.count: 3,
            self.look_closely: 1,
            self.get: 3,
            self.rewrite: 1,
        }
        for act in self._random.choices(list(acts), list(acts.values()), k=STEPS):
            act()
        self._store.close()
        return self._record.history, self._rewrites

    @property
    def now(self) -> float:
        return NOW + time.monotonic() - self._began

    def enqueue(self) -> None:
        if self._record.do("counts").total < ENOUGH:
            wanted = self._random.sample(range(2 * ENOUGH), self._random.choice([1, 1, 2]))
            options, also = self._options(), []
            others = [
                job
                for job in self._seen
                if job.state != JobState.COMPLETED and int(job.id[3:]) not in wanted
            ]
            if others and self._random.random() < 0.2:
                # It may have changed since: then nothing is added.
                parent = self._random.choice(others)
                also = [rules.awaited(parent, self.now, len(wanted))]
                options[self._random.choice(["after", "after_any"])] = (parent.id,)
            jobs = [
                rules.enqueue(f"job{number}", "true", self.now, max_retries=2, **options)
                for number in wanted
            ]
            self._record.do("add", jobs, also)

    def work(self) -> None:
        """Claim a job, or end the one that runs and maybe claim the next in the same commit."""
        done = None
        if self._running is not None:
            done = self._ended(self._running)
            if self._random.random() < 0.3:
                self._record.do("save", [done])
                self._running = None
                return
        queues = self._random.choice([None, None, None, ("q",), ("default", "r")])
        claimed = self._record.do("claim", self._worker, self.now, done, queues)
        self._running = claimed if isinstance(claimed, Job) else None

    def retry_dead(self) -> None:
        dead = self._record.do("list", [JobState.DEAD])
        if dead:
            self._record.do("save", [rules.retry(job, self.now) for job in dead])

    def change_what_was_seen(self) -> None:
        """Also what is no longer so, and the job of another's claim."""
        if self._seen:
            job = self._random.choice(self._seen)
            if job.state == JobState.PROCESSING:
                self._record.do("save", [self._ended(job)])
            elif job.waits:
                self._record.do("save", [rules.cancel(job, self.now)])

    def purge(self) -> None:
        over = self._record.do("list", [JobState.COMPLETED, JobState.CANCELLED])
        if over:
            waiting = [job for job in self._seen if job.waits][:1]
            also = [rules.cancel(job, self.now, "purged") for job in waiting]
            self._record.do("remove", self._random.sample(over, min(len(over), 20)), also)

    def list(self) -> None:
        self._seen = self._record.do("list", JobState.ALL)

    def count(self) -> None:
        self._record.do("counts")

    def look_closely(self) -> None:
        self._record.do("running")
        self._record.do("tally")
        self._record.do("holder", "k")

    def get(self) -> None:
        self._record.do("get", f"job{self._random.randrange(2 * ENOUGH)}")

    def rewrite(self) -> None:
        self._rewrites += self._store.rewrite()

    def _options(self) -> Dict[str, Any]:
        """What new jobs are made with: mostly nothing."""
        dice = self._random
        options: Dict[str, Any] = {}
        if dice.random() < 0.3:
            options.update(queue=dice.choice(["q", "r"]), priority=dice.choice([-1, 0, 1]))
        if dice.random() < 0.2:
            options["unique"] = "k"
        return options

    def _ended(self, job: Job) -> Job:
        how = self._random.random()
        if how < 0.4:
            return rules.complete(job, self.now)
        if how < 0.5:
            return rules.release(job, self.now)
        return rules.fail(job, self.now, "Exit code 1", self._random.choice([0, 0.01, 0.1]), 1)


@pytest.mark.slow
def test_one_order_explains_what_many_processes_saw(disk: Disk) -> None:
    """They add, claim, finish, fail, retry, cancel, remove, look and rewrite, all at once."""
    disk.open()
    logs = [disk.path.parent / f"log{number}" for number in range(PROCESSES)]
    began = time.monotonic()

    def act(number: int, log: Path) -> None:
        log.write_bytes(pickle.dumps(Actor(disk, number, began).act()))

    children = [Child(lambda n=n, log=log: act(n, log)) for n, log in enumerate(logs)]
    for child in children:
        child.finish()
    after = Recorder(disk.open())
    after.do("list", JobState.ALL)
    after.do("counts")
    histories, rewrites = zip(*(pickle.loads(log.read_bytes()) for log in logs))
    history = [op for ops in histories for op in ops] + after.history
    assert len(history) > 2000
    assert sum(rewrites) > 10
    check(history, disk.open()._file.tail().number, sum(rewrites))
    # Of everything that may happen something did.
    commits = [op for op in history if op.number is not None]
    assert {op.call for op in commits} == {"add", "claim", "save", "remove"}
    refused = {op.result for op in history if isinstance(op.result, type)}
    assert refused == {DuplicateIdError, ConflictError, ClaimLostError, KeyTakenError}
    disk.verify()


class TestChecker:
    """It refuses what no order explains, and nothing else."""

    @pytest.fixture
    def history(self, disk: Disk) -> List[Op]:
        """Two processes by turns, whose operations do not overlap."""
        one, two = Recorder(disk.open()), Recorder(disk.open())
        one.do("add", [new_job("a")])
        one.do("counts")
        two.do("add", [new_job("b")])
        two.do("counts")
        first = one.do("claim", "w1", NOW, None)
        second = two.do("claim", "w2", NOW, None)
        one.do("save", [rules.complete(first, NOW)])
        two.do("save", [rules.fail(second, NOW, "Exit code 1", 9, 1)])
        one.do("list", JobState.ALL)
        assert two.do("save", [rules.complete(first, NOW)]) == ClaimLostError
        assert one.do("claim", "w1", NOW, None) is None
        history = sorted([*one.history, *two.history], key=lambda op: op.begin)
        check(history, 6)
        return history

    def test_results_that_were_swapped(self, history: List[Op]) -> None:
        for i, j in ((0, 2), (1, 3), (4, 5)):
            swapped = list(history)
            swapped[i] = history[i]._replace(result=history[j].result)
            swapped[j] = history[j]._replace(result=history[i].result)
            with pytest.raises(AssertionError, match=r"gave|explains"):
                check(swapped, 6)

    def test_a_commit_that_is_missing(self, history: List[Op]) -> None:
        for op in history:
            if op.number is not None:
                fewer = [each for each in history if each is not op]
                with pytest.raises(AssertionError, match="a commit is missing"):
                    check(fewer, 6)
                # Also if its number is taken for that of a rewrite.
                with pytest.raises(AssertionError, match=r"gave|explains"):
                    check(fewer, 6, rewrites=1)

    def test_a_commit_that_was_written_over(self, history: List[Op]) -> None:
        over = [op._replace(number=1) if op.number == 2 else op for op in history]
        with pytest.raises(AssertionError, match="have one number"):
            check(over, 6)

    def test_a_job_that_two_claimed(self, history: List[Op]) -> None:
        twice = list(history)
        twice[5] = history[5]._replace(result=history[4].result)
        with pytest.raises(AssertionError, match="commit 4: claim"):
            check(twice, 6)

    def test_a_refusal_that_was_none(self, history: List[Op]) -> None:
        for result in (None, ConflictError):
            with pytest.raises(AssertionError, match=r"explains: .* save"):
                check([*history[:9], history[9]._replace(result=result), history[10]], 6)

    def test_a_look_at_what_is_no_longer_so(self, history: List[Op]) -> None:
        late = history[3]._replace(begin=history[-1].end + 1, end=history[-1].end + 2)
        with pytest.raises(AssertionError, match="no state from 6 to 6"):
            check([*history, late], 6)

    def test_a_look_at_what_was_not_yet_so(self, history: List[Op]) -> None:
        early = history[3]._replace(begin=history[0].begin - 2, end=history[0].begin - 1)
        with pytest.raises(AssertionError, match="no state from 0 to 0"):
            check([early, *history], 6)

    def test_looks_that_go_back(self, history: List[Op]) -> None:
        """Either may be, while the commit between them lasts; but not the newer one first."""
        one, two = history[1], history[3]
        begin, end = history[2].begin, history[2].end
        lasting = [history[0], history[2]._replace(end=end + 100)]
        for first, second in ((one, one), (one, two), (two, two), (two, one)):
            looks = [
                first._replace(begin=begin + 1, end=begin + 2),
                second._replace(begin=begin + 3, end=begin + 4),
            ]
            if (first, second) == (two, one):
                with pytest.raises(AssertionError, match="no state from 2 to 2"):
                    check([*lasting, *looks], 2)
            else:
                check([*lasting, *looks], 2)

    def test_a_commit_that_comes_before_one_that_had_ended(self, history: List[Op]) -> None:
        late = [history[0]._replace(begin=history[-1].end + 1, end=history[-1].end + 2)]
        with pytest.raises(AssertionError, match="one that began later comes before commit 2"):
            check([*late, *history[2:3]], 2)
