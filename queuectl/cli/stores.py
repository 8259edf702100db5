"""`queuectl stores`: the kinds of stores that can be used here."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Session, pass_session
from queuectl.errors import StoreError
from queuectl.render import row, to_json
from queuectl.store.registry import Kind, kinds
from queuectl.text import as_utf8

_FOLDER = "(folder)"


class _Shown(NamedTuple):
    """A kind of store as it is shown; a folder's has no scheme."""

    scheme: Optional[str]
    kind: Optional[Kind]
    problem: Optional[str]

    @property
    def record(self) -> Dict[str, Any]:
        """What it is in JSON."""
        return {
            "scheme": self.scheme,
            "distribution": self.kind and self.kind.distribution,
            "version": self.kind and self.kind.version,
            "problem": self.problem,
        }

    @property
    def cells(self) -> List[str]:
        """What it is in a list."""
        origin = "built in" if self.kind is None else self.kind.origin
        ready = "ready" if self.problem is None else "not ready"
        return [self.scheme or _FOLDER, origin, ready, self.problem or ""]


@click.command(cls=Command, short_help="List the kinds of stores, and what brings them.")
@pass_session
def stores(session: Session) -> None:
    """List the kinds of stores that can be used here, and what brings them.

    A store is a folder, or what the scheme of a URL says: one that is built in,
    or one of a package that is installed beside queuectl. Each is loaded as a
    test; what cannot be used is listed with the reason, and disturbs no other.

    Into a pipe goes one kind a line, its cells separated by tabs: scheme, built
    in or the package and its version, ready or not ready, and why not.

    Example:
      queuectl stores
    """
    shown = [_Shown(None, None, None), *map(_look_at, kinds())]
    if session.json:
        output.line(to_json([each.record for each in shown]))
    elif session.talks:
        screen = output.screen()
        output.line(screen.paint(screen.say("📁", f"Kinds of stores ({len(shown)})"), bold=True))
        headers = ("Scheme", "Origin", "Is", "Problem")
        output.line(screen.table(headers, [each.cells for each in shown], elastic=(3,)))
    else:
        for each in shown:
            output.line(row(each.cells))


def _look_at(kind: Kind) -> _Shown:
    problem: Optional[str] = None
    try:
        kind.load()
    except StoreError as error:
        problem = as_utf8(str(error))
    return _Shown(kind.scheme, kind, problem)
