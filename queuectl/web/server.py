"""The server: it listens, and ends politely."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import Any, Callable, Coroutine, Iterator, List, Optional

import uvicorn

from queuectl.errors import InvalidValueError, RequestError
from queuectl.manager import QueueManager
from queuectl.web.access import LOGIN, Access, is_loopback
from queuectl.web.app import make_app
from queuectl.web.desk import Desk
from queuectl.web.tokens import Keyring, Token, from_variable, kept_tokens, made_tokens, read_tokens

TOKEN_FILE = "serve.token"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 2  # seconds for answers that are on their way, and for those who follow something


def find_tokens(manager: QueueManager, host: str, path: Optional[str]) -> List[Token]:
    """Find the tokens that let somebody in: those of a file or a variable, else the store's own.

    Raises:
        InvalidValueError: others could reach the server, and nobody said which tokens it has.
        StoreError: they cannot be read or written.
    """
    if path is not None:
        return read_tokens(path)
    if os.environ.get("QUEUECTL_TOKEN"):
        return from_variable(os.environ["QUEUECTL_TOKEN"])
    if not is_loopback(host):
        raise InvalidValueError(
            f"others can reach {host}, and whoever may enqueue may run commands: "
            "give tokens with --token-file or QUEUECTL_TOKEN"
        )
    home = manager.store.home()
    return made_tokens() if home is None else kept_tokens(os.path.join(home, TOKEN_FILE))


def listen(host: str, port: int) -> socket.socket:
    """Listen on a port, 0 for any that is free; raises RequestError if that cannot be."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(256)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise RequestError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def serve(
    url: str,
    tokens: List[Token],
    listener: socket.socket,
    host: str,
    read_only: bool,
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Args:
        url: of the store.
        tokens: those that let somebody in.
        listener: where to listen.
        host: how that is called.
        read_only: whether nothing is ever changed.
        ready: given the link for a browser, once it works.
    """
    port = listener.getsockname()[1]
    keyring = Keyring(tokens)
    desk = Desk(url)
    desk.begin()
    app = make_app(desk, read_only)
    config = uvicorn.Config(
        Access(app, keyring, host, port),
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE,
    )
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{port}{LOGIN}?code={keyring.new_code()}")
    _Server(config, desk, app.state.history.watch(desk)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """One that ends without raising what ended it anew.

    Args:
        config: of the server.
        desk: of the queue.
        beside: what is done as long as it serves.
    """

    def __init__(
        self, config: uvicorn.Config, desk: Desk, beside: Coroutine[Any, Any, None]
    ) -> None:
        super().__init__(config)
        self._desk = desk
        self._beside = beside

    async def serve(self, sockets: Optional[List[socket.socket]] = None) -> None:
        task = asyncio.create_task(self._beside)
        try:
            await super().serve(sockets)
        finally:
            task.cancel()

    async def shutdown(self, sockets: Optional[List[socket.socket]] = None) -> None:
        # Else it waits for those who follow, in vain, and then shows where each was cut off.
        self._desk.is_closing = True
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
