"""What commands that change jobs tell of it, and arrays of whole jobs."""

from __future__ import annotations

from typing import Iterable, Sequence

from queuectl.changes import Cancelled, Retried
from queuectl.cli import output
from queuectl.cli.command import Session
from queuectl.errors import RequestError
from queuectl.family import cancelled_too
from queuectl.job import Job
from queuectl.render import job_row, to_json


def print_array(jobs: Iterable[Job]) -> None:
    """Print an array of whole jobs, one a line, without ever holding all of them."""
    separator = "["
    for job in jobs:
        output.write(f"{separator}{to_json(job.to_dict())}")
        separator = ",\n "
    output.line("[]" if separator == "[" else "]")


def tell_jobs(session: Session, jobs: Sequence[Job]) -> None:
    """Tell a program which jobs were changed, as they are now."""
    if session.json:
        print_array(jobs)
    elif not session.talks:
        for job in jobs:
            output.line(job_row(job))


def tell_followers(done: Cancelled) -> None:
    """Say which jobs are cancelled too, and why."""
    for text in cancelled_too(done.followers):
        output.notice(text)


def tell_refused(done: Retried) -> None:
    """Say which jobs were passed over, and why.

    Raises:
        RequestError: there are any.
    """
    for job_id, taken in done.refused.items():
        output.notice(f"job {job_id!r} is passed over: {taken}")
    if done.refused:
        count = len(done.refused)
        raise RequestError("1 job was passed over" if count == 1 else f"{count} were passed over")


def count_of(jobs: Sequence[Job]) -> str:
    """Say how many jobs these are."""
    return "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
