"""The rewrite of the job file: how long others wait for the lock."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path
from threading import Event, Thread
from typing import List

from benchmarks.bench import Bench, now
from benchmarks.figure import Contestant, Figure, MeasureError
from benchmarks.stores import Content

_REWRITE = """
import sys
from queuectl import QueueManager
with QueueManager.open(sys.argv[1], create=False) as queue:
    sys.exit(not queue.store.rewrite())
"""
_PAUSE = 0.0001


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    many = bench.sizes.many
    content = Content(pending=((many, "true"),), superseded=True)
    return [
        Figure(
            "rewrite",
            f"the longest wait for the lock while a job file of {many} live and {3 * many} "
            "superseded lines is rewritten, against copying it with fsync",
            "ms",
            Contestant("longest wait", lambda: _wait(bench, content)),
            [Contestant("copy", lambda: _copy(bench, content))],
            must=0.1,
            aim=0.01,
        )
    ]


def _wait(bench: Bench, content: Content) -> float:
    with bench.stores.fresh(content) as store, Prober(store / "jobs.lock") as prober:
        before = (store / "jobs.jsonl").stat().st_size
        argv = [bench.environment.python, "-c", _REWRITE, str(store)]
        if subprocess.call(argv, env=bench.environment.variables) != 0:
            raise MeasureError("the job file was not rewritten")
        if (store / "jobs.jsonl").stat().st_size > before / 2:
            raise MeasureError("the job file is as long as before")
        return prober.longest * 1000


def _copy(bench: Bench, content: Content) -> float:
    copied = bench.path("copied")
    took = bench.bare("copy", bench.stores.master(content) / "jobs.jsonl", copied)
    copied.unlink()
    return took * 1000


class Prober:
    """Takes a lock again and again, as a writer would, and notes the longest wait for it.

    Args:
        path: the lock file.
    """

    def __init__(self, path: Path) -> None:
        self.longest = 0.0
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._end = Event()
        self._thread = Thread(target=self._probe)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()
        os.close(self._fd)

    def _probe(self) -> None:
        while not self._end.is_set():
            asked = now()
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self.longest = max(self.longest, now() - asked)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            # Else it would have the lock most of the time, and the rewrite would wait.
            time.sleep(_PAUSE)
