"""`queuectl export` and `queuectl import`: a whole queue as lines of JSON, and back.

The first line says how many jobs follow, so that an export that was cut short, as by the death of
the process at the other end of a pipe, is never taken for a whole one. All lines are checked before
the store is touched.
"""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO, Collection, Dict, Iterator, List, Mapping, NamedTuple, Optional

import click

from queuectl import clock
from queuectl import job as rules
from queuectl.cli import output
from queuectl.cli.command import Command, Session, pass_session
from queuectl.cli.intake import LONGEST_LINE
from queuectl.config import SETTINGS
from queuectl.errors import DuplicateIdError, InvalidValueError, QueueError, RequestError
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.queues import is_rule, read_rules
from queuectl.render import to_json
from queuectl.soundness import to_job

_FORMAT = "queuectl-export"
_VERSION = 1
_FIRST_JOB = 2  # the number of its line
_REPORT_EVERY = 1000


class _Queue(NamedTuple):
    """What an export holds: its settings as text, and its jobs in the order of their lines."""

    settings: Dict[str, str]
    jobs: List[Job]


@click.command("export", cls=Command, short_help="Write settings and all jobs as lines of JSON.")
@pass_session
def export_queue(session: Session) -> None:
    """Write settings and all jobs, finished ones too, as lines of JSON.

    The first line names the format and holds the settings and the number of
    jobs; then comes a job a line, the oldest first, all of one moment. What jobs
    printed is not part of it. To move a queue, stop its workers first: a job
    that runs is put back into the queue where it is imported.

    Example:
      queuectl export > backup.jsonl
      queuectl export | queuectl --store copy import -
    """
    with session.open() as manager:
        count, jobs = manager.store.dump()
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "settings": dict(sorted(manager.store.settings().items())),
            "jobs": count,
        }
        output.line(to_json(header))
        for job in jobs:
            output.line(to_json(job.to_dict(reveal=True)))


@click.command("import", cls=Command, short_help="Bring back what export wrote.")
@click.argument("path", metavar="FILE")
@click.option("--skip-existing", is_flag=True, help="Pass over jobs whose id is taken.")
@pass_session
def import_queue(session: Session, path: str, skip_existing: bool) -> None:
    """Bring back what export wrote; FILE may be - for standard input.

    Jobs come back as they were, behind those that are there: all of them or,
    if a line is bad or an id is taken, none. A job that was running comes back
    as interrupted: pending, with its attempt given back. Settings come back
    where this store has none of its own. What jobs printed does not come back.

    Example:
      queuectl export | queuectl --store moved import -
      queuectl export | queuectl import --skip-existing -
    """
    is_typed = path == "-" and os.isatty(0)
    with output.Progress("reading jobs ...", wanted=not is_typed) as progress:
        try:
            with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
                queue = _read(file, progress)
        except OSError as error:
            raise InvalidValueError(f"cannot read {path}: {error.strerror}") from error
        progress.show(f"adding {len(queue.jobs)} jobs ...")
        with session.open(create=True) as manager:
            # Read first: where they are damaged, nothing is added either.
            own = manager.store.settings()
            new = _configure(manager, own, queue.settings)
            try:
                added = _add(manager, queue.jobs, skip_existing)
            except QueueError:
                if new:
                    manager.store.configure(dict.fromkeys(new))
                raise
    skipped = len(queue.jobs) - added
    if session.json:
        output.line(to_json({"imported": added, "skipped": skipped}))
    else:
        told = f"{_count(added)} imported" + (f", {skipped} passed over" if skipped else "")
        output.line(output.screen().say("📦", told) if session.talks else told)


def _read(file: BinaryIO, progress: output.Progress) -> _Queue:
    lines = iter(lambda: file.readline(LONGEST_LINE), b"")
    try:
        header = _object(next(lines, b"{}"))
        settings = _checked_header(header)
    except InvalidValueError as error:
        raise InvalidValueError(f"line 1: {error}") from error
    jobs = list(_read_jobs(lines, progress))
    said = header.get("jobs")
    if type(said) is not int or said != len(jobs):
        raise InvalidValueError(
            f"the export is not whole: line 1 says {said!r} jobs, there are {len(jobs)}"
        )
    return _Queue(settings, jobs)


def _read_jobs(lines: Iterator[bytes], progress: output.Progress) -> Iterator[Job]:
    now = clock.now()
    lines_of: Dict[str, int] = {}
    for number, line in enumerate(lines, _FIRST_JOB):
        try:
            job = to_job(_object(line))
        except InvalidValueError as error:
            raise InvalidValueError(f"line {number}: {error}") from error
        other = lines_of.setdefault(job.id, number)
        if other != number:
            raise RequestError(f"line {number}: id {job.id!r} is also on line {other}")
        # No worker of this store can hold it.
        yield rules.release(job, now) if job.state == JobState.PROCESSING else job
        if number % _REPORT_EVERY == 0:
            progress.show(f"read {number} lines ...")


def _object(line: bytes) -> Dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError("it is not JSON") from error
    if not isinstance(values, dict):
        raise InvalidValueError("it is not an object")
    return values


def _checked_header(header: Dict[str, Any]) -> Dict[str, str]:
    """Return the settings that a header holds."""
    if header.get("format") != _FORMAT:
        raise InvalidValueError("it is not the header of a queuectl export")
    version = header.get("version")
    # For JSON's true is equal to 1.
    if type(version) is not int or version != _VERSION:
        raise InvalidValueError(f"this queuectl does not know version {version!r}: upgrade it")
    settings = header.get("settings")
    if not isinstance(settings, dict):
        raise InvalidValueError("settings is not an object")
    checked: Dict[str, str] = {}
    for name, text in settings.items():
        if not isinstance(text, str):
            raise InvalidValueError(f"the setting {name} is not text")
        if is_rule(name):
            read_rules({name: text})
            checked[name] = text
            continue
        if name not in SETTINGS:
            output.notice(f"setting {name} is passed over: this queuectl does not know it")
            continue
        entry = SETTINGS[name]
        checked[entry.name] = entry.write(entry.read(text))
    return checked


def _add(manager: QueueManager, jobs: List[Job], skip_existing: bool) -> int:
    """Add the jobs, all or none; return how many those were that are not passed over."""
    while True:
        taken = {job.id for job in manager.jobs()} if skip_existing else set()
        new = [job for job in jobs if job.id not in taken]
        try:
            return len(manager.restore(new)) if new else 0
        except DuplicateIdError as error:
            if skip_existing:
                # It came since we looked.
                continue
            number = next(n for n, job in enumerate(jobs, _FIRST_JOB) if job.id == error.job_id)
            raise RequestError(f"line {number}: job {error.job_id!r} exists already") from error


def _configure(
    manager: QueueManager, own: Mapping[str, str], settings: Dict[str, str]
) -> Collection[str]:
    """Store the settings of which this store has none of its own; return their names."""
    missing: Dict[str, Optional[str]] = {}
    for name, text in settings.items():
        if name not in own:
            missing[name] = text
        elif own[name] != text:
            output.notice(f"{name} stays {own[name]}, as this store has it; exported was {text}")
    if missing:
        manager.store.configure(missing)
    return missing


def _count(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"
