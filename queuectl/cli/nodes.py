"""`queuectl nodes`: the machines that work on the store."""

from __future__ import annotations

from typing import List

import click

from queuectl import clock
from queuectl.cli import output
from queuectl.cli.command import Command, Session, pass_session
from queuectl.render import Screen, elapsed, row, to_json
from queuectl.store.base import Node


@click.command(cls=Command, short_help="List the machines that work on the store.")
@pass_session
def nodes(session: Session) -> None:
    """List the machines that work on the store, each with its workers.

    Into a pipe goes one machine a line, its cells separated by tabs: host, the
    numbers of its workers and of the jobs that they run, when it was heard of
    last, and which version of QueueCTL runs there.

    Example:
      queuectl nodes
    """
    with session.open() as manager:
        found = manager.nodes()
        now = manager.store.now()
    if session.json:
        output.line(to_json([node._asdict() for node in found]))
    elif session.talks:
        _print_table(output.screen(), found, now)
    else:
        for node in found:
            output.line(row(node))


def _print_table(screen: Screen, found: List[Node], now: float) -> None:
    output.line(screen.paint(screen.say("🌐", f"Nodes ({len(found)})"), bold=True))
    if not found:
        output.line(screen.paint("no workers running: queuectl start", "yellow"))
        return
    rows = [
        (
            node.host,
            node.workers,
            node.running,
            f"{elapsed(now - clock.from_iso(node.heard_at))} ago",
            node.version,
        )
        for node in found
    ]
    headers = ("Host", "Workers", "Running", "Heartbeat", "Version")
    output.line(screen.table(headers, rows, elastic=(0,)))
