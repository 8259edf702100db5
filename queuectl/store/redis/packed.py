"""A job as its value in Redis, and back.

A value is a line of what scripts need, then JSON of the rest, in ASCII. The line is
`SEQ REV RUNS STATE`, where the state is a letter, and behind it, each with a space before it, a
letter and its text for what is not as usual:

    P  priority                      D  how many were made to wait for it
    Q  queue                         A  parents: their `seq`, negative for one that must only end
    T  `run_at`, in milliseconds     U  unique key, quoted as in a URL
    B  how far ahead a retry can     W  worker, quoted too
       lie, in seconds               C  claimed at, in milliseconds
    E  failed or dead at, in milliseconds
    S  since when it waits, in milliseconds, if not since its `run_at`
    G  how long its last run took, in milliseconds, if this is the change that ended it
    V  1 if its worker died then

A claim changes the line alone, and leaves `C` in it: the JSON is still that of the job that waited,
and whoever reads it applies the rule of the claim. So a script never has to understand JSON.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple
from urllib.parse import quote, unquote_to_bytes

from queuectl import clock, totals
from queuectl import job as rules
from queuectl.job import DEFAULTS, OPTIONAL_FIELDS, Job, JobState
from queuectl.store.compact import encode

LETTERS = {
    JobState.PENDING: "p",
    JobState.PROCESSING: "r",
    JobState.COMPLETED: "c",
    JobState.FAILED: "f",
    JobState.DEAD: "d",
    JobState.CANCELLED: "x",
}
DELAYED = "y"
"""What stands for delayed jobs where the letters of states do in counts."""

_STATES = {letter.encode(): state for state, letter in LETTERS.items()}
_IN_LINE = {
    *("id", "seq", "rev", "runs", "state", "priority", "queue", "run_at"),
    *("dependents", "parents", "unique", "worker"),
}
_LISTS = tuple(name for name in OPTIONAL_FIELDS if isinstance(DEFAULTS[name], tuple))
# What every job has of its own; the others stand in the class until they are something else.
_EVERY = {
    name: value
    for name, value in Job("", "", JobState.PENDING, 0, 0, "", "").__dict__.items()
    if name not in OPTIONAL_FIELDS
}
_USUAL = {**DEFAULTS, "attempts": 0}


def pack(job: Job) -> str:
    """Write a job that has its place."""
    return f"{job.seq} {_line(job, job.parents)}\n{_json(job)}"


def pack_new(job: Job, seq_of: Mapping[str, int], place_of: Mapping[str, int]) -> str:
    """Write a new job, whose place a script will put before it.

    Args:
        job: the job.
        seq_of: by id, the places of jobs that are there, for which one may have to wait.
        place_of: the same of the jobs of its batch, counted from 0 within that.
    """

    def places(parents: Sequence[str], sign: str) -> Iterator[str]:
        for parent in parents:
            if parent in place_of:
                yield f"{sign}n{place_of[parent]}"
            elif parent in seq_of:
                yield f"{sign}{seq_of[parent]}"

    parents = (*places(job.after, ""), *places(job.after_any, "-"))
    return f"{_line(job, parents)}\n{_json(job)}"


def unpack(job_id: str, value: bytes) -> Job:
    """Read a job back."""
    line, _, text = value.partition(b"\n")
    seq, rev, runs, letter, *options = line.split(b" ")
    made: Job = object.__new__(Job)
    values = made.__dict__
    values.update(_EVERY)
    values.update(json.loads(text))
    values.update(id=job_id, seq=int(seq), rev=int(rev), runs=int(runs), state=_STATES[letter])
    if not values["updated_at"]:
        values["updated_at"] = values["created_at"]
    if len(values) > len(_EVERY):
        values.update((name, tuple(values[name])) for name in _LISTS if name in values)
    if not options:
        return made
    claimed_at: Optional[int] = None
    for option in options:
        tag, said = option[:1], option[1:]
        if tag == b"C":
            claimed_at = int(said)
        elif tag in _READ:
            name, read = _READ[tag]
            values[name] = read(said)
    if claimed_at is None:
        return made
    worker = values["worker"]
    values.update(state=JobState.PENDING, rev=made.rev - 1, runs=made.runs - 1, run_at=None)
    return rules.claim(made, worker, claimed_at / 1000)


def milliseconds(instant: float) -> int:
    """An instant in seconds as a whole number of milliseconds."""
    return round(instant * 1000)


def quoted(text: str) -> str:
    """A worker's id, or a unique key, as it stands in a line."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def unquoted(text: bytes) -> str:
    """The text that was quoted."""
    return unquote_to_bytes(text).decode("utf-8", "surrogatepass")


_READ: Dict[bytes, Tuple[str, Any]] = {
    b"P": ("priority", int),
    b"Q": ("queue", bytes.decode),
    b"T": ("run_at", lambda said: clock.to_iso(int(said) / 1000)),
    b"D": ("dependents", int),
    b"A": ("parents", lambda said: tuple(map(int, said.split(b",")))),
    b"U": ("unique", unquoted),
    b"W": ("worker", unquoted),
}


def _line(job: Job, parents: Sequence[object]) -> str:
    """What stands in the line behind `seq`."""
    values = job.__dict__
    line = f"{job.rev} {job.runs} {LETTERS[job.state]}"
    if len(values) > len(_EVERY):
        for tag, name in (("P", "priority"), ("Q", "queue"), ("D", "dependents")):
            if values.get(name, DEFAULTS[name]) != DEFAULTS[name]:
                line += f" {tag}{values[name]}"
        if job.backoff_max is not None:
            # Jitter can double it.
            line += f" B{2 * job.backoff_max!r}"
        if job.unique is not None:
            line += " U" + quoted(job.unique)
    if parents:
        line += " A" + ",".join(map(str, parents))
    if job.run_at is not None:
        line += f" T{_moment(job.run_at)}"
    if job.worker is not None:
        line += " W" + quoted(job.worker)
    return line + _times(job)


def _times(job: Job) -> str:
    line = ""
    if job.state in (JobState.FAILED, JobState.DEAD):
        line += f" E{_moment(job.updated_at)}"
    if job.waits and totals.waits_since(job) != job.run_at:
        line += f" S{_moment(job.updated_at)}"
    if job.started_at is not None and job.state != JobState.PROCESSING:
        line += f" G{totals.run_took(job)}"
        if job.last_error == rules.WORKER_DIED:
            line += " V1"
    return line


def _moment(text: str) -> int:
    return milliseconds(clock.from_iso(text))


def _json(job: Job) -> str:
    rest = {
        name: value
        for name, value in job.__dict__.items()
        if name not in _IN_LINE and value != _USUAL.get(name, "")
    }
    if job.updated_at == job.created_at:
        del rest["updated_at"]
    return encode(rest)
