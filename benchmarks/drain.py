"""Draining `true` jobs: beside xargs, with many workers, with other jobs in the store."""

from __future__ import annotations

from typing import List

from benchmarks.bench import TELL, Bench, now
from benchmarks.figure import Contestant, Figure
from benchmarks.processes import timed
from benchmarks.stores import Content


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    jobs, many = bench.sizes.jobs, bench.sizes.many
    with_history = Content(pending=((jobs, "true"),), finished=many)
    return [
        Figure(
            "drain",
            f"start --count 2 --drain --quiet on {jobs} `true` jobs, the whole command",
            "jobs/s",
            bench.draining(2),
            [_xargs(bench)],
            must=0.9,
            aim=1.1,
            more_is_better=True,
        ),
        Figure(
            "drain-history",
            f"the same with {many} finished jobs in the store, against an empty store",
            "jobs/s",
            Contestant("with history", lambda: bench.drained(with_history, 2)),
            [bench.draining(2)],
            must=0.9,
            aim=1.0,
            more_is_better=True,
        ),
        Figure(
            "drain-behind",
            f"the first {jobs} jobs with {many} pending behind them, against none behind",
            "jobs/s",
            Contestant("many behind", lambda: _first(bench, many)),
            [Contestant("none behind", lambda: _first(bench, 0))],
            must=0.9,
            aim=1.0,
            more_is_better=True,
        ),
        *(
            Figure(
                f"drain-{workers}",
                f"the same with {workers} workers, against 2",
                "jobs/s",
                bench.draining(workers),
                [bench.draining(2)],
                must=0.9,
                aim=1.0,
                more_is_better=True,
            )
            for workers in (8, 32)
        ),
    ]


def _xargs(bench: Bench) -> Contestant:
    jobs = bench.sizes.jobs
    script = f"seq {jobs} | xargs -P2 -I{{}} sh -c true"
    variables = bench.environment.variables
    return Contestant("xargs -P2", lambda: jobs / timed(["sh", "-c", script], variables))


def _first(bench: Bench, behind: int) -> float:
    """From the spawn of `start` until the last of the first jobs runs; the rest is not waited for.

    That job tells by a pipe, on both sides, so nobody has to look into the store meanwhile.
    """
    jobs = bench.sizes.jobs
    content = Content(pending=((jobs - 1, "true"), (1, TELL), (behind, "true")))
    with bench.stores.fresh(content) as store, bench.fifo() as fifo:
        began = now()
        with bench.starting(store, 2, fifo) as start:
            return jobs / (fifo.wait(writer=start) - began)
