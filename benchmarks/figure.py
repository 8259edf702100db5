"""A figure: what is measured, beside what, and what it must reach; and how it is measured.

Those who are compared take turns, A B A B ..., so that what the machine does meanwhile meets them
alike. The first turn of each is not counted: it fills caches, compiles byte code and makes the
stores that the others copy. What counts is the median of the rest.
"""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Callable, ContextManager, List, Optional, Sequence

from queuectl.errors import QueueError


class MeasureError(Exception):
    """What was measured did not do what it should, so its time means nothing."""


TROUBLE = (MeasureError, QueueError, OSError, subprocess.SubprocessError)
"""What may go wrong with one figure while the others are still worth their time."""


@dataclass(frozen=True)
class Contestant:
    """One of those that take turns.

    Attributes:
        name: as the table calls it.
        measure: takes one turn; returns what was measured, in the figure's unit.
        missing: what is not installed, if it cannot take part.
    """

    name: str
    measure: Callable[[], float]
    missing: str = ""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: by which it is chosen.
        what: what is measured, in a line.
        unit: of what the contestants return.
        ours: QueueCTL.
        baselines: what it is compared with; each makes a row of the table.
        must: what must be reached: a ratio of ours to the baseline, or a value.
        aim: what should be.
        more_is_better: whether they are lower bounds, of a rate, and not upper ones, of a time.
        of_value: whether they are values in the figure's unit, and not ratios.
        condition: what must be true besides; if it is not, QueueCTL has failed.
        turns: how many turns each contestant takes where others take one.
        during: entered before the first turn, left after the last.
    """

    name: str
    what: str
    unit: str
    ours: Contestant
    baselines: Sequence[Contestant] = ()
    must: Optional[float] = None
    aim: Optional[float] = None
    more_is_better: bool = False
    of_value: bool = False
    condition: str = ""
    turns: int = 1
    during: Callable[[], ContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Measured:
    """The turns of one contestant that count.

    Attributes:
        name: whose.
        values: what was measured.
        trouble: why there is nothing, or too little, to go by.
    """

    name: str
    values: Sequence[float] = ()
    trouble: str = ""

    @property
    def median(self) -> float:
        """What counts."""
        return median(self.values)


@dataclass(frozen=True)
class Row:
    """One figure against one baseline, as it was measured or why it was not.

    Attributes:
        figure: which one.
        ours: QueueCTL's turns.
        baseline: the other's, if there is one.
    """

    figure: Figure
    ours: Measured
    baseline: Optional[Measured] = None

    @property
    def trouble(self) -> str:
        """Why there is nothing to compare."""
        for measured in (self.ours, self.baseline):
            if measured is not None and measured.trouble:
                return f"{measured.name}: {measured.trouble}"
        return ""

    @property
    def ratio(self) -> Optional[float]:
        """Ours to the baseline's, to the two digits that are shown and judged."""
        if self.trouble or self.baseline is None:
            return None
        ratio = self.ours.median / self.baseline.median
        return round(ratio, 2) if ratio >= 0.1 else round(ratio, 4)

    @property
    def is_missed(self) -> bool:
        """Whether what must be reached is not; so it is if QueueCTL failed."""
        return bool(self.ours.trouble) or self.reaches(self.figure.must) is False

    def reaches(self, bound: Optional[float]) -> Optional[bool]:
        """Tell whether a bound is reached; nothing if there is none or nothing to compare."""
        value = self.ratio
        if self.figure.of_value and not self.ours.trouble:
            value = self.ours.median
        if bound is None or value is None:
            return None
        return value >= bound if self.figure.more_is_better else value <= bound


def interleave(contestants: Sequence[Contestant], turns: int) -> List[Measured]:
    """Let each have one turn that does not count, then all in turn, `turns` times.

    Who fails is out, and the others go on.
    """
    values: List[List[float]] = [[] for _ in contestants]
    trouble = [contestant.missing for contestant in contestants]
    for _ in range(1 + turns):
        for number, contestant in enumerate(contestants):
            if not trouble[number]:
                try:
                    values[number].append(contestant.measure())
                except TROUBLE as error:
                    trouble[number] = f"failed: {error}"
    return [
        Measured(contestant.name, seen[1:], why)
        for contestant, seen, why in zip(contestants, values, trouble)
    ]


def measure(figure: Figure, runs: int) -> List[Row]:
    """Measure one figure.

    Args:
        figure: which one.
        runs: turns that count, of a figure that takes one at a time.

    Returns:
        A row for each baseline; one row if there is none.
    """
    try:
        with figure.during():
            ours, *others = interleave([figure.ours, *figure.baselines], runs * figure.turns)
    except TROUBLE as error:
        ours, others = Measured(figure.ours.name, trouble=f"failed: {error}"), []
    return [Row(figure, ours, other) for other in others] or [Row(figure, ours)]
