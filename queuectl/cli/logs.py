"""`queuectl logs`: what a job printed, made harmless, in pieces, whatever its size."""

from __future__ import annotations

import codecs
import os
from typing import Optional

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.cli.outputs import Output, open_output
from queuectl.config import parse_whole
from queuectl.errors import RequestError
from queuectl.job import Job, JobState

_CHUNK = 1 << 16
_MOST_RUNS = 10**9


@click.command(cls=Command, short_help="Print what a job printed.")
@click.argument("job_id", metavar="ID")
@click.option(
    "--run",
    metavar="N",
    callback=checked(lambda text: parse_whole(text, 1, _MOST_RUNS)),
    help="Of which run. Default: the newest that printed anything.",
)
@click.option("--raw", is_flag=True, help="Print the bytes as they are, for a file or a program.")
@pass_session
def logs(session: Session, job_id: str, run: Optional[int], raw: bool) -> None:
    r"""Print what a job printed, also while it runs.

    Its output and its errors stand in the order in which they came. Control
    characters, such as those that colour text or move the cursor, are shown as
    \x1b and not obeyed; bytes that are not UTF-8 are shown as \xff. ID may be
    the first characters of an id, at least four.

    Example:
      queuectl logs nightly
      queuectl logs nightly --run 1 --raw > nightly.txt
    """
    if session.json:
        raise click.UsageError("logs has no JSON form: --raw gives the bytes as they are")
    with session.open() as manager:
        job = manager.find(job_id)
        found = open_output(manager, job, run)
        if found is None:
            raise RequestError(_nothing(job, run))
        try:
            _copy_raw(found) if raw else _copy(found)
        finally:
            os.close(found.fd)


def _nothing(job: Job, run: Optional[int]) -> str:
    if job.runs == 0:
        return f"job {job.id!r} has not run yet"
    if run is not None and run > job.runs:
        times = "once" if job.runs == 1 else f"{job.runs} times"
        return f"job {job.id!r} has run only {times}"
    if run is not None:
        return f"run {run} of job {job.id!r} printed nothing"
    yet = " yet" if job.state == JobState.PROCESSING else ""
    return f"job {job.id!r} has printed nothing{yet}"


def _copy_raw(found: Output) -> None:
    while True:
        data = os.read(found.fd, _CHUNK)
        if not data:
            return
        output.write_bytes(data)


def _copy(found: Output) -> None:
    screen = output.screen()
    # It keeps the beginning of a character whose end is in the next piece.
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    last = "\n"
    while True:
        data = os.read(found.fd, _CHUNK)
        text = decode(data, final=not data)
        output.write(screen.output(text))
        last = text[-1:] or last
        if not data:
            break
    if last != "\n" and output.is_terminal():
        output.line()
