"""Enqueueing: one process, beside many jobs, a file of jobs, a crowd of processes."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, List

from benchmarks.bench import Bench, queue_of
from benchmarks.figure import Contestant, Figure, MeasureError
from benchmarks.processes import at_once, timed
from benchmarks.stores import Content

_IMPORTS = "import click, filelock"


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    many, crowd = bench.sizes.many, Crowd(bench)
    single = Single(bench, Content(pending=((many, "true"),)))
    return [
        Figure(
            "enqueue",
            "the whole process of queuectl enqueue true, against its Python that imports "
            "click and filelock",
            "ms",
            Contestant("queuectl enqueue", single.on_empty),
            [Contestant("bare imports", lambda: _imports(bench))],
            must=1.3,
            aim=1.15,
            turns=bench.sizes.turns,
            during=single.stores,
        ),
        Figure(
            "enqueue-full",
            f"the same with {many} pending jobs in the store, against an empty one",
            "ms",
            Contestant("full store", single.on_full),
            [Contestant("empty store", single.on_empty)],
            must=1.1,
            aim=1.0,
            turns=bench.sizes.turns,
            during=single.stores,
        ),
        Figure(
            "enqueue-file",
            f"enqueue --file of {many} lines, the whole command, against a bare loop that makes a "
            "UUID, dumps and writes the same lines",
            "lines/s",
            Contestant("enqueue --file", lambda: _file(bench)),
            [Contestant("bare loop", lambda: _bare_file(bench))],
            must=0.4,
            aim=0.7,
            more_is_better=True,
        ),
        Figure(
            "enqueue-crowd",
            f"{bench.sizes.crowd} enqueue processes at once while 4 workers run, until the slowest "
            "has ended, against as many that only import click and filelock",
            "s",
            Contestant("queuectl enqueue", crowd.enqueue),
            [Contestant("bare imports", crowd.imports)],
            aim=1.5,
            condition="none lost",
            during=crowd.at_work,
        ),
    ]


def _imports(bench: Bench) -> float:
    return timed([bench.environment.python, "-c", _IMPORTS], bench.environment.variables) * 1000


def commands_file(bench: Bench) -> Path:
    """A file with as many commands as are in the way, made once."""
    path = bench.folder / "commands"
    if not path.exists():
        path.write_text("".join(f"echo {number}\n" for number in range(bench.sizes.many)), "ascii")
    return path


def _file(bench: Bench) -> float:
    commands, many = commands_file(bench), bench.sizes.many
    with bench.stores.fresh(Content()) as store:
        took = bench.timed(store, "enqueue", "--quiet", "--file", str(commands))
        with queue_of(store) as queue:
            if queue.counts().pending != many:
                raise MeasureError(f"{queue.counts().pending} of {many} jobs are in the store")
    return many / took


def _bare_file(bench: Bench) -> float:
    template = bench.stores.master(Content(pending=((1, "true"),))) / "jobs.jsonl"
    written = bench.path("bare")
    took = bench.bare("write", commands_file(bench), template, written)
    written.unlink()
    return bench.sizes.many / took


class Single:
    """One process that enqueues one job; its store gains a job a turn, which changes nothing.

    Args:
        bench: the run.
        full: what a full store holds.
    """

    _empty_store: Path
    _full_store: Path

    def __init__(self, bench: Bench, full: Content) -> None:
        self._bench = bench
        self._full = full

    @contextmanager
    def stores(self) -> Iterator[None]:
        """Keep both stores."""
        fresh = self._bench.stores.fresh
        with fresh(Content()) as self._empty_store, fresh(self._full) as self._full_store:
            yield

    def on_empty(self) -> float:
        """Enqueue where there is next to nothing; milliseconds."""
        return self._bench.timed(self._empty_store, "enqueue", "true") * 1000

    def on_full(self) -> float:
        """Enqueue where there is much; milliseconds."""
        return self._bench.timed(self._full_store, "enqueue", "true") * 1000


class Crowd:
    """Many processes at once, while 4 workers run jobs and so commit, for both sides alike.

    Args:
        bench: the run.
    """

    _store: Path

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep the workers at work on more jobs than there is time for; these mostly wait."""
        waiting = Content(pending=((self._bench.sizes.crowd * 200, "sleep 0.1"),))
        with ExitStack() as stack:
            self._store = stack.enter_context(self._bench.stores.fresh(waiting))
            stack.enter_context(self._bench.starting(self._store, 4))
            yield

    def enqueue(self) -> float:
        """Enqueue at once; every job that was acknowledged must be in the store."""
        bench = self._bench
        argv = [bench.environment.queuectl, "enqueue", "--print-id", "true"]
        took, printed = at_once(argv, bench.sizes.crowd, bench.environ(self._store))
        acknowledged = {text.strip() for text in printed}
        with queue_of(self._store) as queue:
            present = {job.id for job in queue.jobs()}
        lost = acknowledged - present
        if lost or len(acknowledged) != bench.sizes.crowd:
            raise MeasureError(f"{len(acknowledged)} acknowledged, {len(lost)} of them lost")
        return took

    def imports(self) -> float:
        """Import at once."""
        bench = self._bench
        argv = [bench.environment.python, "-c", _IMPORTS]
        return at_once(argv, bench.sizes.crowd, bench.environ(self._store))[0]
