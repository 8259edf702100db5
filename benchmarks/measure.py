"""Measuring whole processes side by side.

A machine's speed drifts, and other tenants come and go. So what is compared runs in turn (A B A B
...), the medians are what counts, and the ratio of two figures says more than either.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

Sample = Callable[[], float]
"""Runs once, and returns what was measured."""


class Figure(NamedTuple):
    """One comparison.

    Attributes:
        name: what is compared.
        unit: of the values: `s`, `ms`, `MB`, `%`.
        ours: QueueCTL's median.
        baseline: the median of what it is compared with; none where a plain limit is set.
        ratio: what the target speaks of.
        target: what must be reached.
        aim: what is aimed at.
        least: whether reaching means at least; else at most.
    """

    name: str
    unit: str
    ours: float
    baseline: Optional[float]
    ratio: float
    target: float
    aim: float
    least: bool

    @property
    def verdict(self) -> str:
        """`aim`, `target` or `missed`."""
        for limit, word in ((self.aim, "aim"), (self.target, "target")):
            if self.ratio >= limit if self.least else self.ratio <= limit:
                return word
        return "missed"


def interleave(samples: Mapping[str, Sample], runs: int) -> Dict[str, List[float]]:
    """Take samples in turn.

    Args:
        samples: by name.
        runs: how many of each; one more of each, the first, is not counted.
    """
    taken: Dict[str, List[float]] = {name: [] for name in samples}
    for number in range(runs + 1):
        for name, sample in samples.items():
            value = sample()
            if number > 0:
                taken[name].append(value)
    return taken


def medians(samples: Mapping[str, Sample], runs: int) -> Dict[str, float]:
    """Take samples in turn, and return the median of each."""
    return {name: statistics.median(values) for name, values in interleave(samples, runs).items()}


def seconds(argv: Sequence[str], env: Mapping[str, str], cwd: Optional[str] = None) -> float:
    """Run a command to its end, which must be 0, and return how long it took."""
    began = time.perf_counter()
    subprocess.run(
        argv,
        env=dict(env),
        cwd=cwd,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began
