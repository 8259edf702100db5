"""Memory of `start --count 4`, and how soon it runs the first of a million jobs."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import Iterator, List

from benchmarks.bench import TELL, Bench, now, queue_of
from benchmarks.figure import Contestant, Figure
from benchmarks.processes import children, memory
from benchmarks.stores import Content

_WORKERS = 4
_SETTLED = 1.0

# What TERM leaves of it goes back to the queue, so the store serves all turns.
_HOLD = f"{TELL}; exec sleep 1000"


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    many, million = bench.sizes.many, bench.sizes.million
    largest = Content(pending=((million, _HOLD),))
    jobs = bench.stores.master
    return [
        _memory(bench, "memory", "on an empty store", 0, 80.0, 45.0),
        _memory(bench, "memory-full", f"with {many} pending jobs", many, 90.0, 50.0),
        _memory(bench, "memory-million", f"with {million} pending jobs", million, 150.0, 70.0),
        Figure(
            "load",
            f"start --count 4 on {million} pending jobs, until the first one runs, against a bare "
            "loop of json.loads over the same file",
            "s",
            Contestant("start --count 4", lambda: _load(bench, largest)),
            [Contestant("json.loads", lambda: bench.bare("read", jobs(largest) / "jobs.jsonl"))],
            must=0.6,
            aim=0.1,
        ),
    ]


def _memory(bench: Bench, name: str, where: str, pending: int, must: float, aim: float) -> Figure:
    content = Content(pending=((pending, _HOLD),))
    return Figure(
        name,
        f"memory (PSS) of start --count 4 and its workers, without the jobs, {where}",
        "MB",
        Contestant("start --count 4", lambda: _memory_of(bench, content)),
        must=must,
        aim=aim,
        of_value=True,
    )


def _memory_of(bench: Bench, content: Content) -> float:
    with _running(bench, content, _WORKERS) as start:
        time.sleep(_SETTLED)
        return memory([start.pid, *children(start.pid)])


def _load(bench: Bench, content: Content) -> float:
    bench.stores.master(content)
    began = now()
    with _running(bench, content, 1):
        return now() - began


@contextlib.contextmanager
def _running(bench: Bench, content: Content, jobs: int) -> Iterator[subprocess.Popen[bytes]]:
    """Keep `start` running, once that many of its jobs run; without jobs, once all workers wait."""
    store = bench.stores.master(content)
    with bench.fifo() as fifo, bench.starting(store, _WORKERS, fifo) as start:
        if content.pending[0][0]:
            fifo.wait(jobs, writer=start)
        else:
            with queue_of(store) as queue:
                while len(queue.members("worker")) < _WORKERS:
                    time.sleep(0.01)
        yield start
