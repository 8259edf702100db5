"""An idle worker: how soon it takes a new job, and what it costs until then."""

from __future__ import annotations

import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Iterator, List

from benchmarks.bench import TELL, Bench, now, queue_of
from benchmarks.figure import Contestant, Figure
from benchmarks.processes import Fifo, children, processor_seconds
from benchmarks.stores import Content
from queuectl import QueueManager


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    idle = Idle(bench)
    return [
        Figure(
            "pick-up",
            "from the call that enqueues a job until an idle worker's shell runs it, beside the "
            "bare spawn of that shell",
            "ms",
            Contestant("start --count 1", idle.pick_up),
            [Contestant("bare spawn", idle.spawn)],
            must=20.0,
            aim=3.0,
            of_value=True,
            turns=bench.sizes.turns,
            during=idle.at_rest,
        ),
        Figure(
            "idle-cpu",
            f"processor time of start --count 1 without jobs, over {bench.sizes.idle:g} s",
            "%",
            Contestant("start --count 1", idle.cost),
            must=1.0,
            aim=0.3,
            of_value=True,
            during=idle.at_rest,
        ),
    ]


class Idle:
    """A `start --count 1` that has nothing to do.

    Args:
        bench: the run.
    """

    _start: subprocess.Popen[bytes]
    _queue: QueueManager
    _fifo: Fifo

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        # Takes the time while the enqueueing call still waits for the disk.
        self._reader = ThreadPoolExecutor(1)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Keep it running. A first job shows that it does."""
        bench = self._bench
        with ExitStack() as stack:
            store = stack.enter_context(bench.stores.fresh(Content()))
            self._fifo = stack.enter_context(bench.fifo())
            self._queue = stack.enter_context(queue_of(store))
            self._start = stack.enter_context(bench.starting(store, 1, self._fifo))
            self.pick_up()
            yield

    def pick_up(self) -> float:
        """Enqueue a job; milliseconds until it runs."""
        self._rest()
        arrival = self._reader.submit(self._fifo.wait, 1)
        began = now()
        self._queue.enqueue(TELL, cwd="/")
        return (arrival.result() - began) * 1000

    def spawn(self) -> float:
        """Run the same command without a queue; milliseconds until it does."""
        self._rest()
        arrival = self._reader.submit(self._fifo.wait, 1)
        began = now()
        environ = {**self._bench.environment.variables, "TELL": str(self._fifo.path)}
        with subprocess.Popen(["/bin/sh", "-c", TELL], env=environ):
            return (arrival.result() - began) * 1000

    def cost(self) -> float:
        """Watch it for a while; percent of a processor."""
        self._rest()
        tree = [self._start.pid, *children(self._start.pid)]
        began, used = now(), processor_seconds(tree)
        time.sleep(self._bench.sizes.idle)
        return (processor_seconds(tree) - used) / (now() - began) * 100

    def _rest(self) -> None:
        """Wait until it has nothing to do, and then for a time that fits no rhythm of its own."""
        while any(self._queue.counts()[:2]):
            time.sleep(0.01)
        time.sleep(random.uniform(0.1, 0.3))
