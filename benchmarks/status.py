"""`status` on a full store."""

from __future__ import annotations

from typing import List

from benchmarks.bench import Bench
from benchmarks.figure import Contestant, Figure
from benchmarks.stores import Content


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    many = bench.sizes.many
    full = Content(pending=((many, "true"),), finished=many)
    return [
        Figure(
            "status",
            f"the whole process of queuectl status with {many} finished and {many} pending jobs, "
            "against an empty store",
            "ms",
            Contestant("full store", lambda: _status(bench, full)),
            [Contestant("empty store", lambda: _status(bench, Content()))],
            must=1.2,
            aim=1.05,
            turns=bench.sizes.turns,
        )
    ]


def _status(bench: Bench, content: Content) -> float:
    return bench.timed(bench.stores.master(content), "status") * 1000
