"""`queuectl serve`: the dashboard, the REST API and the metrics over HTTP."""

from __future__ import annotations

import sys
from typing import Optional

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.config import parse_whole
from queuectl.errors import RequestError

_PORT = 8321


@click.command(cls=Command, short_help="Serve the dashboard, the REST API and the metrics.")
@click.option(
    "--host", metavar="H", default="127.0.0.1", help="Where to listen. Default: 127.0.0.1."
)
@click.option(
    "--port",
    metavar="N",
    callback=checked(lambda text: parse_whole(text, 0, 65535)),
    help="On which port; 0 for any that is free. Default: 8321.",
)
@click.option("--read-only", is_flag=True, help="Serve nothing that changes anything.")
@click.option(
    "--token-file", metavar="FILE", help="Where tokens are. Default: serve.token in the store."
)
@pass_session
def serve(
    session: Session, host: str, port: Optional[int], read_only: bool, token_file: Optional[str]
) -> None:
    """Serve the dashboard, the REST API and the metrics over HTTP, until Ctrl-C.

    Whoever may enqueue may run commands. So only this machine is served, and
    only who shows a token: the first start makes one for each of the scopes
    write, read and metrics. On another host tokens must be given, by
    QUEUECTL_TOKEN or --token-file. The link that is printed lets a browser in,
    once, within ten minutes.

    It needs Python 3.10 or newer, and pip install "queuectl[web]".

    Example:
      queuectl serve --port 0 & sleep 1; kill %1; wait
    """
    if session.json:
        raise click.UsageError("serve has no JSON form: its API speaks JSON")
    if sys.version_info < (3, 10):
        version = ".".join(map(str, sys.version_info[:2]))
        raise RequestError(f"serve needs Python 3.10 or newer: this is {version}")
    try:
        from queuectl.web import server
    except ImportError as error:
        raise RequestError('serve needs more: pip install "queuectl[web]"') from error

    with session.open(create=True) as manager:
        tokens = server.find_tokens(manager, host, token_file)
        url = manager.store.url
    with server.listen(host, _PORT if port is None else port) as listener:
        server.serve(url, tokens, listener, host, read_only, _tell)


def _tell(link: str) -> None:
    output.line(f"Serving at {link}")
    output.flush()
