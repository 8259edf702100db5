"""The beginnings of the lines of a job file: what scheduling needs, without parsing the rest."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Tuple

HEADS = re.compile(
    rb'\{"id":"([^"]*)","seq":(\d+),"state":"([a-z]+)","run_at":(?:null|"([^"]*)")'
    rb'(?:,"queue":"([^"]*)","priority":(-?\d+),"backoff_max":(?:null|([-0-9.e+]+)),'
    rb'"dependents":(\d+),"parents":\[([-0-9,]*)\])?'
)
"""Finds the beginnings of the job lines in a file: id, seq, state, and run_at if there is one; then
queue, priority, backoff_max if there is one, dependents and parents, if they are there.

Within a line nothing looks like one, as JSON puts a backslash before a quote in text. So it need
not look for line ends, which would take it six times as long.
"""


class Plan(NamedTuple):
    """What a line says of a job that is not as most are.

    Attributes:
        queue: its queue.
        priority: its priority.
        reach: how far ahead its retries can lie at the most, in seconds; none for the horizon.
        dependents: how many jobs were made to wait for it.
        parents: for which jobs it waits: the `seq` of one that must complete, the negative one of
            one that must end.
    """

    queue: str
    priority: int
    reach: Optional[float]
    dependents: int
    parents: Tuple[int, ...]


def read_plan(
    queue: Optional[bytes],
    priority: bytes,
    backoff_max: Optional[bytes],
    dependents: bytes,
    parents: bytes,
) -> Optional[Plan]:
    """Make a plan of what stands at the beginning of a job's line; nothing if nothing does."""
    if queue is None:
        return None
    return Plan(
        queue.decode("ascii"),
        int(priority),
        # Jitter can double it.
        None if backoff_max is None else 2 * float(backoff_max),
        int(dependents),
        tuple(map(int, parents.split(b","))) if parents else (),
    )
