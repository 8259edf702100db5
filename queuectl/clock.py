"""Time as the store and the user write it: instants as ISO 8601 text, durations as `90` or `5m`.

Instants have one fixed width (`2025-11-09T17:01:37.123Z`, always UTC, always milliseconds), so that
they sort as text. Inside the program an instant is a float of seconds since the epoch. A rule never
reads the clock: it is given `now`. Conversion rounds down to the millisecond and back exactly, so
an instant never moves by being stored. Only what a user asks for is rounded up, never to be early.
"""

from __future__ import annotations

import functools
import math
import re
import time
from datetime import date, datetime, timedelta, timezone
from typing import Match

from queuectl.errors import InvalidValueError

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Text, compiled when it is used: most commands need none of them.
_DURATION = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([smhd]?)"
_CLOCK = r"(\d?\d):(\d\d)"
_WHEN = (
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?"
    r"(?: ?(?:(Z)|([+-]\d\d)(?::?([0-5]\d))?))?)?"
)
_INSTANT = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z"

# What the text of an instant can hold.
_LAST_INSTANT = 253_402_300_799.999  # 9999-12-31T23:59:59.999Z

# A century: longer than any job waits, short enough that an instant plus it stays a four-digit
# year.
MAX_DURATION = 100 * 365 * 86400.0


def now() -> float:
    """The current time, in seconds since the epoch, cut to the millisecond."""
    return time.time_ns() // 1_000_000 / 1000


@functools.lru_cache(maxsize=4)
def to_iso(instant: float) -> str:
    """Write an instant as fixed-width UTC text.

    It is cached, for a change of a job writes the same `now` several times.

    Args:
        instant: seconds since the epoch.
    """
    # Two units in the last place make up for binary fractions: 0.123 must not become .122.
    milliseconds = int(instant * 1000 * (1 + 2**-51))
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{text}.{milliseconds % 1000:03d}Z"


def from_iso(text: str) -> float:
    """Read back what `to_iso` wrote, as seconds since the epoch.

    Raises:
        InvalidValueError: the text is not in that one form.
    """
    match = re.fullmatch(_INSTANT, text, re.ASCII)
    try:
        if match is not None:
            seconds = datetime.fromisoformat(match[1] + "+00:00").timestamp()
            return (int(seconds) * 1000 + int(match[2])) / 1000
    except ValueError:
        pass
    raise InvalidValueError(f"{text!r} is not a time such as 2025-11-09T17:01:37.123Z")


def between(start: str, end: str) -> int:
    """Tell how many milliseconds lie between two instants, as `to_iso` wrote them.

    It is none if the end comes first, as it may where the clock stepped back. Every claim asks
    this, so it takes a fraction of what `from_iso` does.
    """
    return max(_milliseconds(end) - _milliseconds(start), 0)


def parse_duration(text: str) -> float:
    """Read a duration in seconds, to the millisecond: `90`, `0.5`, `10s`, `5m`, `2h`, `1d`.

    Raises:
        InvalidValueError: not in that form, not above 0, or longer than a century.
    """
    match = re.fullmatch(_DURATION, text.strip(), re.ASCII)
    seconds = round(float(match[1]) * _UNITS[match[2]], 3) if match is not None else math.nan
    if not 0 < seconds <= MAX_DURATION:
        raise InvalidValueError(
            f"{text!r} is not a duration above 0, such as 90, 10s, 5m, 2h or 1d"
        )
    return seconds


def format_duration(seconds: float) -> str:
    """Write a duration so that `parse_duration` reads the same: `90s`, `1h`, `0.5s`.

    Args:
        seconds: the duration; whole days, hours and minutes get their unit, anything else is in
            seconds.
    """
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def parse_when(text: str, now: float) -> float:
    """Read the instant that a user names, in seconds since the epoch, to the millisecond.

    It is either ISO 8601: a date, and behind `T` or a space a time of day, whose seconds and their
    fraction may be left out, as may its zone (`Z`, `+02:00`, `+0200` or `+02`). A date alone means
    its midnight. Or it is `HH:MM`: the next one, tomorrow's in that minute and behind it. Without a
    zone it is local time, as in `TZ`:

    - a time that the clock leaves out in spring is that much later: where 02:00 is followed by
      03:00, 02:30 means 03:30 (as with `fold=0` in PEP 495);
    - a time that the clock shows twice in autumn is the first of both; as `HH:MM`, the second if
      the first is over, but the clock shows an earlier time again.

    It is never an instant before the one that was named: a part of a millisecond is rounded up.

    Args:
        text: as above.
        now: the current time, in seconds since the epoch; only `HH:MM` depends on it.

    Raises:
        InvalidValueError: not in one of these forms, or not between the years 1970 and 9999.
    """
    text = text.strip()
    moment, of_day = (re.fullmatch(form, text, re.ASCII) for form in (_WHEN, _CLOCK))
    try:
        if moment is not None:
            instant = _instant_of(moment)
        elif of_day is not None:
            instant = _next_local(int(of_day[1]), int(of_day[2]), now)
        else:
            raise ValueError
    except (ValueError, OverflowError, OSError):
        # The last two come from the system's own calendar, which ends somewhere.
        raise InvalidValueError(
            f"{text!r} is not a time such as 2026-01-02T03:04:05Z, "
            "'2026-01-02 03:04' (local time) or 17:30 (the next one)"
        ) from None
    if not 0 <= instant <= _LAST_INSTANT:
        raise InvalidValueError(f"{text!r} is not between the years 1970 and 9999")
    return instant


def _milliseconds(text: str) -> int:
    minutes = int(text[11:13]) * 60 + int(text[14:16])
    return _start_of_day(text[:10]) + (minutes * 60 + int(text[17:19])) * 1000 + int(text[20:23])


@functools.lru_cache(maxsize=8)
def _start_of_day(text: str) -> int:
    return date.fromisoformat(text).toordinal() * 86_400_000


def _instant_of(moment: Match[str]) -> float:
    year, month, day, hour, minute, second = (int(part or 0) for part in moment.groups()[:6])
    fraction, utc, hours, minutes = moment.groups()[6:]
    zone = timezone.utc if utc else None
    if hours is not None:
        zone = timezone(timedelta(hours=int(hours), minutes=int(f"{hours[0]}{minutes or 0}")))
    seconds = datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp()
    digits = (fraction or "").ljust(3, "0")
    milliseconds = int(digits[:3]) + (digits[3:].strip("0") != "")
    return (int(seconds) * 1000 + milliseconds) / 1000


def _next_local(hour: int, minute: int, now: float) -> float:
    here = time.localtime(math.floor(now))
    day = date(here.tm_year, here.tm_mon, here.tm_mday)
    if (hour, minute) <= (here.tm_hour, here.tm_min):
        day += timedelta(days=1)
    first = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001  # It is local.
    instant = first.timestamp()
    return instant if instant > now else first.replace(fold=1).timestamp()
