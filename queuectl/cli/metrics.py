"""`queuectl metrics`: what the queue does, as Prometheus reads it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Optional

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Session, pass_session
from queuectl.errors import RequestError, StoreError
from queuectl.render import to_json


@click.command(cls=Command, short_help="Tell what the queue does, as Prometheus reads it.")
@click.option(
    "--output",
    "path",
    metavar="FILE",
    help="Write it to a file, in its place as a whole, for node_exporter's textfile collector.",
)
@pass_session
def metrics(session: Session, path: Optional[str]) -> None:
    """Tell what the queue does, as Prometheus reads it.

    Jobs by queue and state, totals that neither a purge nor a restart takes
    from, how long jobs waited and ran, how long the oldest has been waiting,
    and the workers. Whoever reads FILE finds the old text or the new one, whole.

    But for --json it needs pip install "queuectl[web]".

    Example:
      queuectl metrics
      queuectl metrics --output queuectl.prom
    """
    from queuectl.metrics import measure

    if session.json:
        if path is not None:
            raise click.UsageError("--output has no JSON form: redirect queuectl metrics --json")
        with session.open() as manager:
            record: Dict[str, Any] = measure(manager)._asdict()
        record["queues"] = {name: counts._asdict() for name, counts in record["queues"].items()}
        output.line(to_json(record))
        return
    try:
        from queuectl.web.exposition import exposition
    except ImportError as error:
        raise RequestError('metrics needs more: pip install "queuectl[web]"') from error

    with session.open() as manager:
        text = exposition(measure(manager))
    if path is None:
        output.line(text[:-1])
    else:
        _replace(path, text)


def _replace(path: str, text: str) -> None:
    """Put a file that others may read in the place of another."""
    # Not in a name that the collector reads, and beside no other process's.
    new = f"{path}.{os.getpid()}"
    try:
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
