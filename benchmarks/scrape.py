"""What a scrape costs on a full store."""

from __future__ import annotations

import http.client
import secrets
import socket
import time
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Iterator, List

from benchmarks.bench import Bench, now, queue_of
from benchmarks.figure import Contestant, Figure, MeasureError
from benchmarks.peers import need
from benchmarks.processes import running
from benchmarks.stores import Content
from queuectl import QueueManager

_PATIENCE = 60.0  # seconds


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    half = bench.sizes.many // 2
    scrape = Scrape(bench, Content(pending=((half, "true"),), finished=half))
    missing = need(bench.environment.program("uvicorn"))
    return [
        Figure(
            "scrape",
            f"GET /metrics of queuectl serve with {half} finished and {half} pending jobs, after "
            "another was enqueued",
            "ms",
            Contestant("full store", scrape.ask, missing),
            must=50.0,
            aim=5.0,
            of_value=True,
            turns=bench.sizes.turns,
            during=nullcontext if missing else scrape.serving,
        )
    ]


class Scrape:
    """A running server, and who asks it.

    Args:
        bench: the run.
        content: of the store.
    """

    _queue: QueueManager
    _connection: http.client.HTTPConnection

    def __init__(self, bench: Bench, content: Content) -> None:
        self._bench = bench
        self._content = content
        self._token = secrets.token_urlsafe()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Keep it running; it has counted all jobs once it answers."""
        bench = self._bench
        with ExitStack() as stack:
            store = stack.enter_context(bench.stores.fresh(self._content))
            self._queue = stack.enter_context(queue_of(store))
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            argv = [bench.environment.queuectl, "serve", "--port", str(port)]
            environ = {**bench.environ(store), "QUEUECTL_TOKEN": self._token}
            stack.enter_context(running(argv, environ))
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
            stack.callback(self._connection.close)
            self._wait()
            yield

    def ask(self) -> float:
        """Enqueue a job, and scrape; milliseconds of that."""
        self._queue.enqueue("true", cwd="/")
        # Until what was counted last is too old to be told again.
        time.sleep(0.5)
        began = now()
        self._scrape()
        return (now() - began) * 1000

    def _wait(self) -> None:
        deadline = now() + _PATIENCE
        while True:
            try:
                self._scrape()
                return
            except ConnectionRefusedError:
                self._connection.close()
                if now() > deadline:
                    raise
                time.sleep(0.05)

    def _scrape(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        self._connection.request("GET", "/metrics", headers=headers)
        answer = self._connection.getresponse()
        if answer.status != 200 or b"queuectl_jobs{" not in answer.read():
            raise MeasureError(f"/metrics: {answer.status}")
