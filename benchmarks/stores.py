"""Stores of a given content, made once through the public API and copied for each turn.

The content is made in bulk, by the same rules and in the same file that single commits leave.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from queuectl import QueueManager, clock
from queuectl import job as rules
from queuectl.job import Job
from queuectl.newjob import NewJob

_BATCH = 100_000
_WORKER = "benchmark"


class Content(NamedTuple):
    """What a store holds.

    Attributes:
        pending: how many jobs of which command, in the order in which they were enqueued.
        finished: completed jobs, older than those; they are in the history, where a rewrite of the
            job file has moved them.
        superseded: whether each pending job has died once and came back from the DLQ, so that three
            superseded lines of it are in the job file.
    """

    pending: Tuple[Tuple[int, str], ...] = ()
    finished: int = 0
    superseded: bool = False


class Stores:
    """All stores of a run.

    Args:
        folder: where they are made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._masters: Dict[Content, Path] = {}
        self._copies = 0

    def master(self, content: Content) -> Path:
        """A store that all turns share, for what leaves it as it was."""
        path = self._masters.get(content)
        if path is None:
            path = self._folder / f"store-{len(self._masters)}"
            _fill(path, content)
            self._masters[content] = path
        return path

    @contextlib.contextmanager
    def fresh(self, content: Content) -> Iterator[Path]:
        """A copy for one turn, on the disk before that begins."""
        master = self.master(content)
        self._copies += 1
        path = self._folder / f"copy-{self._copies}"
        shutil.copytree(master, path)
        os.sync()
        try:
            yield path
        finally:
            shutil.rmtree(path)

    def drop(self) -> None:
        """Remove all that were made so far: the next figure needs others."""
        for path in self._masters.values():
            shutil.rmtree(path)
        self._masters.clear()


def _fill(path: Path, content: Content) -> None:
    with QueueManager.open(str(path), create=True) as queue:
        for jobs in _enqueued(queue, ((content.finished, "true"),)):
            _run(queue, jobs, rules.complete)
        if content.finished:
            queue.store.rewrite()
        retries = 1 if content.superseded else 3
        for jobs in _enqueued(queue, content.pending, retries):
            if content.superseded:
                _run(queue, jobs, lambda job, now: rules.fail(job, now, "exit 1", 0.0, 1))
                queue.retry_dead()


def _enqueued(
    queue: QueueManager, pending: Sequence[Tuple[int, str]], max_retries: int = 3
) -> Iterator[List[Job]]:
    for count, command in pending:
        request = NewJob(command, max_retries=max_retries, cwd="/")
        for begin in range(0, count, _BATCH):
            yield queue.enqueue_many([request] * min(_BATCH, count - begin))


def _run(queue: QueueManager, jobs: Sequence[Job], end: Callable[[Job, float], Job]) -> None:
    """Let jobs begin and end as a worker would, but all in two commits."""
    now = clock.now()
    claimed = [rules.claim(job, _WORKER, now) for job in jobs]
    queue.store.save(claimed, durable=False)
    queue.store.save([end(job, now) for job in claimed], durable=False)
