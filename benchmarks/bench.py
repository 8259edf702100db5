"""What all figures share: sizes, stores, and running `queuectl` in the clean environment."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import ContextManager, Iterator, Mapping, Optional

from benchmarks.environment import Environment
from benchmarks.figure import Contestant, MeasureError
from benchmarks.processes import Fifo, Word, running, timed
from benchmarks.stores import Content, Stores
from queuectl import QueueManager

TELL = 'echo ran > "$TELL"'
"""A job that tells by a `Fifo` that it runs."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        jobs: of a drain.
        few: jobs of a drain by those that take long to be given them.
        many: jobs that are in the way.
        crowd: processes that enqueue at once.
        million: jobs of the largest store.
        idle: seconds for which an idle worker is watched.
        laps: parts of the largest store, of which each turn drains one; with --runs more than that
            many cannot be measured.
        turns: how often what takes less than a second is measured where all else is once.
    """

    jobs: int = 4000
    few: int = 800
    many: int = 100_000
    crowd: int = 200
    million: int = 1_000_000
    idle: float = 10.0
    turns: int = 6
    laps: int = 24


QUICK = Sizes(jobs=20, few=10, many=500, crowd=5, million=2000, idle=0.2, turns=1, laps=3)
"""Sizes that show that the command works, and nothing else."""


class Bench:
    """A run of the benchmarks.

    Args:
        folder: where everything is made; it must be on a disk.
        environment: where QueueCTL is installed.
        sizes: how much to measure.
    """

    def __init__(self, folder: Path, environment: Environment, sizes: Sizes) -> None:
        self.folder = folder
        self.environment = environment
        self.sizes = sizes
        self.stores = Stores(folder)
        self._numbers = count(1)

    def path(self, name: str) -> Path:
        """A path that was not used yet."""
        return self.folder / f"{name}-{next(self._numbers)}"

    def environ(self, store: Word) -> Mapping[str, str]:
        """The environment of a `queuectl` that works on a store."""
        return {**self.environment.variables, "QUEUECTL_STORE": str(store)}

    def timed(self, store: Word, *words: str) -> float:
        """Run `queuectl WORDS` to its end; return the seconds it took."""
        return timed([self.environment.queuectl, *words], self.environ(store))

    def starting(
        self, store: Word, workers: int, fifo: Optional[Fifo] = None
    ) -> ContextManager[subprocess.Popen[bytes]]:
        """Keep `queuectl start` running; its jobs can tell by the pipe."""
        argv = [self.environment.queuectl, "start", "--quiet", "--count", str(workers)]
        environ = dict(self.environ(store))
        if fifo is not None:
            environ["TELL"] = str(fifo.path)
        return running(argv, environ)

    def fifo(self) -> Fifo:
        """A new pipe by which jobs can tell that they run."""
        return Fifo(self.path("tell"))

    def drained(self, content: Content, workers: int) -> float:
        """Drain a copy of a store by `start --drain --quiet`, the whole command; jobs a second."""
        with self.stores.fresh(content) as store:
            took = self.timed(store, "start", "--count", str(workers), "--drain", "--quiet")
            jobs = sum(number for number, _ in content.pending)
            with queue_of(store) as queue:
                completed = queue.counts().completed - content.finished
            if completed != jobs:
                raise MeasureError(f"{completed} of {jobs} jobs completed")
            return jobs / took

    def draining(self, workers: int) -> Contestant:
        """Draining `true` jobs on a store that holds nothing else."""
        content = Content(pending=((self.sizes.jobs, "true"),))
        return Contestant(f"{workers} workers", lambda: self.drained(content, workers))

    def bare(self, *words: Word) -> float:
        """Run a bare loop of `benchmarks/bare.py`; return the seconds that it says it took."""
        script = Path(__file__).with_name("bare.py")
        argv = [self.environment.python, str(script), *words]
        said = subprocess.check_output(argv, env=self.environment.variables, text=True)
        return float(said)


@contextlib.contextmanager
def queue_of(store: Word, create: bool = False) -> Iterator[QueueManager]:
    """Open a store in this process."""
    with QueueManager.open(str(store), create=create) as queue:
        yield queue


def now() -> float:
    """The clock that `Fifo.wait` tells too."""
    return perf_counter()
