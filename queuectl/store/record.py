"""A job as a line of the job file, and back.

A line is the whole record as JSON, in ASCII, without its newline. It begins with `id`, `seq`,
`state` and `run_at` in exactly this form, so that one who follows the file learns what scheduling
needs by a search for this beginning, without parsing the rest:

    {"id":"a1","seq":7,"state":"failed","run_at":"2025-11-09T17:01:37.123Z","command":"make", ...}
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any, Mapping, Optional

from queuectl.job import Job

PURGED = "purged"
"""The state of a line that says that the job is no longer there."""

HEADS = re.compile(rb'\{"id":"([^"]*)","seq":(\d+),"state":"([a-z]+)","run_at":(?:null|"([^"]*)")')
"""Finds the beginnings of the job lines in a file: id, seq, state, and run_at if there is one.

Within a line nothing looks like one, as JSON puts a backslash before a quote in text. So it need
not look for line ends, which would take it six times as long.
"""

_FIRST = ("id", "seq", "state", "run_at")
_ORDER = _FIRST + tuple(field.name for field in fields(Job) if field.name not in _FIRST)
_FIELDS = frozenset(_ORDER)
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def to_line(job: Job) -> bytes:
    """Write a job as a line."""
    values = job.__dict__
    if tuple(values) != _ORDER:
        values = {name: values[name] for name in _ORDER}
    return _encode(values).encode("ascii")


def write_record(values: Mapping[str, Any]) -> bytes:
    """Write a whole record, whose fields are in the order of those of a line."""
    return _encode(values).encode("ascii")


def purged_line(job: Job) -> bytes:
    """Write the line that takes a job out of the store."""
    return _encode({"id": job.id, "seq": job.seq, "state": PURGED, "run_at": None}).encode("ascii")


def from_line(line: bytes) -> Job:
    """Read a job back."""
    values = json.loads(line)
    if values.keys() != _FIELDS:
        return Job(**values)
    # The same without a call for each field: every claim does this under the store's lock.
    job = object.__new__(Job)
    job.__dict__.update(values)
    return job


def none_if_purged(line: bytes) -> Optional[bytes]:
    """Return the line, or nothing if it says that the job is no longer there."""
    match = HEADS.match(line)
    return None if match is not None and match[3] == PURGED.encode() else line
