"""What the tests of `serve` share: a real server on a store of the test's own, and who asks it."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from support import Changes, Cli, Process

httpx = pytest.importorskip("httpx", reason="serve needs Python 3.10")

API = "/api/v1"


class Server:
    """A running `queuectl serve`.

    Args:
        cli: on whose store.
        *options: what else it is told.
        env: changes to its environment.
    """

    def __init__(self, cli: Cli, *options: str, env: Changes = None) -> None:
        self.cli = cli
        self.process: Process = cli.spawn("serve", "--port", "0", *options, env=env)
        match = self.process.expect(r"^Serving at (http://\S+:(\d+))/login\?code=(\S+)$", 30)
        self.url, self.port, self.code = match[1], int(match[2]), match[3]
        self.client = httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    @property
    def tokens(self) -> Dict[str, str]:
        """The store's own, by scope."""
        lines = (self.cli.store / "serve.token").read_text().splitlines()
        return {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}

    def ask(
        self, method: str, path: str, scope: Optional[str] = "write", **options: Any
    ) -> httpx.Response:
        """Send a request, with the token of a scope, or none."""
        headers = dict(options.pop("headers", {}))
        if scope is not None:
            headers["Authorization"] = f"Bearer {self.tokens[scope]}"
        return self.client.request(method, path, headers=headers, **options)

    def get(self, path: str, code: int = 200, **options: Any) -> Any:
        """Read JSON from the API."""
        return self._json(self.ask("GET", API + path, **options), code)

    def send(self, method: str, path: str, body: Any = None, code: int = 200, **more: Any) -> Any:
        """Have something changed by the API; return the JSON of its answer."""
        given = {} if body is None else {"json": body}
        return self._json(self.ask(method, API + path, **given, **more), code)

    def events(self, path: str, **headers: str) -> Iterator[Tuple[str, str, str]]:
        """Yield name, id and data of server-sent events until they end."""
        headers["Authorization"] = f"Bearer {self.tokens['read']}"
        with self.client.stream("GET", API + path, headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            event: List[str] = []
            for line in answer.iter_lines():
                if line and not line.startswith(":"):
                    event.append(line.partition(": ")[2])
                elif event:
                    name, number, data = event
                    yield name, number, data
                    event = []

    def stop(self) -> None:
        """End it politely."""
        self.client.close()
        self.process.terminate()
        self.process.finish(0)

    @staticmethod
    def _json(answer: httpx.Response, code: int) -> Any:
        assert answer.status_code == code, answer.text
        problem = "application/problem+json" if code >= 400 else "application/json"
        assert answer.headers["content-type"] == problem
        return answer.json()


@contextlib.contextmanager
def serving(cli: Cli, *options: str, env: Changes = None) -> Iterator[Server]:
    """Run a server for a while."""
    server = Server(cli, *options, env=env)
    try:
        yield server
    finally:
        server.stop()
