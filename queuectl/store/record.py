"""A job as a line of the job file, and back.

A line is the whole record as JSON, in ASCII, without its newline. It begins with `id`, `seq`,
`state` and `run_at` in exactly this form, so that one who follows the file learns what scheduling
needs by slicing, without parsing the rest:

    {"id":"a1","seq":7,"state":"failed","run_at":"2025-11-09T17:01:37.123Z","command":"make", ...}
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import NamedTuple, Optional

from queuectl.job import Job

PURGED = "purged"
"""The state of a line that says that the job is no longer there."""

HEADS = re.compile(rb'^\{"id":"([^"]*)","seq":(\d+),"state":"([a-z]+)","run_at":', re.MULTILINE)
"""Finds the beginnings of the job lines in a file: id, seq, state."""

_FIRST = ("id", "seq", "state", "run_at")
_ORDER = _FIRST + tuple(field.name for field in fields(Job) if field.name not in _FIRST)
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Head(NamedTuple):
    """What a line says about scheduling."""

    seq: int
    state: bytes
    run_at: Optional[bytes]


def to_line(job: Job) -> bytes:
    """Write a job as a line."""
    values = job.__dict__
    return _encode({name: values[name] for name in _ORDER}).encode("ascii")


def purged_line(job: Job) -> bytes:
    """Write the line that takes a job out of the store."""
    return _encode({"id": job.id, "seq": job.seq, "state": PURGED, "run_at": None}).encode("ascii")


def from_line(line: bytes) -> Job:
    """Read a job back."""
    return Job(**json.loads(line))


def head(line: bytes) -> Head:
    """Read the beginning of a line by slicing; the file's checksums vouch for its form."""
    seq_at = line.index(b'","seq":', 7) + 8
    state_at = line.index(b",", seq_at) + 10
    run_at = line.index(b'"', state_at) + 11
    return Head(
        int(line[seq_at : state_at - 10]),
        line[state_at : run_at - 11],
        line[run_at + 1 : run_at + 25] if line[run_at : run_at + 1] == b'"' else None,
    )
