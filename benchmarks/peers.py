"""The same drain by others that keep a queue on disk, and by GNU parallel, which keeps none.

Every peer runs `sh -c true` on two workers, as it comes, with its defaults but for what is said.
Rates are compared, so those that take long to be given their jobs drain fewer of them. What favours
the peers is left so: tsp and nq are up and have all jobs before their time begins, and huey and rq
keep nothing of what jobs print, while for QueueCTL the whole command counts and it keeps output.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Iterator, List, Mapping

from benchmarks.bench import TELL, Bench, now
from benchmarks.environment import CHECKOUT
from benchmarks.figure import Contestant, Figure, MeasureError
from benchmarks.processes import Fifo, output, running, timed

_HUEY_FILL = """
import sys
from benchmarks.huey_queue import fill
fill(int(sys.argv[1]), sys.argv[2])
"""
_RQ_FILL = """
import sys
from redis import Redis
from rq import Queue
queue = Queue(connection=Redis(unix_socket_path=sys.argv[2]))
job = Queue.prepare_data("subprocess.call", (["sh", "-c", "true"],))
queue.enqueue_many([job] * int(sys.argv[1]))
"""
_RQ_COUNT = """
import sys
from redis import Redis
from rq import Queue
print(Queue(connection=Redis(unix_socket_path=sys.argv[1])).finished_job_registry.count)
"""
_WAIT = 'read line < "$GATE"'


def figures(bench: Bench) -> List[Figure]:
    """The figures of this family."""
    jobs = bench.sizes.jobs
    peers = Peers(bench)
    find = bench.environment.program
    return [
        Figure(
            "peers",
            f"start --count 2 --drain --quiet on {jobs} `true` jobs, the whole command, against "
            "every peer with a store",
            "jobs/s",
            bench.draining(2),
            [
                Contestant("huey, fsync on", lambda: peers.huey(True), need(find("huey_consumer"))),
                Contestant(
                    "huey, fsync off", lambda: peers.huey(False), need(find("huey_consumer"))
                ),
                Contestant("tsp", peers.tsp, need(find("tsp"), "task-spooler")),
                Contestant("nq", peers.nq, need(find("nq"), "nq")),
                Contestant(
                    "rq, redis with its default snapshots",
                    peers.rq,
                    need(find("rq")) or need(find("redis-server"), "redis-server"),
                ),
            ],
            must=1.0,
            aim=1.4,
            more_is_better=True,
        ),
        Figure(
            "parallel",
            f"the same against GNU parallel -j2 with {bench.sizes.few} jobs, which keeps no queue",
            "jobs/s",
            bench.draining(2),
            [Contestant("parallel -j2", peers.parallel, need(find("parallel"), "parallel"))],
            more_is_better=True,
        ),
    ]


def need(found: str, package: str = "") -> str:
    """Say what is missing if a program was not found.

    Args:
        found: its path, if it was.
        package: Debian's that has it; none if it is to be in the benchmark's environment.
    """
    if found:
        return ""
    return f"apt-get install {package}" if package else "not in the benchmark's environment"


def huey_drained(bench: Bench, where: Mapping[str, str]) -> float:
    """`huey_consumer -w 2 -k process`, from its spawn to the last job; jobs a second.

    Args:
        bench: the run.
        where: the variables that tell `huey_queue` where the queue is.
    """
    jobs = bench.sizes.jobs
    with bench.fifo() as told:
        environ = {
            **bench.environment.variables,
            **where,
            "PYTHONPATH": str(CHECKOUT),
            "TELL": str(told.path),
        }
        output([bench.environment.python, "-c", _HUEY_FILL, str(jobs), TELL], environ)
        os.sync()
        argv = [bench.environment.program("huey_consumer"), "benchmarks.huey_queue.queue"]
        began = now()
        with running([*argv, "-w", "2", "-k", "process", "-q"], environ, end=()) as consumer:
            return jobs / (told.wait(writer=consumer) - began)


SIMPLE = "rq.worker.SimpleWorker"
"""RQ's worker that forks for no job."""


def rq_drained(bench: Bench, socket: Path, worker: str) -> float:
    """The whole of `rq worker-pool -b -n 2`.

    Args:
        bench: the run.
        socket: where the server listens.
        worker: the class of its workers.

    Returns:
        Jobs a second.
    """
    jobs, environment = bench.sizes.jobs, bench.environment
    python, variables = environment.python, environment.variables
    output([python, "-c", _RQ_FILL, str(jobs), str(socket)], variables)
    os.sync()
    pool = [environment.program("rq"), "worker-pool", "-b", "-q", "-n", "2"]
    took = timed([*pool, "-w", worker, "-u", f"unix://{socket}"], variables)
    finished = output([python, "-c", _RQ_COUNT, str(socket)], variables)
    if int(finished) != jobs:
        raise MeasureError(f"{finished.strip()} of {jobs} jobs finished")
    return jobs / took


class Peers:
    """The peers; each method drains one queue and returns jobs a second.

    Args:
        bench: the run.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._variables = bench.environment.variables
        self._find = bench.environment.program

    def huey(self, fsync: bool) -> float:
        """Huey on SQLite."""
        with self._folder() as folder:
            where = {"HUEY_FILE": str(folder / "huey.db"), "HUEY_FSYNC": "1" if fsync else "0"}
            return huey_drained(self._bench, where)

    def rq(self) -> float:
        """RQ on a server of its own, which listens on a socket in the folder only."""
        with self._folder() as folder:
            socket = folder / "redis.sock"
            listen = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
            with running([self._find("redis-server"), *listen], self._variables):
                while not socket.exists():
                    time.sleep(0.01)
                return rq_drained(self._bench, socket, SIMPLE)

    def tsp(self) -> float:
        """`tsp -S 2`, from the end of a job that has held both slots to the start of the last."""
        jobs, tsp = self._bench.sizes.few, self._find("tsp")
        with self._folder() as folder, self._bench.fifo() as gate, self._bench.fifo() as told:
            environ = {
                **self._variables,
                "TS_SOCKET": str(folder / "socket"),
                "TMPDIR": str(folder),
                "TELL": str(told.path),
                "GATE": str(gate.path),
            }
            output([tsp, "-S", "2"], environ)
            try:
                output([tsp, "-N", "2", "sh", "-c", _WAIT], environ)
                for _ in range(jobs):
                    output([tsp, "sh", "-c", "true"], environ)
                output([tsp, "-N", "2", "sh", "-c", TELL], environ)
                return self._rate(gate, 1, told)
            finally:
                output([tsp, "-K"], environ)

    def nq(self) -> float:
        """Two folders of nq side by side, from the end of what both wait for to both last jobs."""
        jobs, nq = self._bench.sizes.few, self._find("nq")
        with self._folder() as folder, self._bench.fifo() as gate, self._bench.fifo() as told:
            for number in range(2):
                environ = {
                    **self._variables,
                    "NQDIR": str(folder / f"nq{number}"),
                    "TELL": str(told.path),
                    "GATE": str(gate.path),
                }
                output([nq, "-q", "sh", "-c", _WAIT], environ)
                for _ in range(jobs // 2):
                    output([nq, "-q", "sh", "-c", "true"], environ)
                output([nq, "-q", "sh", "-c", TELL], environ)
            return self._rate(gate, 2, told)

    def parallel(self) -> float:
        """`parallel -j2`, the whole command."""
        jobs, parallel = self._bench.sizes.few, self._find("parallel")
        script = f"seq {jobs} | {parallel} -j2 -N0 sh -c true"
        return jobs / timed(["sh", "-c", script], self._variables)

    def _rate(self, gate: Fifo, queues: int, told: Fifo) -> float:
        """Let the queues that wait at the gate go on; return the rate at which all jobs ran."""
        os.sync()
        began = now()
        gate.tell(queues)
        return self._bench.sizes.few / (told.wait(queues) - began)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        path = self._bench.path("peer")
        path.mkdir(0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path)
