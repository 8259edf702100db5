"""Jobs as text: a JSON object, or the lines of a file; all checked before the store is opened."""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO, Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple

from queuectl.admission import Receipt
from queuectl.cli import output
from queuectl.cli.command import Session
from queuectl.errors import DuplicateIdError, InvalidValueError, RequestError
from queuectl.fields import merged, read_object, to_attributes
from queuectl.newjob import NewJob
from queuectl.values import validate_command

LONGEST_LINE = 1 << 20
"""In bytes. JSON may take six to write one of the 131,071 that a command may have."""

_LITERAL = "-- "
_REPORT_EVERY = 1000


def parse_json_job(text: str, given: Mapping[str, Any]) -> NewJob:
    """Read a job that is written as a JSON object.

    Args:
        text: the object.
        given: by key, what options say; a key that also stands in the object is refused.

    Raises:
        InvalidValueError: it is not JSON, or not a job.
    """
    named, fields = _read_object(text)
    for key in (*named, *fields):
        if key in given:
            raise InvalidValueError(f"{key} is given twice: in the JSON job and as an option")
    for key, other in (("run_at", "delay"), ("delay", "run_at")):
        if key in fields and other in given:
            raise InvalidValueError(f"choose one of {key} in the JSON job and {other} as an option")
    return _new_job(named, given, fields)


def new_job(command: str, given: Mapping[str, Any]) -> NewJob:
    """Make a job of its command and what options say, by key; raises InvalidValueError."""
    return _new_job({"command": validate_command(command)}, given, {})


def _new_job(named: Mapping[str, Any], given: Mapping[str, Any], own: Mapping[str, Any]) -> NewJob:
    fields = merged(given, own) if own else dict(given)
    if "on_conflict" in own and "unique" not in fields:
        raise InvalidValueError("bad JSON job: on_conflict needs unique")
    if "id" in fields:
        named = {"id": fields.pop("id"), **named}
    return NewJob(**named, **to_attributes(fields))


def _read_object(text: str) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Read an object; returns its id and command, and what else it says, by key."""
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise _bad_json(f"{what} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits; brackets in thousands of brackets.
        raise _bad_json("too large a number, or too deep") from error
    return read_object(values)


def _bad_json(why: str) -> InvalidValueError:
    return InvalidValueError(f"bad JSON job: {why}; for a shell group put -- before it")


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    values: Dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise InvalidValueError(f"bad JSON job: the key {key!r} is there twice")
        values[key] = value
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidValueError(f"bad JSON job: {name} is not a number")


def add_file(session: Session, path: str, defaults: Mapping[str, Any]) -> Receipt:
    """Add a job for each line of a file, all or none.

    Args:
        session: whose store.
        path: of the file; `-` is standard input.
        defaults: by key, what options say for the lines that do not.

    Raises:
        InvalidValueError: the file cannot be read, or a line is bad; the message gives its number.
        DuplicateIdError: an id is taken, in the store or by another line.
    """
    is_typed = path == "-" and os.isatty(0)
    with output.Progress("reading jobs ...", wanted=not is_typed) as progress:
        try:
            with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
                requests = _read_lines(file, defaults, progress)
        except OSError as error:
            raise InvalidValueError(f"cannot read {path}: {error.strerror}") from error
        if not requests:
            return Receipt([], frozenset(), [])
        progress.show(f"adding {len(requests)} jobs ...")
        with session.open(create=True) as manager:
            try:
                return manager.submit(list(requests.values()))
            except DuplicateIdError as error:
                number = next(n for n, job in requests.items() if job.id == error.job_id)
                raise RequestError(f"line {number}: job {error.job_id!r} exists already") from error
            except (RequestError, InvalidValueError) as error:
                if error.request is None:
                    raise
                number = list(requests)[error.request]
                raise (InvalidValueError if isinstance(error, InvalidValueError) else RequestError)(
                    f"line {number}: {error}"
                ) from error


def _read_lines(
    file: BinaryIO, defaults: Mapping[str, Any], progress: output.Progress
) -> Dict[int, NewJob]:
    """Read the jobs of a file, each by the number of its line."""
    requests: Dict[int, NewJob] = {}
    lines_of: Dict[str, int] = {}
    # Most lines are a command and nothing else: what the options say is put together once for them.
    _, *options = new_job("true", defaults)
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
        try:
            request = _read_line(line, defaults, options)
        except InvalidValueError as error:
            raise InvalidValueError(f"line {number}: {error}") from error
        if request is None:
            continue
        if request.id is not None:
            other = lines_of.setdefault(request.id, number)
            if other != number:
                raise RequestError(f"line {number}: id {request.id!r} is also on line {other}")
        requests[number] = request
        if number % _REPORT_EVERY == 0:
            progress.show(f"read {number} lines ...")
    return requests


def _read_line(
    line: bytes, defaults: Mapping[str, Any], options: Sequence[Any]
) -> Optional[NewJob]:
    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
        raise InvalidValueError(f"it is longer than {LONGEST_LINE} bytes")
    text = line.decode("utf-8", "surrogateescape").lstrip("\ufeff").rstrip("\r\n")
    start = text.lstrip()
    if not start or start.startswith("#"):
        return None
    if start.startswith("{"):
        named, fields = _read_object(start)
        return _new_job(named, defaults, fields)
    if text.startswith(_LITERAL):
        text = text[len(_LITERAL) :]
    return NewJob(validate_command(text), *options)
