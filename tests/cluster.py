"""What the tests of a cluster share: nodes, which are machines that work on one store.

Each is the real command in processes of its own, with a state folder of its own: so to the others
it is another machine. Where the system allows it, a node can be more of one: with a name, and with
processes that nobody else sees; and with a cable of its own to the server, which can be pulled.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import pytest

import support
from servers import Server, client
from starting import Queue
from support import Cli, Process, Word

LEASE, KILL_GRACE = 3.0, 1.0
"""Seconds, for tests that wait for the end of a lease."""

RESCUED_AFTER = LEASE + KILL_GRACE + 1.0
"""So many seconds after it was heard of last a node's jobs are rescued."""

PROMPT = 2.5
"""Seconds after which, at most, what is due is done: a beat, a rescue, a busy machine."""

TICKING = """
trap '' TERM
while [ ! -e go ]; do
    tick="$QUEUECTL_JOB_RUN $(date +%s.%N)"; echo "$tick" >> ticks; echo "$tick"; sleep 0.05
done
"""
"""A job that writes down and prints when it runs, and ends only once there is a file `go`, or by
force."""

SETTINGS = {"lease": "3s", "kill_grace": "1s", "backoff_base": "0"}

# As on a machine whose clock is wrong: all that the command asks the system for is the time.
_AHEAD = """
import sys, time
ahead, was = int(sys.argv.pop(1)), time.time_ns
time.time_ns = lambda: was() + ahead * 10**9
time.time = lambda: time.time_ns() / 10**9
from queuectl.cli import main
sys.exit(main())
"""


class Node:
    """A machine.

    Args:
        cli: the test's command line.
        name: what it is called.
        url: of the store, as seen from there.
        prefix: of its `start`, which makes it one.
        ahead: how many seconds its clock is ahead.
    """

    def __init__(
        self, cli: Cli, name: str, url: str, prefix: Optional[List[Word]] = None, ahead: int = 0
    ) -> None:
        self.name = name
        self.cli = Cli(cli.folder, f"{cli.mark}/{name}", cli.commands)
        self.cli.env.update(cli.env)
        self.cli.env["QUEUECTL_STORE"] = url
        self.cli.env["XDG_STATE_HOME"] = str(cli.folder / f"state-{name}")
        if ahead:
            self.cli.command = [sys.executable, "-W", "error", "-c", _AHEAD, str(ahead)]
        self._prefix = prefix or []

    def start(self, *args: Word) -> Process:
        """Start `queuectl start ARGS` there."""
        command = self.cli.command
        self.cli.command = [*self._prefix, *command]
        try:
            return self.cli.spawn("start", *args)
        finally:
            self.cli.command = command

    def signal(self, signum: int, containing: str = "") -> float:
        """Send a signal to all that runs there; return when, by the clock."""
        for pid in self.cli.processes(containing):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        return time.time()

    def kill(self) -> float:
        """Kill all that runs there, jobs included; return when, by the clock."""
        killed_at = self.signal(signal.SIGKILL)
        self.cli.end_all()
        return killed_at


class Cluster(Queue):
    """A store on a server, and the nodes that work on it.

    Args:
        cli: the test's command line.
        url: of the store.
        **settings: what to store, as text.
    """

    def __init__(self, cli: Cli, url: str, **settings: str) -> None:
        super().__init__(cli, url, **settings)
        self._nodes: List[Node] = []

    def node(self, name: str, url: Optional[str] = None, **options: Any) -> Node:
        """Add a node."""
        node = Node(self.cli, name, url or self.url, **options)
        self._nodes.append(node)
        return node

    def close(self) -> None:
        """End what runs on all nodes."""
        with contextlib.ExitStack() as stack:
            for node in self._nodes:
                stack.callback(node.cli.close)

    def leases(self) -> Dict[str, float]:
        """Until when each member counts as alive, in seconds since the epoch."""
        found = client(self.url).zrange(self.key("leases"), 0, -1, withscores=True)
        return {name.decode(): until / 1000 for name, until in found}

    def key(self, name: str) -> str:
        """The name of a key of the store."""
        return f"{{{self.url.partition('prefix=')[2] or 'queuectl'}}}:{name}"

    def ticks(self) -> List[Tick]:
        """What `TICKING` has written down."""
        lines = self.read("ticks").splitlines() if (self.folder / "ticks").exists() else []
        return [Tick(int(run), float(at)) for run, at in map(str.split, lines)]

    def ticks_of(self, run: int) -> List[float]:
        """When a run of `TICKING` ran."""
        return [tick.at for tick in self.ticks() if tick.run == run]


class Tick(NamedTuple):
    """That a run of a job ran at an instant."""

    run: int
    at: float


class Network:
    """Machines of their own, each with a cable to this one."""

    _names = itertools.count()

    def __init__(self) -> None:
        need_namespaces()
        if shutil.which("ip") is None:
            pytest.skip("ip is not installed")
        self._spaces: List[str] = []
        self._alone = contextlib.ExitStack()
        self._alone.enter_context(support.network(fcntl.LOCK_EX))

    def connect(self) -> Cable:
        """Make another one."""
        number = next(self._names)
        pid = os.getpid()
        space = f"q{pid}x{number}"
        net = f"10.{200 + pid % 50}.{pid // 50 % 250}.{number * 4 % 252}".rpartition(".")
        base, last = net[0], int(net[2])
        try:
            _ip("netns", "add", space)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        self._spaces.append(space)
        inside = ["netns", "exec", space, "ip"]
        _ip("link", "add", f"{space}a", "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("addr", "add", f"{base}.{last + 1}/30", "dev", f"{space}a")
        _ip("link", "set", f"{space}a", "up")
        _ip(*inside, "addr", "add", f"{base}.{last + 2}/30", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        return Cable(space, f"{base}.{last + 1}")

    def close(self) -> None:
        """Take everything away."""
        for space in self._spaces:
            _ip("netns", "del", space)
        self._alone.close()


class Cable(NamedTuple):
    """A cable: the name of the machine at its other end, and this one's address from there."""

    space: str
    address: str

    def pull(self) -> float:
        """Pull it; return when, by the clock."""
        _ip("link", "set", f"{self.space}a", "down")
        return time.time()

    def plug(self) -> float:
        """Plug it in again; return when, by the clock."""
        _ip("link", "set", f"{self.space}a", "up")
        return time.time()

    def prefix(self, name: str) -> List[Word]:
        """As `own_machine`, at the other end."""
        return ["ip", "netns", "exec", self.space, *own_machine(name)]


def own_machine(name: str) -> List[Word]:
    """What to put before a command that shall run under a name, and see no processes but its own.

    If it is killed, so is all that runs there.
    """
    need_namespaces()
    options = ["--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *options, "sh", "-c", 'hostname "$0" && exec "$@"', name]


def need_namespaces() -> None:
    """Skip the test, by name, where a process cannot be given a machine of its own."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs root and unshare")
    probe = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "true"]
    done = subprocess.run(probe, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def warnings_of(process: Process) -> List[str]:
    """What a `start` has said on standard error, without when and the symbols."""
    return re.findall(r"^\[[^\]]*\] \W*(.*)$", process.err, re.MULTILINE)


@pytest.fixture
def cluster(cli: Cli, redis_url: str) -> Iterator[Cluster]:
    """A store on the server that tests share."""
    with contextlib.closing(Cluster(cli, redis_url, **SETTINGS)) as cluster:
        yield cluster


@pytest.fixture
def own_cluster(cli: Cli, own_server: Server) -> Iterator[Cluster]:
    """A store on a server of the test's own."""
    with contextlib.closing(Cluster(cli, own_server.url, **SETTINGS)) as cluster:
        yield cluster
