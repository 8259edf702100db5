"""How long a failed job waits for its next attempt."""

from __future__ import annotations

import math
import random
from typing import NamedTuple


class RetryPolicy(NamedTuple):
    """Exponential backoff: `base ** attempt` seconds, at most `maximum`, plus jitter.

    Attributes:
        base: what is raised to the power of the attempt's number, in seconds; 0 means no delay.
        maximum: the longest delay, in seconds; infinity for no limit.
        jitter: the largest part of the delay that is added at random, from 0 to 1.
    """

    base: float = 2.0
    maximum: float = 3600.0
    jitter: float = 0.0

    def delay(self, attempt: int) -> float:
        """The delay after the attempt that just failed, in seconds.

        Args:
            attempt: 1 for the first.
        """
        # Compared as logarithms: base ** attempt overflows long before attempt is unreasonable.
        if self.base > 1 and attempt * math.log(self.base) >= math.log(self.longest_plain):
            plain = self.longest_plain
        else:
            plain = min(self.base**attempt, self.longest_plain)
        return plain + plain * self.jitter * random.random()

    @property
    def longest_plain(self) -> float:
        """The longest delay before jitter, in seconds; a century where there is no maximum."""
        return min(self.maximum, 3155760000.0)

    @property
    def horizon(self) -> float:
        """The longest delay that this policy can give, in seconds."""
        return self.longest_plain * (1 + self.jitter)
