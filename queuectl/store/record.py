"""A job as a line of the job file, and back.

A line is the whole record as JSON, in ASCII, without its newline; fields that most jobs do not use
are left out. It begins with what scheduling needs, in exactly this form, so that one who follows
the file learns that by a search for this beginning (see `head`), without parsing the rest:

    {"id":"a1","seq":7,"state":"failed","run_at":"2025-11-09T17:01:37.123Z","command":"make", ...}

Between `run_at` and `command` stand the fields of `_PLAN`, all of them if one of them is unusual.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from queuectl.job import DEFAULTS, FIRST_FIELDS, OPTIONAL_FIELDS, Job
from queuectl.store.compact import encode

PURGED = "purged"
"""The state of a line that says that the job is no longer there."""
_PURGED = f'"state":"{PURGED}"'.encode()

_PLAN = ("queue", "priority", "backoff_max", "dependents", "parents")
_REST = tuple(name for name in DEFAULTS if name not in (*FIRST_FIELDS, *OPTIONAL_FIELDS))
_LAST = tuple(name for name in OPTIONAL_FIELDS if name not in _PLAN)
_PLAIN = FIRST_FIELDS + _REST
_FIELDS = frozenset(_PLAIN)
_LISTS = tuple(name for name in OPTIONAL_FIELDS if isinstance(DEFAULTS[name], tuple))


def to_line(job: Job) -> bytes:
    """Write a job as a line."""
    values = job.__dict__
    if tuple(values) != _PLAIN:
        values = _in_order(values)
    return encode(values).encode("ascii")


def _in_order(values: Dict[str, Any]) -> Dict[str, Any]:
    """The fields of a line, without those that are as usual."""
    if len(values) == len(_PLAIN):
        return {name: values[name] for name in _PLAIN}
    unusual = {
        name for name in OPTIONAL_FIELDS if name in values and values[name] != DEFAULTS[name]
    }
    plan = () if unusual.isdisjoint(_PLAN) else _PLAN
    last = tuple(name for name in _LAST if name in unusual)
    return {
        name: values.get(name, DEFAULTS[name]) for name in (*FIRST_FIELDS, *plan, *_REST, *last)
    }


def write_record(values: Mapping[str, Any]) -> bytes:
    """Write a whole record, whose fields are in the order of those of a line."""
    return encode(values).encode("ascii")


def purged_line(job: Job) -> bytes:
    """Write the line that takes a job out of the store.

    It is found wherever the lines of the job are looked for: in its queue, among those that wait
    for another, by its unique key.
    """
    line = {"id": job.id, "seq": job.seq, "state": PURGED, "run_at": None}
    for names in (_PLAN, ("unique",)):
        values = {name: getattr(job, name) for name in names}
        if any(value != DEFAULTS[name] for name, value in values.items()):
            line.update(values)
    return encode(line).encode("ascii")


def from_line(line: bytes) -> Job:
    """Read a job back."""
    values = json.loads(line)
    if values.keys() != _FIELDS:
        values.update((name, tuple(values[name])) for name in _LISTS if name in values)
        if not values.keys() >= _FIELDS:
            return Job(**values)
    # The same without a call for each field: every claim does this under the store's lock.
    job = object.__new__(Job)
    job.__dict__.update(values)
    return job


def none_if_purged(line: bytes) -> Optional[bytes]:
    """Return the line, or nothing if it says that the job is no longer there."""
    said = line.split(b",", 3)[2:3]
    return None if said == [_PURGED] else line
