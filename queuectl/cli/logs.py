"""`queuectl logs`: what a job printed, made harmless, in pieces, whatever its size."""

from __future__ import annotations

import os
from typing import Optional

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.cli.follow import Follower, Printer
from queuectl.config import parse_whole
from queuectl.errors import RequestError
from queuectl.job import Job
from queuectl.manager import QueueManager
from queuectl.outputs import open_output, pieces, start_of_lines, why_missing, why_none

_MOST = 10**9


@click.command(cls=Command, short_help="Print what a job printed.")
@click.argument("job_id", metavar="ID")
@click.option(
    "--run",
    metavar="N",
    callback=checked(lambda text: parse_whole(text, 1, _MOST)),
    help="Of which run. Default: the newest that printed anything.",
)
@click.option(
    "-n",
    "--lines",
    metavar="LINES",
    callback=checked(lambda text: parse_whole(text, 0, _MOST)),
    help="Only the last so many lines.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--raw", is_flag=True, help="Print the bytes as they are, for a file or a program.")
@pass_session
def logs(
    session: Session,
    job_id: str,
    run: Optional[int],
    lines: Optional[int],
    follow: bool,
    raw: bool,
) -> None:
    r"""Print what a job printed, also while it runs.

    Its output and its errors stand in the order in which they came. Control
    characters, such as those that colour text or move the cursor, are shown as
    \x1b and not obeyed; bytes that are not UTF-8 are shown as \xff. ID may be
    the first characters of an id, at least four.

    With --follow it shows what comes as it is written. It waits for a job that
    has not started, and goes on with the next run if one fails, until the job
    has ended; with --run until that run has. Ctrl-C leaves the job running.

    Example:
      queuectl logs nightly
      queuectl logs nightly --run 1 --raw > nightly.txt
      queuectl logs nightly --lines 20 --follow
    """
    if session.json:
        raise click.UsageError("logs has no JSON form: --raw gives the bytes as they are")
    with session.open() as manager:
        job = manager.find(job_id)
        printer = Printer(raw=raw)
        if follow:
            _follow(manager, job, printer, run, lines)
        else:
            _print(manager, job, printer, run, lines)


def _print(
    manager: QueueManager, job: Job, printer: Printer, run: Optional[int], lines: Optional[int]
) -> None:
    found = open_output(manager.store, job, run)
    if found is None:
        raise RequestError(why_none(job, run))
    try:
        start = 0 if lines is None else start_of_lines(found.fd, lines)
        shared = found.shared
        if shared is not None and shared.missing and start <= len(shared.head):
            output.notice(why_missing(shared.missing, shared))
        for data in pieces(found.fd, start):
            printer.write(data)
        printer.end()
    finally:
        os.close(found.fd)


def _follow(
    manager: QueueManager, job: Job, printer: Printer, run: Optional[int], lines: Optional[int]
) -> None:
    begin = max(job.runs, 1) if run is None else run
    if run is None and job.is_over:
        found = open_output(manager.store, job)
        if found is not None:
            begin = found.run
            os.close(found.fd)
    only = run is not None or job.is_over
    ended = Follower(manager, job, printer, run=begin, only=only, lines=lines).follow()
    if ended is None:
        raise RequestError(f"job {job.id!r} was purged")
    if run is not None and ended.runs < run:
        raise RequestError(why_none(ended, run))
