"""A job as a line of the job file, and back.

A line is the whole record as JSON, in ASCII, without its newline; fields that most jobs do not use
are left out. It begins with what scheduling needs, in exactly this form, so that one who follows
the file learns that by a search for this beginning, without parsing the rest:

    {"id":"a1","seq":7,"state":"failed","run_at":"2025-11-09T17:01:37.123Z","command":"make", ...}

Between `run_at` and `command` stand the fields of `_PLAN`, all of them if one of them is unusual.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from queuectl.job import DEFAULTS, OPTIONAL_FIELDS, Job
from queuectl.store.compact import encode

PURGED = "purged"
"""The state of a line that says that the job is no longer there."""

HEADS = re.compile(
    rb'\{"id":"([^"]*)","seq":(\d+),"state":"([a-z]+)","run_at":(?:null|"([^"]*)")'
    rb'(?:,"queue":"([^"]*)","priority":(-?\d+),"backoff_max":(?:null|([-0-9.e+]+)),'
    rb'"dependents":(\d+),"parents":\[([-0-9,]*)\])?'
)
"""Finds the beginnings of the job lines in a file: id, seq, state, and run_at if there is one; then
queue, priority, backoff_max if there is one, dependents and parents, if they are there.

Within a line nothing looks like one, as JSON puts a backslash before a quote in text. So it need
not look for line ends, which would take it six times as long.
"""


class Plan(NamedTuple):
    """What a line says of a job that is not as most are.

    Attributes:
        queue: its queue.
        priority: its priority.
        reach: how far ahead its retries can lie at the most, in seconds; none for the horizon.
        dependents: how many jobs were made to wait for it.
        parents: for which jobs it waits: the `seq` of one that must complete, the negative one of
            one that must end.
    """

    queue: str
    priority: int
    reach: Optional[float]
    dependents: int
    parents: Tuple[int, ...]


_FIRST = ("id", "seq", "state", "run_at")
_PLAN = ("queue", "priority", "backoff_max", "dependents", "parents")
_REST = tuple(field.name for field in fields(Job) if field.name not in (*_FIRST, *OPTIONAL_FIELDS))
_LAST = tuple(name for name in OPTIONAL_FIELDS if name not in _PLAN)
_PLAIN = _FIRST + _REST
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
    return {name: values.get(name, DEFAULTS[name]) for name in (*_FIRST, *plan, *_REST, *last)}


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


def read_plan(
    queue: Optional[bytes],
    priority: bytes,
    backoff_max: Optional[bytes],
    dependents: bytes,
    parents: bytes,
) -> Optional[Plan]:
    """Make a plan of what stands at the beginning of a job's line; nothing if nothing does."""
    if queue is None:
        return None
    return Plan(
        queue.decode("ascii"),
        int(priority),
        # Jitter can double it.
        None if backoff_max is None else 2 * float(backoff_max),
        int(dependents),
        tuple(map(int, parents.split(b","))) if parents else (),
    )


def none_if_purged(line: bytes) -> Optional[bytes]:
    """Return the line, or nothing if it says that the job is no longer there."""
    match = HEADS.match(line)
    return None if match is not None and match[3] == PURGED.encode() else line
