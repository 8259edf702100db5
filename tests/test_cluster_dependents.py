"""A job for which 100,000 others wait: the server does a part at a time, and none is forgotten."""

from __future__ import annotations

import dataclasses

import pytest

import support
from cluster import Cluster
from queuectl import job as rules
from queuectl.testing.common import new_job
from servers import Server
from support import wait_until

pytestmark = [
    pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc"),
    pytest.mark.slow,
    pytest.mark.long,
    # So many take a busy machine a while.
    pytest.mark.timeout(180),
]

MANY = 100_000


def test_all_are_freed_in_order_also_if_who_freed_them_dies(
    own_cluster: Cluster, own_server: Server
) -> None:
    redis = own_server.client()
    lane, unsettled = own_cluster.key("lane:default:0"), own_cluster.key("unsettled")
    own_cluster.add("touch began; until [ -e go ]; do sleep 0.01; done", id="parent")
    names = [f"child{number}" for number in range(MANY)]
    command = '[ "$NODE" = b ] || exec sleep 1000; echo "$QUEUECTL_JOB_ID" >> ran'
    folder = str(own_cluster.folder)
    with own_cluster.opened() as manager:
        parent = rules.awaited(manager.find("parent"), manager.store.now(), MANY)
        made = new_job("child", command=command, cwd=folder, after=("parent",))
        manager.store.add([dataclasses.replace(made, id=name) for name in names], [], [parent])
    a, b = own_cluster.node("a"), own_cluster.node("b")
    b.cli.env["NODE"] = "b"
    a.start()
    wait_until((own_cluster.folder / "began").exists)
    assert redis.zcard(lane) == 0
    own_cluster.let_go()
    # It frees a part of them, has one of these to run, and dies before it has freed all. Whoever
    # opened the store to look would go on with that.
    wait_until(lambda: own_cluster.runs_of("child0"))
    a.kill()
    assert redis.exists(unsettled)
    assert redis.zrange(lane, 0, 2) == [b"child1", b"child2", b"child3"]
    # Whoever comes goes on with that.
    b.start()
    wait_until(lambda: not redis.exists(unsettled), 30, "all to be free")
    wait_until(lambda: own_cluster.counts().completed > 50)
    b.kill()
    # The one that it had to run is rescued sooner or later.
    ran = [name for name in own_cluster.read("ran").split() if name != "child0"]
    assert ran == names[1 : 1 + len(ran)]
    left = [name.decode() for name in redis.zrange(lane, 0, -1) if name != b"child0"]
    assert left == names[MANY - len(left) :]
    assert MANY - 2 <= len(ran) + len(left) <= MANY - 1
    # They were taken in, told apart, placed and freed a thousand at a time.
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] > 3 * MANY / 1000
