"""How long a failed job waits."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queuectl.retry import RetryPolicy

CENTURY = 100 * 365.25 * 86400
BASES = st.floats(0, 1e6)
MAXIMA = st.floats(0.001, 1e9) | st.just(math.inf)
ATTEMPTS = st.integers(1, 100) | st.integers(1, 10**9)


def test_it_grows_by_the_power_of_the_attempt() -> None:
    policy = RetryPolicy(2, 3600)
    assert [policy.delay(attempt) for attempt in range(1, 15)] == [
        *(2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
        *(3600, 3600, 3600),
    ]
    assert [RetryPolicy(1.5, 3600).delay(attempt) for attempt in (1, 2, 3)] == [1.5, 2.25, 3.375]
    assert RetryPolicy(60, 3600).delay(2) == 3600


def test_a_base_of_one_or_less_does_not_grow() -> None:
    assert [RetryPolicy(1, 3600).delay(attempt) for attempt in (1, 2, 10**6)] == [1, 1, 1]
    assert [RetryPolicy(0, 3600).delay(attempt) for attempt in (1, 2, 10**6)] == [0, 0, 0]
    assert [RetryPolicy(0.5, 3600).delay(attempt) for attempt in (1, 2)] == [0.5, 0.25]
    assert RetryPolicy(1, 0.5).delay(1) == RetryPolicy(0.9, 0.5).delay(1) == 0.5


@given(BASES, MAXIMA, ATTEMPTS)
@example(1e6, math.inf, 10**9)
@example(1.0000001, math.inf, 10**9)
@example(2.0, 3600.0, 1024)
@example(1.0, 0.5, 1)
@example(5e-324, 1.0, 10**9)
def test_no_attempt_overflows_or_waits_longer_than_the_maximum(
    base: float, maximum: float, attempt: int
) -> None:
    policy = RetryPolicy(base, maximum)
    delay = policy.delay(attempt)
    assert 0 <= delay <= min(maximum, CENTURY)
    assert policy.delay(attempt + 1) >= delay or base < 1
    assert policy.horizon == min(maximum, CENTURY)


@given(BASES, MAXIMA, st.floats(0, 1), ATTEMPTS)
def test_jitter_adds_up_to_its_part(
    base: float, maximum: float, jitter: float, attempt: int
) -> None:
    plain = RetryPolicy(base, maximum).delay(attempt)
    policy = RetryPolicy(base, maximum, jitter)
    for _ in range(5):
        assert plain <= policy.delay(attempt) <= plain * (1 + jitter) <= policy.horizon


def test_jitter_spreads() -> None:
    delays = [RetryPolicy(2, 3600, 0.5).delay(3) for _ in range(1000)]
    assert len(set(delays)) > 900
    assert min(delays) < 8.5
    assert max(delays) > 11.5
    assert max(delays) <= 12


@pytest.mark.parametrize("attempt", [1, 10, 1000])
def test_without_jitter_it_is_always_the_same(attempt: int) -> None:
    assert len({RetryPolicy().delay(attempt) for _ in range(20)}) == 1
