"""The settings: what each is for, its default, and what it may be.

A setting comes from the command's flag, else the variable `QUEUECTL_<SETTING>`, else what `queuectl
config` stored, else its default. Values are checked wherever they come from, so that nobody
downstream has to.
"""

from __future__ import annotations

import math
import os
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from queuectl import clock
from queuectl.errors import InvalidValueError
from queuectl.retry import RetryPolicy
from queuectl.text import as_utf8
from queuectl.values import (
    MAX_ATTEMPTS,
    MAX_BACKOFF_BASE,
    MAX_COMMAND_BYTES,
    is_shell,
    validate_command,
)

LOG_LEVELS = ("DEBUG", "INFO", "WARNING")
MAX_WORKERS = 1024
MAX_KEPT = 10**9
LEAST_LEASE = 3.0  # seconds: what a slow network or a busy machine takes must not end a claim
MAX_SHARED = 16 << 20
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_whole(text: str, least: int, most: int) -> int:
    """Read a whole number of decimal digits from `least` to `most`, or raise InvalidValueError."""
    text = text.strip()
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise InvalidValueError(f"{text!r} is not a whole number")
    if not least <= int(text) <= most:
        raise InvalidValueError(f"{text} is not between {least} and {most}")
    return int(text)


def parse_number(text: str, least: float, most: float) -> float:
    """Read a finite number from `least` to `most`, or raise InvalidValueError."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidValueError(f"{text!r} is not a number")
    if not least <= value <= most:
        raise InvalidValueError(f"{text} is not between {least:g} and {most:g}")
    return value


def parse_size(text: str) -> int:
    """Read a number of bytes: `65536`, `64 KiB`, `16M`; units are powers of 1024.

    Raises:
        InvalidValueError: not in that form, or below 1 KiB, which would leave no room for a head
            and a tail.
    """
    number = text.strip().lower()
    number = number[: -len("ib")] if number.endswith(("kib", "mib", "gib", "tib")) else number
    unit = number[-1:] if number[-1:] in _SIZES else ""
    digits = number[: len(number) - len(unit)].strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise InvalidValueError(f"{text!r} is not a size such as 65536, 64KiB, 16MiB or 1GiB")
    size = int(digits) * _SIZES[unit]
    if not 1024 <= size <= 1 << 50:
        raise InvalidValueError(f"{text} is not between 1KiB and 1024TiB")
    return size


def format_size(size: int) -> str:
    """Write a number of bytes so that `parse_size` reads the same: `16MiB`, `1536B` as `1536`."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def parse_keep(text: str) -> str:
    """Read what is kept: a number of jobs, or with a unit an age, such as `30d`.

    Returns:
        The number, or the age as `clock.format_duration` writes it.

    Raises:
        InvalidValueError: it is neither.
    """
    if not text.strip()[-1:].isalpha():
        return str(parse_whole(text, 0, MAX_KEPT))
    try:
        return clock.format_duration(clock.parse_duration(text))
    except InvalidValueError as error:
        raise InvalidValueError(f"{error}, or a number of jobs") from error


def _parse_lease(text: str) -> float:
    seconds = clock.parse_duration(text)
    if seconds < LEAST_LEASE:
        raise InvalidValueError(f"{text} is less than {clock.format_duration(LEAST_LEASE)}")
    return seconds


def _parse_shared(text: str) -> int:
    size = parse_size(text)
    if size > MAX_SHARED:
        raise InvalidValueError(f"{text} is more than {format_size(MAX_SHARED)}")
    return size


def _parse_log_level(text: str) -> str:
    if text.strip().upper() not in LOG_LEVELS:
        raise InvalidValueError(f"{text!r} is not one of {', '.join(LOG_LEVELS)}")
    return text.strip().upper()


def _parse_shell(text: str) -> str:
    if not is_shell(text):
        raise InvalidValueError(f"{text!r} is not the absolute path of a shell, such as /bin/sh")
    return text


def _parse_hook(text: str) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_COMMAND_BYTES:
        raise InvalidValueError(f"{size} bytes are more than a shell can be given: give a script")
    try:
        return validate_command(text)
    except InvalidValueError as error:
        raise InvalidValueError(f"{text!r} is not a shell command") from error


class Setting(NamedTuple):
    """One setting.

    Attributes:
        name: as it is stored and shown, with underscores.
        default: its value where nothing else is set.
        parse: text to value; raises InvalidValueError.
        format: value to the text that parses to it.
        lifts: whether `none` is a value too, and means no limit, or no command.
    """

    name: str
    default: Any
    parse: Callable[[str], Any]
    format: Callable[[Any], str] = str
    lifts: bool = False

    def read(self, text: str) -> Any:
        """Turn text into a value.

        Raises:
            InvalidValueError: the setting cannot be that; the message names it.
        """
        if self.lifts and text.strip().lower() == "none":
            return None
        try:
            return self.parse(text)
        except InvalidValueError as error:
            hint = ", or none" if self.lifts else ""
            raise InvalidValueError(f"bad value for {self.name}: {error}{hint}") from error

    def write(self, value: Any) -> str:
        """Turn a value into the text that `read` takes."""
        return "none" if value is None else self.format(value)


def _number_text(value: float) -> str:
    text = repr(value)
    return text[:-2] if text.endswith(".0") else text


def _table(*settings: Setting) -> Dict[str, Setting]:
    return {setting.name: setting for setting in settings}


_DURATION = (clock.parse_duration, clock.format_duration)

SETTINGS = _table(
    Setting("max_retries", 3, lambda text: parse_whole(text, 0, MAX_ATTEMPTS)),
    Setting(
        "backoff_base", 2.0, lambda text: parse_number(text, 0, MAX_BACKOFF_BASE), _number_text
    ),
    Setting("backoff_max", 3600.0, *_DURATION, lifts=True),
    Setting("backoff_jitter", 0.0, lambda text: parse_number(text, 0, 1), _number_text),
    Setting("worker_count", 1, lambda text: parse_whole(text, 1, MAX_WORKERS)),
    Setting("job_timeout", None, *_DURATION, lifts=True),
    Setting("shutdown_grace", 30.0, *_DURATION),
    Setting("kill_grace", 5.0, *_DURATION),
    Setting("lease", 15.0, _parse_lease, clock.format_duration),
    Setting("max_output", 16 << 20, parse_size, format_size, lifts=True),
    Setting("keep_finished", "30d", parse_keep, lifts=True),
    Setting("keep_output", 1 << 30, parse_size, format_size, lifts=True),
    Setting("redis_output", 64 << 10, _parse_shared, format_size),
    Setting("shell", "/bin/sh", _parse_shell),
    Setting("on_complete", None, _parse_hook, lifts=True),
    Setting("on_failed", None, _parse_hook, lifts=True),
    Setting("on_dead", None, _parse_hook, lifts=True),
    Setting("log_level", "INFO", _parse_log_level),
)


def setting(name: str) -> Setting:
    """Look a setting up by its name, with `-` or `_`.

    Raises:
        InvalidValueError: there is none; the message offers the nearest name.
    """
    key = name.strip().lower().replace("-", "_")
    found = SETTINGS.get(key)
    if found is None:
        import difflib

        near = difflib.get_close_matches(key, SETTINGS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "queuectl config lists them"
        raise InvalidValueError(f"unknown setting {name!r}: {hint}")
    return found


class Settings:
    """The values in force, each with where it came from.

    Args:
        stored: what the store holds, by setting name, as text.
        environ: where to look for `QUEUECTL_<SETTING>`; the process's own by default. Empty is
            unset.

    Attributes:
        retry_policy: the backoff that they describe.

    Raises:
        InvalidValueError: a stored value or a variable does not hold a value of its setting.
    """

    def __init__(
        self, stored: Mapping[str, str], environ: Optional[Mapping[str, str]] = None
    ) -> None:
        self._values: Dict[str, Tuple[Any, str]] = {}
        environ = os.environ if environ is None else environ
        for name, entry in SETTINGS.items():
            variable = "QUEUECTL_" + name.upper()
            if environ.get(variable):
                text = as_utf8(environ[variable])
                self._values[name] = (self._checked(entry, text, variable), variable)
            elif name in stored:
                text = stored[name]
                self._values[name] = (self._checked(entry, text, "stored settings"), "store")
            else:
                self._values[name] = (entry.default, "default")
        maximum = self["backoff_max"]
        self.retry_policy = RetryPolicy(
            self["backoff_base"], math.inf if maximum is None else maximum, self["backoff_jitter"]
        )

    @staticmethod
    def _checked(entry: Setting, text: str, where: str) -> Any:
        try:
            return entry.read(text)
        except InvalidValueError as error:
            raise InvalidValueError(f"{where}: {error}") from error

    def __getitem__(self, name: str) -> Any:
        return self._values[name][0]

    def source(self, name: str) -> str:
        """Where the value comes from: the name of a variable, `store` or `default`."""
        return self._values[name][1]
