"""Time as text: one width, one zone, and back without moving."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queuectl import clock
from queuectl.errors import InvalidValueError

YEAR = 365 * 86400
# From the epoch until two centuries ahead: the longest delay with the most jitter, enqueued today.
MILLISECONDS = st.integers(0, 250 * YEAR * 1000)


@given(MILLISECONDS)
@example(0)
@example(1_762_707_697_123)
@example(1_762_707_697_999)
def test_an_instant_comes_back_as_it_was(milliseconds: int) -> None:
    instant = milliseconds / 1000
    text = clock.to_iso(instant)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert text.endswith(f".{milliseconds % 1000:03d}Z")
    assert clock.from_iso(text) == instant
    assert clock.to_iso(clock.from_iso(text)) == text


@given(MILLISECONDS, MILLISECONDS)
def test_instants_sort_as_text(one: int, other: int) -> None:
    assert (clock.to_iso(one / 1000) < clock.to_iso(other / 1000)) == (one < other)


@given(MILLISECONDS, st.floats(0, 0.99))
def test_parts_of_a_millisecond_are_cut(milliseconds: int, part: float) -> None:
    """Rounding up would name a time that has not come."""
    text = clock.to_iso((milliseconds + part) / 1000)
    assert clock.from_iso(text) == milliseconds / 1000


def test_known_instants() -> None:
    assert clock.to_iso(0) == "1970-01-01T00:00:00.000Z"
    assert clock.to_iso(1_762_707_697.123) == "2025-11-09T17:01:37.123Z"
    assert clock.from_iso("2024-02-29T23:59:59.999Z") == 1_709_251_199.999


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-11-09",
        "2025-11-09T17:01:37Z",
        "2025-11-09T17:01:37.12Z",
        "2025-11-09T17:01:37.1234Z",
        "2025-11-09T17:01:37.123",
        "2025-11-09T17:01:37.123+00:00",
        "2025-11-09 17:01:37.123Z",
        " 2025-11-09T17:01:37.123Z",
        "2025-11-09T17:01:37.123Z\n",
        "2025-13-09T17:01:37.123Z",
        "2025-02-29T17:01:37.123Z",
        "2025-11-09T25:01:37.123Z",
        "٢٠٢٥-11-09T17:01:37.123Z",
    ],
)
def test_other_forms_of_time_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r"is not a time such as 2025-11-09T17:01:37\.123Z"):
        clock.from_iso(text)


def test_now_is_the_time_to_the_millisecond() -> None:
    before = time.time()
    now = clock.now()
    assert before - 0.001 <= now <= time.time()
    assert now == round(now, 3) == clock.from_iso(clock.to_iso(now))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1),
        ("10s", 10),
        ("5m", 300),
        ("0.5m", 30),
        ("2h", 7200),
        ("1d", 86400),
        (" 7s ", 7),
        ("0.001", 0.001),
        ("1.2345", 1.234),
        ("36500d", 36500 * 86400),
        ("007", 7),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert clock.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "0", "0s", "0.0004", "-1", "+1", "1e3", "nan", "inf", "none", "5 m", "5min"),
        *("m", ".", "1h30m", "1_0", "0x10", "36501d", "9" * 400, "٣", "1,5", "5M", "1w"),
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a duration above 0, such as 90, 10s, 5m"):
        clock.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (90, "90s"),
        (60, "1m"),
        (3600, "1h"),
        (5400, "90m"),
        (86400, "1d"),
        (90000, "25h"),
        (0.5, "0.5s"),
        (1.25, "1.25s"),
        (0.001, "0.001s"),
        (100, "100s"),
    ],
)
def test_durations_are_written_with_the_largest_unit_that_is_whole(
    seconds: float, text: str
) -> None:
    assert clock.format_duration(seconds) == text


@given(st.text("0123456789.", min_size=1, max_size=12), st.sampled_from(["", "s", "m", "h", "d"]))
def test_a_duration_that_was_written_is_read_the_same(number: str, unit: str) -> None:
    try:
        seconds = clock.parse_duration(number + unit)
    except InvalidValueError:
        return
    assert clock.parse_duration(clock.format_duration(seconds)) == seconds
