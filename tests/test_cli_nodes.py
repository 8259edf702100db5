"""`queuectl nodes`, and what `status` says where there are several."""

from __future__ import annotations

import os
import re
from typing import Callable

import queuectl
from queuectl import clock, machine
from queuectl.store.base import Member
from starting import HOLD, Queue
from support import Cli, Terminal
from test_cli_support import failure, queue_of


def worker(name: str, host: str, **values: object) -> Member:
    """A worker on a machine."""
    plain = Member(name, "worker", f"Worker-{name}", os.getpid(), host, "2025", "s")
    return plain._replace(version="1.0\n", **values)  # type: ignore[arg-type]


def test_a_running_start_makes_this_machine_a_node(cli: Cli) -> None:
    queue = Queue(cli)
    assert cli.json("nodes") == []
    queue.add(HOLD, id="job")
    start = queue.start("--count", "2", "--drain")
    queue.wait_for_runner("job")
    queue.wait_for_workers(2)
    (node,) = cli.json("nodes")
    assert abs(clock.from_iso(node.pop("heard_at")) - clock.now()) < 60
    version = queuectl.__version__
    assert node == {"host": machine.host(), "workers": 2, "running": 1, "version": version}
    assert "Nodes" not in cli.run("status", check=0).stdout
    queue.let_go()
    start.finish(0)


def test_nodes_are_listed_for_people_and_for_programs(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    with queue_of(cli) as queue:
        shown = terminal("nodes")
        assert shown.wait() == 0
        assert shown.text == "🌐 Nodes (0)\nno workers running: queuectl start\n"
        for each in (worker("1", "b\t"), worker("2", "b\t", job="x", run=1), worker("3", "a")):
            queue.store.enroll(each)
        rows = [line.split("\t") for line in cli.run("nodes", check=0).stdout.splitlines()]
        assert [[*row[:3], row[4]] for row in rows] == [
            ["a", "1", "0", r"1.0\n"],
            [r"b\t", "2", "1", r"1.0\n"],
        ]
        assert all(abs(clock.from_iso(row[3]) - clock.now()) < 60 for row in rows)
        shown = terminal("nodes")
        assert shown.wait() == 0
        assert shown.text.startswith("🌐 Nodes (2)\n")
        assert re.search(r"│ b\\t +│ 2 +│ 1 +│ \d\.\ds ago +│ 1\.0\\n +│", shown.text)
        out = cli.run("status", check=0).stdout
        assert "🌐 Nodes: 2 (a, b\\t)\n👷 Workers: 3\n" in out
        assert f"   Worker-3 on a (pid {os.getpid()}): idle\n   Worker-1 on b\\t (pid" in out
        for name in "123":
            queue.store.leave(name)


def test_where_there_is_no_store_there_are_no_nodes(cli: Cli) -> None:
    assert failure(cli, ["nodes"], 3).startswith("no store at ")
