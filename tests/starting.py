"""What the tests of `start` share: a queue that they look into while real processes work on it.

Jobs are added and looked at in the test's own process, which is quick; everything that works on
them is the real command. Nothing here knows how `start` does what it promises.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set

from queuectl.config import SETTINGS
from queuectl.job import Job
from queuectl.manager import QueueManager
from queuectl.newjob import NewJob
from queuectl.store.base import Counts, Member
from queuectl.store.opening import open_store
from support import Cli, Process, processes, wait_until

for _signum in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signum) == signal.SIG_IGN:
        # As `&` and nohup have it: everything that a test starts would inherit that. A handler that
        # does nothing is not inherited.
        signal.signal(_signum, lambda signum, frame: None)

SLACK = 1.0
"""Seconds that a busy machine may add to what is promised."""

HOLD = 'touch "$QUEUECTL_JOB_ID.runs"; until [ -e go ]; do sleep 0.01; done; echo held'
"""A job that runs until there is a file `go`, and shows that it runs by a file `ID.runs`."""

STUBBORN = "trap '' TERM; sleep 1000 & sleep 1000; :"
"""A job of three processes that do not end at TERM."""


class Queue:
    """The queue of a test.

    Args:
        cli: the test's command line.
        url: of the store; by default the test's folder.
        **settings: what to store, as text.
    """

    def __init__(self, cli: Cli, url: Optional[str] = None, **settings: str) -> None:
        self.cli = cli
        self.url = str(cli.store) if url is None else url
        if url is not None:
            cli.env["QUEUECTL_STORE"] = url
        self.folder = cli.folder
        with self.opened():
            pass
        self.configure(**settings)

    @contextlib.contextmanager
    def opened(self) -> Iterator[QueueManager]:
        """The queue, in this process, with no settings but the stored ones."""
        with contextlib.closing(open_store(self.url, True, lambda text: None)) as store:
            yield QueueManager(store, {})

    def configure(self, **settings: str) -> None:
        """Store settings."""
        with self.opened() as manager:
            for name, text in settings.items():
                assert name in SETTINGS
                manager.configure(name, text)

    def add(self, command: str, id: Optional[str] = None, **options: Any) -> str:  # noqa: A002
        """Enqueue a job, to run in the test's folder; return its id."""
        options.setdefault("cwd", str(self.folder))
        with self.opened() as manager:
            return manager.enqueue(command, id=id, **options).id

    def add_many(self, commands: Dict[str, str], **options: Any) -> None:
        """Enqueue jobs by their ids, at once."""
        options.setdefault("cwd", str(self.folder))
        with self.opened() as manager:
            manager.enqueue_many(
                [NewJob(command, id=job_id, **options) for job_id, command in commands.items()]
            )

    def job(self, job_id: str) -> Job:
        """A job as it stands now."""
        with self.opened() as manager:
            return manager.find(job_id)

    def jobs(self) -> List[Job]:
        """All jobs, oldest first."""
        with self.opened() as manager:
            return list(manager.jobs())[::-1]

    def counts(self) -> Counts:
        """How many jobs there are in each state."""
        with self.opened() as manager:
            return manager.counts()

    def members(self, role: str = "worker") -> List[Member]:
        """Who lives, oldest first."""
        with self.opened() as manager:
            return manager.members(role)

    def wait_for(
        self, job_id: str, *states: str, run: Optional[int] = None, timeout: float = 15.0
    ) -> Job:
        """Wait until a job is in one of these states, after this run if one is given; return it."""

        def look() -> Optional[Job]:
            job = self.job(job_id)
            return job if job.state in states and run in (None, job.runs) else None

        try:
            return wait_until(look, timeout)
        except AssertionError:
            raise AssertionError(f"not {states} within {timeout:g}s: {self.job(job_id)}") from None

    def wait_for_workers(self, count: int, timeout: float = 10.0) -> List[Member]:
        """Wait until exactly so many workers live; return them."""
        found: List[Member] = []

        def look() -> bool:
            found[:] = self.members()
            return len(found) == count

        wait_until(look, timeout, f"{count} workers")
        return found

    def wait_for_runner(self, job_id: str, run: int = 1) -> Member:
        """Wait until a worker has noted the processes of a job's run; return the worker."""

        def look() -> Optional[Member]:
            for member in self.members():
                if (member.job, member.run) == (job_id, run) and member.group is not None:
                    return member
            return None

        return wait_until(look, what=f"run {run} of {job_id}")

    def start(self, *args: str, **options: Any) -> Process:
        """Start `queuectl start ARGS`; see `Cli.spawn`."""
        return self.cli.spawn("start", *args, **options)

    def drain(self, count: int = 1, timeout: float = 30.0) -> Process:
        """Run everything that there is to run."""
        process = self.start("--count", str(count), "--drain")
        process.finish(0, timeout)
        return process

    def runs_of(self, job_id: str) -> Dict[int, str]:
        """The living processes of a job: process id to command line."""
        found = {}
        for pid, line in processes(self.cli.mark).items():
            with contextlib.suppress(OSError):
                environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if f"QUEUECTL_JOB_ID={job_id}".encode() in environ:
                    found[pid] = line
        return found

    def wait_for_processes(self, job_id: str, count: int) -> List[int]:
        """Wait until a job is a shell and `sleep 1000` otherwise, so many in all; return them."""
        found: Dict[int, str] = {}

        def look() -> bool:
            found.clear()
            found.update(self.runs_of(job_id))
            return list(found.values()).count("sleep 1000") == count - 1 == len(found) - 1

        wait_until(look, what=f"{count} processes of {job_id}")
        return list(found)

    def let_go(self) -> None:
        """End the jobs that hold."""
        (self.folder / "go").touch()

    def read(self, name: str) -> str:
        """The text of a file that jobs write in the test's folder."""
        return (self.folder / name).read_text()

    def logs(self, job_id: str, *args: str) -> str:
        """What `queuectl logs` shows of a job."""
        return self.cli.run("logs", job_id, *args, check=0).stdout


def kill(*pids: int) -> float:
    """Kill processes at once; return when, by the monotonic clock."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return state_of(pid) not in ("", "Z", "X")


def state_of(pid: int) -> str:
    """A process's state as one of ps's letters, or nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def cpu_seconds(pid: int) -> float:
    """How much processor time a process has used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_gone(pids: Sequence[int], timeout: float) -> float:
    """Wait until none of these processes runs; return when, by the monotonic clock."""
    wait_until(lambda: not any(map(is_running, pids)), timeout, f"the end of {list(pids)}")
    return time.monotonic()


def children_of(pid: int) -> List[int]:
    """The children of a process, zombies included, read in one go: it must be quick."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def stop_newborn(start: Process, known: Set[int]) -> int:
    """Stop the next worker of a supervisor as soon as it is forked; return its pid."""
    while True:
        for pid in children_of(start.pid):
            if pid not in known:
                os.kill(pid, signal.SIGSTOP)
                return pid


def is_free(lock: Path) -> bool:
    """Whether a lock can be taken, which those that run hold for moments only."""
    with open(lock, "rb") as file:
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(0.005)
    return False
