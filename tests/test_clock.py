"""Time as text: one width, one zone, and back without moving."""

from __future__ import annotations

import contextlib
import os
import re
import time
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Iterator, Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queuectl import clock
from queuectl.errors import InvalidValueError

YEAR = 365 * 86400
# From the epoch until two centuries ahead: the longest delay with the most jitter, enqueued today.
LAST = 253_402_300_799_999  # the end of the year 9999
MILLISECONDS = st.integers(0, 250 * YEAR * 1000)


@given(st.integers(0, LAST))
@example(0)
@example(LAST)
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


@contextlib.contextmanager
def zone(name: str) -> Iterator[None]:
    """Let local time be that of a zone."""
    before = os.environ.get("TZ")

    def put(value: Optional[str]) -> None:
        if value is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = value
        time.tzset()

    put(name)
    try:
        yield
    finally:
        put(before)


def when(text: str, now: str = "2026-06-01T00:00:00.000Z") -> str:
    return clock.to_iso(clock.parse_when(text, clock.from_iso(now)))


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02 03:04:05Z", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02T03:04Z", "2026-01-02T03:04:00.000Z"),
        ("2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05.600Z"),
        ("2026-01-02T03:04:05,678Z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05.000Z"),
        ("2026-01-02T03:04:05-0230", "2026-01-02T05:34:05.000Z"),
        ("2026-01-02T03:04+02", "2026-01-02T01:04:00.000Z"),
        ("2026-01-02 03:04:05 +0200", "2026-01-02T01:04:05.000Z"),
        ("2026-01-02T03:04:05-00:00", "2026-01-02T03:04:05.000Z"),
        ("2024-02-29T00:00:00+23:59", "2024-02-28T00:01:00.000Z"),
        (" 2026-01-02T03:04:05Z\n", "2026-01-02T03:04:05.000Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_that_names_its_zone(text: str, instant: str) -> None:
    with zone("Europe/Berlin"):
        assert when(text) == instant


BERLIN = {
    "2026-01-02T03:04:05": "2026-01-02T02:04:05.000Z",
    "2026-07-02 03:04": "2026-07-02T01:04:00.000Z",
    "2026-01-02": "2026-01-01T23:00:00.000Z",
    "2026-07-02": "2026-07-01T22:00:00.000Z",
    # 02:00 to 03:00 is left out: 02:30 is half an hour behind 03:00.
    "2026-03-29T01:59:59.999": "2026-03-29T00:59:59.999Z",
    "2026-03-29T02:00": "2026-03-29T01:00:00.000Z",
    "2026-03-29T02:30": "2026-03-29T01:30:00.000Z",
    "2026-03-29T03:00": "2026-03-29T01:00:00.000Z",
    "2026-03-29T03:30": "2026-03-29T01:30:00.000Z",
    # 02:00 to 03:00 is there twice.
    "2026-10-25T01:59": "2026-10-24T23:59:00.000Z",
    "2026-10-25T02:00": "2026-10-25T00:00:00.000Z",
    "2026-10-25T02:59:59": "2026-10-25T00:59:59.000Z",
    "2026-10-25T03:00": "2026-10-25T02:00:00.000Z",
    "2026-10-25T02:30+01:00": "2026-10-25T01:30:00.000Z",
}


@pytest.mark.parametrize(("text", "instant"), BERLIN.items())
def test_a_time_without_a_zone_is_local(text: str, instant: str) -> None:
    with zone("Europe/Berlin"):
        assert when(text) == instant


@pytest.mark.parametrize(
    ("name", "text", "instant"),
    [
        ("UTC", "2026-07-02T03:04", "2026-07-02T03:04:00.000Z"),
        ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:30:00.000Z"),
        ("Asia/Kathmandu", "2026-07-02T03:04", "2026-07-01T21:19:00.000Z"),
        # Half an hour is left out, and a midnight.
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:45:00.000Z"),
        ("America/Santiago", "2026-09-06", "2026-09-06T04:00:00.000Z"),
        # A whole day is.
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T22:00:00.000Z"),
    ],
)
def test_other_zones(name: str, text: str, instant: str) -> None:
    with zone(name):
        assert when(text) == instant


NEXT = {
    "later today": ("2026-06-01T10:00:00.000Z", "13:30", "2026-06-01T11:30:00.000Z"),
    "one digit": ("2026-06-01T03:00:00.000Z", "9:30", "2026-06-01T07:30:00.000Z"),
    "a moment later": ("2026-06-01T11:29:59.999Z", "13:30", "2026-06-01T11:30:00.000Z"),
    "this very moment": ("2026-06-01T11:30:00.000Z", "13:30", "2026-06-02T11:30:00.000Z"),
    "in this minute": ("2026-06-01T11:30:59.000Z", "13:30", "2026-06-02T11:30:00.000Z"),
    "over": ("2026-06-01T12:00:00.000Z", "13:30", "2026-06-02T11:30:00.000Z"),
    "midnight": ("2026-06-01T12:00:00.000Z", "00:00", "2026-06-01T22:00:00.000Z"),
    "another year": ("2026-12-31T12:00:00.000Z", "12:00", "2027-01-01T11:00:00.000Z"),
    "behind a short night": ("2026-03-28T12:00:00.000Z", "12:00", "2026-03-29T10:00:00.000Z"),
    "behind a long night": ("2026-10-24T12:00:00.000Z", "12:00", "2026-10-25T11:00:00.000Z"),
    "left out": ("2026-03-29T00:30:00.000Z", "02:30", "2026-03-29T01:30:00.000Z"),
    "left out before": ("2026-03-29T01:10:00.000Z", "02:30", "2026-03-30T00:30:00.000Z"),
    "there twice": ("2026-10-24T22:00:00.000Z", "02:30", "2026-10-25T00:30:00.000Z"),
    "once over": ("2026-10-25T00:40:00.000Z", "02:30", "2026-10-26T01:30:00.000Z"),
    "there again": ("2026-10-25T01:10:00.000Z", "02:30", "2026-10-25T01:30:00.000Z"),
    "twice over": ("2026-10-25T01:30:00.000Z", "02:30", "2026-10-26T01:30:00.000Z"),
}


@pytest.mark.parametrize(("now", "text", "instant"), NEXT.values(), ids=NEXT)
def test_the_next_time_of_day(now: str, text: str, instant: str) -> None:
    with zone("Europe/Berlin"):
        assert when(text, now) == instant


ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana"]
)


@given(ZONES, st.integers(1_700_000_000, 2_000_000_000), st.integers(0, 23), st.integers(0, 59))
def test_the_next_time_of_day_is_to_come_and_the_clock_shows_it(
    name: str, now: int, hour: int, minute: int
) -> None:
    with zone(name):
        found = clock.parse_when(f"{hour:02d}:{minute:02d}", now)
        here, there = time.localtime(now), time.localtime(found)
        shown = there.tm_hour * 60 + there.tm_min
        assert shown - (hour * 60 + minute) in (0, 30, 60)  # later where it is left out
        assert now < found <= now + 26 * 3600
        is_over = (hour, minute) <= (here.tm_hour, here.tm_min)
        assert (there.tm_yday != here.tm_yday) == is_over


@given(
    st.integers(0, LAST // 1000 - 3 * 86400),
    st.integers(-1439, 1439),
    st.text("0123456789", min_size=1, max_size=12),
)
@example(253_402_000_000, 0, "0010")
@example(0, 0, "9999")
def test_a_time_is_never_before_what_was_named(seconds: int, minutes: int, digits: str) -> None:
    moment = datetime(1970, 1, 2, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    there = moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()
    found = clock.to_iso(clock.parse_when(f"{there[:19]}.{digits}{there[19:]}", 0))
    named = 86400 + seconds + Fraction(int(digits), 10 ** len(digits))
    stored = Fraction(round(clock.from_iso(found) * 1000), 1000)
    assert named <= stored < named + Fraction(1, 1000)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "now", "-1", "+1", "90", "1767323045", "1.5", "tomorrow", "\0", "\x1b[2J"),
        *("24:00", "12:60", "-1:00", "1:2", "12:30:00", "12:30Z", "\uff11\uff12:30", "12 30"),
        *("2026-13-01", "2026-02-29", "2026-00-01", "2026-1-2", "26-01-02", "20260102"),
        *("2026-01-02T", "2026-01-02T03", "2026-01-02T24:00", "2026-01-02T03:04:60"),
        *("2026-01-02Z", "2026-01-02T03:04:05.", "2026-01-02T03:04+24:00", "2026-01-02T03:04+1"),
        *("2026-01-02T03:04+01:60", "2026-01-02T03:04 UTC", "2026-01-02  03:04", "2026-W01-1"),
        *("0000-01-01", "12026-01-02T03:04:05Z", "-2026-01-02", "2026-01-02T03:04:05Z x"),
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a time such as 2026-01-02T") as raised:
        clock.parse_when(text, 0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        *("1969-12-31T23:59:59.999Z", "1970-01-01T00:59+01:00", "1900-01-01", "0001-01-01T00:00Z"),
        *("9999-12-31T23:59:59.9991Z", "9999-12-31T23:59:59-00:01"),
    ],
)
def test_years_that_the_text_of_an_instant_cannot_hold(text: str) -> None:
    with zone("UTC"), pytest.raises(InvalidValueError, match="is not between the years 1970 and"):
        clock.parse_when(text, 0)
