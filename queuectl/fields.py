"""What can be said of a new job: as an option, and as a key of a JSON job.

One table has for each key how its text is read, and how its value in JSON; so the two ways to say a
thing never differ in what they take.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Tuple

from queuectl import clock
from queuectl.config import parse_number, parse_whole
from queuectl.errors import InvalidValueError, RequestError
from queuectl.job import SHOWN_FIELDS
from queuectl.newjob import ERROR, NO_LIMIT, REPLACE, SKIP, NewJob
from queuectl.text import as_utf8
from queuectl.values import (
    MAX_ATTEMPTS,
    MAX_BACKOFF_BASE,
    MAX_PRIORITY,
    PRIORITIES,
    is_shell,
    is_whole,
    validate_codes,
    validate_command,
    validate_id,
    validate_key,
    validate_label,
    validate_priority,
    validate_queue,
    validate_variable,
    validate_variable_name,
)

_POLICIES = (SKIP, ERROR, REPLACE)


def parse_max_retries(text: str) -> int:
    """Read a number of attempts, or raise InvalidValueError."""
    return parse_whole(text, 0, MAX_ATTEMPTS)


def parse_timeout(text: str) -> float:
    """Read a duration or `none`, or raise InvalidValueError."""
    return NO_LIMIT if text.strip().lower() == "none" else clock.parse_duration(text)


def parse_priority(text: str) -> int:
    """Read a priority: `high`, `medium`, `low` or a whole number; raises InvalidValueError."""
    word = text.strip().lower()
    if word in PRIORITIES:
        return PRIORITIES[word]
    number = word[1:] if word[:1] == "+" and word[1:2] != "-" else word
    try:
        return parse_whole(number, -MAX_PRIORITY, MAX_PRIORITY)
    except InvalidValueError as error:
        raise InvalidValueError(f"{error}: use {', '.join(PRIORITIES)} or a number") from error


def parse_run_at(text: str) -> float:
    """Read when a job may start, or raise InvalidValueError."""
    return clock.parse_when(text, clock.now())


def parse_delay(text: str) -> float:
    """Read in how many seconds a job may start, or raise InvalidValueError."""
    return 0.0 if text.strip() in ("0", "0s") else clock.parse_duration(text)


def _parse_policy(text: str) -> str:
    if text not in _POLICIES:
        raise InvalidValueError(f"{text!r} is not one of {', '.join(_POLICIES)}")
    return text


def _parse_codes(text: str) -> Tuple[int, ...]:
    return validate_codes([parse_whole(word, 0, 255) for word in text.split(",")])


def _parse_shell(text: str) -> str:
    if not is_shell(text):
        raise InvalidValueError(f"{text!r} is not the absolute path of a shell, such as /bin/bash")
    return text


def _parse_folder(text: str) -> str:
    if not text or "\0" in text:
        raise InvalidValueError("it is not the path of a folder")
    try:
        return as_utf8(os.path.abspath(os.fsdecode(text.encode("utf-8", "surrogateescape"))))
    except FileNotFoundError as error:
        raise RequestError("the current folder was deleted: change to one that exists") from error


def _parse_variable(text: str) -> str:
    """Read `NAME=VALUE`, or `NAME`, which means that of the environment."""
    if "=" in text:
        return validate_variable(text)
    validate_variable(f"{text}=")
    value = os.environ.get(text)
    if value is None:
        raise InvalidValueError(f"{text} is not set in the environment: use {text}=VALUE")
    return validate_variable(f"{text}={as_utf8(value)}")


def _parse_base(text: str) -> float:
    return parse_number(text, 0, MAX_BACKOFF_BASE)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidValueError("it must be a string")
    return value


def _text_by(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: parse(_text(value))


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not is_whole(value):
            raise InvalidValueError("it must be a whole number")
        if not least <= value <= most:
            raise InvalidValueError(f"it is not between {least} and {most}")
        return int(value)

    return read


def _priority(value: Any) -> int:
    return parse_priority(value) if isinstance(value, str) else validate_priority(_number(value))


def _number(value: Any) -> int:
    if not is_whole(value):
        raise InvalidValueError("it must be a whole number, or one of high, medium and low")
    return int(value)


def _seconds(value: Any) -> float:
    """Read a number of seconds, or null, which means no limit."""
    if value is None:
        return NO_LIMIT
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InvalidValueError("it must be a number of seconds, or null")
    if not 0.001 <= value <= clock.MAX_DURATION:
        raise InvalidValueError("it is not between 0.001 and a century")
    return round(float(value), 3)


def _delay(value: Any) -> float:
    if isinstance(value, str):
        return parse_delay(value)
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if value is None:
        raise InvalidValueError("it must be a number of seconds, or a duration as text")
    return _seconds(value)


def _base(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InvalidValueError("it must be a number")
    if not 0 <= value <= MAX_BACKOFF_BASE:
        raise InvalidValueError(f"it is not between 0 and {MAX_BACKOFF_BASE:g}")
    return float(value)


def _several(read: Callable[[str], str]) -> Callable[[Any], Tuple[str, ...]]:
    def read_all(value: Any) -> Tuple[str, ...]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list):
            raise InvalidValueError("it must be a string, or an array of strings")
        return tuple(read(_text(each)) for each in values)

    return read_all


def _codes(value: Any) -> Tuple[int, ...]:
    if not isinstance(value, list):
        raise InvalidValueError("it must be an array of whole numbers")
    return validate_codes([_whole(0, 255)(each) for each in value])


def _variables(value: Any) -> Tuple[str, ...]:
    if not isinstance(value, dict):
        raise InvalidValueError("it must be an object from name to text")
    return tuple(
        # By itself: `A=B` would be taken for the name A.
        validate_variable(f"{validate_variable_name(name)}={_text(text)}")
        for name, text in value.items()
    )


class Field(NamedTuple):
    """Something that can be said of a new job.

    Attributes:
        attribute: of `NewJob`, which holds it.
        read: makes its value of one in JSON; raises InvalidValueError.
        parse: makes its value of the text of an option; raises InvalidValueError.
        metavar: how its help calls that text.
        help: what the option does.
        many: whether the option may be given several times.
    """

    attribute: str
    read: Callable[[Any], Any]
    parse: Callable[[str], Any]
    metavar: str
    help: str
    many: bool = False


FIELDS: Dict[str, Field] = {
    "max_retries": Field(
        "max_retries",
        _whole(0, MAX_ATTEMPTS),
        parse_max_retries,
        "N",
        "Attempts in all. Default: setting max_retries.",
    ),
    "timeout": Field(
        "timeout",
        _seconds,
        parse_timeout,
        "S",
        "How long one attempt may run: 90, 10s, 5m, 2h, 1d or none. Default: setting job_timeout.",
    ),
    "priority": Field(
        "priority",
        _priority,
        parse_priority,
        "P",
        "high, medium, low or a number: 10, 0, -10. Higher runs first. Default: medium.",
    ),
    "queue": Field(
        "queue",
        _text_by(validate_queue),
        validate_queue,
        "NAME",
        "The queue to put it in. Default: default.",
    ),
    "run_at": Field(
        "run_at",
        _text_by(parse_run_at),
        parse_run_at,
        "WHEN",
        "Not before: 2027-01-31T08:30 (local time, or with a zone) or 08:30 (the next one).",
    ),
    "delay": Field(
        "delay", _delay, parse_delay, "S", "Not before so long has passed: 90, 10s, 5m, 2h, 1d."
    ),
    "after": Field(
        "after",
        _several(str),
        str,
        "ID",
        "Only once this job completed. May be repeated: after all of them.",
        many=True,
    ),
    "after_any": Field(
        "after_any",
        _several(str),
        str,
        "ID",
        "Only once this job ended, however. May be repeated.",
        many=True,
    ),
    "unique": Field(
        "unique",
        _text_by(validate_key),
        validate_key,
        "KEY",
        "Only if no other job of this key waits or runs.",
    ),
    "on_conflict": Field(
        "on_conflict",
        _text_by(_parse_policy),
        _parse_policy,
        "P",
        "If one does: skip (the default), error, or replace (one that waits).",
    ),
    "labels": Field(
        "labels",
        _several(validate_label),
        validate_label,
        "L",
        "A word by which to find it. May be repeated.",
        many=True,
    ),
    "env": Field(
        "env",
        _variables,
        _parse_variable,
        "NAME[=VALUE]",
        "A variable for it: VALUE, or what it is now, is stored. May be repeated.",
        many=True,
    ),
    "cwd": Field(
        "cwd", _text_by(_parse_folder), _parse_folder, "DIR", "Where it runs. Default: here."
    ),
    "shell": Field(
        "shell",
        _text_by(_parse_shell),
        _parse_shell,
        "PATH",
        "What runs it. Default: setting shell.",
    ),
    "backoff_base": Field(
        "backoff_base",
        _base,
        _parse_base,
        "N",
        "Wait N ** n seconds after attempt n. Default: setting backoff_base.",
    ),
    "backoff_max": Field(
        "backoff_max",
        _seconds,
        parse_timeout,
        "S",
        "The longest delay between attempts, or none. Default: setting backoff_max.",
    ),
    "success_codes": Field(
        "success_codes", _codes, _parse_codes, "C,C", "Exit codes that complete it. Default: 0."
    ),
    "no_retry_on": Field(
        "no_retry_on", _codes, _parse_codes, "C,C", "Exit codes that make it dead at once."
    ),
}
"""By key in JSON; the option is called the same, but `--label`."""
KEYS = ("id", "command", *FIELDS)
"""All keys of a JSON job."""


def read_fields(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Read what a JSON job says beside its id and command.

    Raises:
        InvalidValueError: a value is none of its key's; the message names the key.
    """
    read: Dict[str, Any] = {}
    for key, value in values.items():
        try:
            read[key] = FIELDS[key].read(value)
        except InvalidValueError as error:
            what = str(error)
            what = f"{key} {what[len('it ') :]}" if what.startswith("it ") else f"{key}: {what}"
            raise InvalidValueError(f"bad JSON job: {what}") from error
    if "run_at" in read and "delay" in read:
        raise InvalidValueError("bad JSON job: choose one of run_at and delay")
    return read


def to_attributes(fields: Mapping[str, Any]) -> Dict[str, Any]:
    """Turn what is said of a job, by key, into attributes of `NewJob`."""
    return {FIELDS[key].attribute: value for key, value in fields.items()}


def merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> Dict[str, Any]:
    """Put together what options say for all lines and what one says for itself, by key."""
    times: List[str] = ["run_at", "delay"]
    has_time = any(key in own for key in times)
    kept = {key: v for key, v in defaults.items() if not (has_time and key in times)}
    return {**kept, **own}


def read_object(values: Dict[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Read what a JSON job says; returns its id and command, and what else, by key.

    Raises:
        InvalidValueError: a key or a value is none of a job; the message names the key.
    """
    for key in values:
        if key not in KEYS:
            raise InvalidValueError(f"bad JSON job: the key {_why_not(key)}")
    if "command" not in values:
        raise InvalidValueError('bad JSON job: the key "command" is missing')
    for key in ("id", "command"):
        if key in values and not isinstance(values[key], str):
            raise InvalidValueError(f"bad JSON job: {key} must be a string")
    named: Dict[str, Any] = {key: values.pop(key) for key in ("id", "command") if key in values}
    validate_command(named["command"])
    if "id" in named:
        validate_id(named["id"])
    return named, read_fields(values)


def _why_not(key: str) -> str:
    if key in SHOWN_FIELDS:
        return f"{key!r} is set by queuectl"
    import difflib

    near = difflib.get_close_matches(key.lower(), KEYS, n=1)
    return f"{key!r} is unknown: " + (
        f"did you mean {near[0]!r}?" if near else f"use {', '.join(KEYS)}"
    )


def read_job(values: Dict[str, Any]) -> NewJob:
    """Read a JSON job, as a whole; raises InvalidValueError as `read_object` does."""
    named, fields = read_object(dict(values))
    if "on_conflict" in fields and "unique" not in fields:
        raise InvalidValueError("bad JSON job: on_conflict needs unique")
    return NewJob(**named, **to_attributes(fields))
