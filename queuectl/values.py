"""What the values of a job may be: each is checked here, wherever it comes from.

Whatever passes can be stored, shown, and given to a shell; so nobody further down has to look
again.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, Sequence, Tuple

from queuectl.errors import InvalidValueError

# Linux takes at most 32 pages, the closing NUL included, for one argument of a new program
# (MAX_ARG_STRLEN).
MAX_COMMAND_BYTES = 131071
MAX_ATTEMPTS = 1_000_000
MAX_PRIORITY = 1_000_000
MAX_BACKOFF_BASE = 1e6
DEFAULT_QUEUE = "default"
PRIORITIES: Mapping[str, int] = {"high": 10, "medium": 0, "low": -10}
"""The priorities that have names."""

# Compiled when one is needed, which takes longer than all the rest of this module.
_ID = r"[A-Za-z0-9._-]{1,64}"
_QUEUE = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
# Neither what would break a row of a list, nor what separates labels.
_LABEL = r"[^\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff,]{1,64}"
_KEY = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,200}"
_OWN_VARIABLES = ("QUEUECTL_JOB_", "QUEUECTL_STORE")


def validate_id(job_id: str) -> str:
    """Return an id, or raise InvalidValueError unless it is 1 to 64 of A-Z, a-z, 0-9, `._-`."""
    if re.fullmatch(_ID, job_id) is None:
        raise InvalidValueError(f"bad id {job_id!r}: use 1 to 64 letters, digits, '.', '_' and '-'")
    return job_id


def validate_command(command: str) -> str:
    """Return the command, or raise InvalidValueError if no shell could be given it."""
    if not command.strip():
        raise InvalidValueError("the command is empty")
    if "\0" in command:
        raise InvalidValueError("the command holds a NUL byte, which no shell can be given")
    size = _size(command, "the command")
    if size > MAX_COMMAND_BYTES:
        raise InvalidValueError(
            f"the command has {size} bytes, more than the {MAX_COMMAND_BYTES} that a shell can be "
            "given: put it in a script"
        )
    return command


def validate_queue(name: str) -> str:
    """Return the name of a queue.

    Raises:
        InvalidValueError: it is not 1 to 64 of A-Z, a-z, 0-9, `._-`, beginning with none of `.-`.
    """
    if re.fullmatch(_QUEUE, name) is None:
        raise InvalidValueError(
            f"bad queue name {name!r}: use 1 to 64 letters, digits, '_', '.' and '-', "
            "the first of them no '.' or '-'"
        )
    return name


def validate_label(label: str) -> str:
    """Return a label, or raise InvalidValueError unless it is 1 to 64 characters, none blank."""
    if re.fullmatch(_LABEL, label) is None:
        raise InvalidValueError(
            f"bad label {label!r}: use 1 to 64 characters, no blanks and no commas"
        )
    return label


def validate_key(key: str) -> str:
    """Return a unique key, or raise InvalidValueError unless it is 1 to 200 plain characters."""
    if re.fullmatch(_KEY, key) is None:
        raise InvalidValueError(
            f"bad unique key {key!r}: use 1 to 200 characters, and no control characters"
        )
    return key


def validate_priority(priority: int) -> int:
    """Return a priority, or raise InvalidValueError if it is out of range."""
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise InvalidValueError(
            f"priority {priority} is not between {-MAX_PRIORITY} and {MAX_PRIORITY}"
        )
    return priority


def validate_attempts(attempts: int) -> int:
    """Return a number of attempts, or raise InvalidValueError if it is out of range."""
    if not 0 <= attempts <= MAX_ATTEMPTS:
        raise InvalidValueError(f"max_retries {attempts} is not between 0 and {MAX_ATTEMPTS}")
    return attempts


def validate_variable(assignment: str) -> str:
    """Return a `NAME=VALUE` for a job's environment.

    Raises:
        InvalidValueError: no shell can be given it, or it is one that QueueCTL itself sets.
    """
    name, _, value = assignment.partition("=")
    validate_variable_name(name)
    if "\0" in value:
        raise InvalidValueError(f"variable {name} holds a NUL byte, which no job can be given")
    if _size(assignment, f"variable {name}") > MAX_COMMAND_BYTES:
        raise InvalidValueError(
            f"variable {name} has more than the {MAX_COMMAND_BYTES} bytes that a job can be given"
        )
    return assignment


def validate_variable_name(name: str) -> str:
    """Return the name of a variable for a job; raises as `validate_variable` does."""
    if re.fullmatch(_VARIABLE, name) is None:
        raise InvalidValueError(f"bad variable {name!r}: use letters, digits and '_'")
    if name.startswith(_OWN_VARIABLES):
        raise InvalidValueError(f"bad variable {name!r}: queuectl sets it")
    return name


def validate_variables(assignments: Iterable[str]) -> Tuple[str, ...]:
    """Check the `NAME=VALUE`s of an environment; of one name the last counts."""
    named = {one.partition("=")[0]: validate_variable(one) for one in assignments}
    return tuple(named.values())


def validate_codes(codes: Sequence[int]) -> Tuple[int, ...]:
    """Return exit codes in order, each once, or raise InvalidValueError if one is none."""
    for code in codes:
        if not 0 <= code <= 255:
            raise InvalidValueError(f"exit code {code} is not between 0 and 255")
    return tuple(sorted(set(codes)))


def is_shell(path: str) -> bool:
    """Whether this can be the path of a program that runs commands."""
    return path.startswith("/") and "\0" not in path


def is_whole(value: Any) -> bool:
    """Whether a value, as JSON has it, is a whole number: for Python, true is one."""
    return isinstance(value, int) and not isinstance(value, bool)


def _size(text: str, what: str) -> int:
    try:
        return len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise InvalidValueError(f"{what} holds a lone surrogate that stands for no byte") from error
