"""Time as the store and the user write it: instants as ISO 8601 text, durations as `90` or `5m`.

Instants have one fixed width (`2025-11-09T17:01:37.123Z`, always UTC, always milliseconds), so that
they sort as text. Inside the program an instant is a float of seconds since the epoch. A rule never
reads the clock: it is given `now`. Conversion rounds down to the millisecond and back exactly, so
an instant never moves by being stored.
"""

from __future__ import annotations

import functools
import math
import re
import time
from datetime import datetime

from queuectl.errors import InvalidValueError

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([smhd]?)", re.ASCII)
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z", re.ASCII)

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
    # The half microsecond makes up for binary fractions: 0.123 must not become .122.
    milliseconds = int(instant * 1000 + 0.0005)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{text}.{milliseconds % 1000:03d}Z"


def from_iso(text: str) -> float:
    """Read back what `to_iso` wrote, as seconds since the epoch.

    Raises:
        InvalidValueError: the text is not in that one form.
    """
    match = _INSTANT.fullmatch(text)
    try:
        if match is not None:
            seconds = datetime.fromisoformat(match[1] + "+00:00").timestamp()
            return (int(seconds) * 1000 + int(match[2])) / 1000
    except ValueError:
        pass
    raise InvalidValueError(f"{text!r} is not a time such as 2025-11-09T17:01:37.123Z")


def parse_duration(text: str) -> float:
    """Read a duration in seconds, to the millisecond: `90`, `0.5`, `10s`, `5m`, `2h`, `1d`.

    Raises:
        InvalidValueError: not in that form, not above 0, or longer than a century.
    """
    match = _DURATION.fullmatch(text.strip())
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
