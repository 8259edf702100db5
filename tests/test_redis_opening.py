"""Opening the store on Redis: by which URLs, on which servers, and what is said if it fails."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any, List

import pytest

from queuectl import __version__
from queuectl import job as rules
from queuectl.errors import (
    InvalidValueError,
    NoStoreError,
    StoreAwayError,
    StoreError,
    StoreGoneError,
)
from queuectl.store.base import Counts
from queuectl.store.redis import RedisStore, opening
from queuectl.store.redis.address import parse_address
from queuectl.testing.common import NOW, add, claim_one
from queuectl.testing.members import is_readable, member
from servers import Server, client, free_port
from support import Cli, wait_until


def opened(url: str, create: bool = True) -> List[str]:
    """Open a store and close it; returns what was told."""
    told: List[str] = []
    RedisStore(url, create, told.append).close()
    return told


def test_a_store_is_made_where_that_is_asked_for(redis_url: str, machine_state: Path) -> None:
    """And is there for whoever opens it; on this machine nothing is made for that."""
    with pytest.raises(NoStoreError, match=r"^no store at redis://\S+: queuectl enqueue makes one"):
        opened(redis_url, create=False)
    told = opened(redis_url)
    assert told[0] == f"created store {redis_url}"
    assert opened(redis_url) == opened(redis_url, create=False) == []
    assert not machine_state.exists()


def test_a_server_that_may_throw_jobs_away_is_refused(own_server: Server) -> None:
    """Before anything is made on it; whatever its limit is now."""
    redis = own_server.client()
    for policy in ("allkeys-lru", "volatile-ttl"):
        redis.config_set("maxmemory-policy", policy)
        with pytest.raises(StoreError) as caught:
            opened(own_server.url)
        assert str(caught.value) == (
            f"cannot use {own_server.url}: its server may throw jobs away where memory is short "
            f"({policy}): CONFIG SET maxmemory-policy noeviction"
        )
        assert redis.dbsize() == 0
    redis.config_set("maxmemory-policy", "noeviction")
    assert opened(own_server.url) == [f"created store {own_server.url}"]


def test_a_server_that_keeps_nothing_is_told_of_once(own_server: Server) -> None:
    """It can be used, but who makes a store on it should know."""
    redis = own_server.client()
    redis.config_set("appendonly", "no")
    told = opened(own_server.url)
    assert told[1] == (
        f"the server of {own_server.url} keeps nothing on its disk: "
        "it loses all jobs when it ends; CONFIG SET appendonly yes"
    )
    assert opened(own_server.url) == []
    redis.flushdb()
    redis.config_set("save", "60 1")
    assert len(opened(own_server.url)) == 1


def test_a_user_may_be_limited_to_the_keys_of_a_store(own_server: Server) -> None:
    """Where it is not allowed to look at the server, it is told what could not be checked."""
    allowed = ("+@read", "+@write", "+@scripting", "+@pubsub", "+@connection", "+time")
    own_server.client().execute_command(
        *("ACL", "SETUSER", "me", "on", ">pa:ss w", "~{queuectl}:*", "&{queuectl}:*", *allowed)
    )
    url = f"redis://me:pa%3Ass%20w@127.0.0.1:{own_server.port}/0"
    told: List[str] = []
    store = RedisStore(url, True, told.append)
    shown = f"redis://127.0.0.1:{own_server.port}/0"
    assert told == [
        f"the server of {shown} does not tell whether it may throw jobs away",
        f"created store {shown}",
    ]
    assert (store.url, store.shown) == (url, shown)
    add(store, "a")
    assert store.counts() == Counts(pending=1)
    store.close()
    with pytest.raises(StoreError) as caught:
        opened(f"{url}?prefix=other")
    assert "pa" not in str(caught.value).replace("permission", "").replace("/0?prefix", "")
    for wrong in ("me:wrong@", "", "nobody:x@"):
        if wrong:
            with pytest.raises(StoreError) as caught:
                opened(url.replace("me:pa%3Ass%20w@", wrong))
            assert not isinstance(caught.value, StoreAwayError)
            assert "wrong" not in str(caught.value)


def test_a_store_of_another_format_is_refused(redis_url: str) -> None:
    """And left as it is."""
    opened(redis_url)
    prefix = redis_url.partition("prefix=")[2]
    redis = client(redis_url)
    redis.hset(f"{{{prefix}}}:meta", mapping={"format": "2", "version": "9.8"})
    before = redis.hgetall(f"{{{prefix}}}:meta")
    with pytest.raises(StoreError) as caught:
        opened(redis_url)
    assert str(caught.value) == (
        f"cannot use {redis_url} with QueueCTL {__version__}, which does not know its format 2: "
        "QueueCTL 9.8 made that; upgrade"
    )
    assert redis.hgetall(f"{{{prefix}}}:meta") == before


def test_a_newer_version_refuses_to_work_beside_an_older_node(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once that has stopped, it raises the format; who comes back then finds the store gone."""
    old, sleeper = RedisStore(redis_url), RedisStore(redis_url)
    old.enroll(member("s1", "supervisor", host="nodeA", version="0.1.0"))
    with monkeypatch.context() as patch:
        patch.setattr(opening, "FORMAT", 2)
        patch.setattr(opening, "__version__", "9.8")
        with pytest.raises(StoreError) as caught:
            opened(redis_url)
        assert str(caught.value) == (
            f"cannot use {redis_url} with QueueCTL 9.8: node nodeA works on it with QueueCTL 0.1.0,"
            " which does not know format 2: stop it there first"
        )
        add(old, "a")
        old.leave("s1")
        old.close()
        new = RedisStore(redis_url)
        add(new, "b")
        opened(redis_url)
    assert new.counts() == Counts(pending=2)
    with pytest.raises(StoreGoneError):
        add(sleeper, "c")
    sleeper.close()
    with pytest.raises(StoreError, match=r"does not know its format 2: QueueCTL 9\.8 made"):
        opened(redis_url)
    assert new.kept_output("a", 1) == sleeper.kept_output("a", 1)
    assert new.counts() == Counts(pending=2)
    new.close()


def test_a_server_may_be_reached_by_a_socket(tmp_path: Path, machine_state: Path) -> None:
    folder = tmp_path / "server"
    path = f"/tmp/queuectl-test-{os.getpid()}.sock"
    server = Server(folder, unixsocket=path, appendonly="yes")
    try:
        for url in (f"unix://{path}", f"unix://{path}?db=3&prefix=p"):
            store = RedisStore(url)
            add(store, "a")
            store.close()
        assert server.client().dbsize() > 0
        assert client(server.url.replace("/0", "/3")).exists("{p}:jobs") == 1
    finally:
        server.kill()
        os.unlink(path)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:notaport/0",
        "redis://localhost/zero",
        "redis://localhost/0?prefix=",
        "redis://localhost/0?prefix={a}",
        "redis://localhost/0?nonsense=1",
        "redis+sentinel://localhost",
        "redis+sentinel:///service",
        "redis+sentinel://a:b:c/service/x",
        "redis+sentinel://a/service?ssl=true",
        "unix://run/socket",
    ],
)
def test_a_url_that_can_never_be_right_is_refused(url: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        opened(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("letter", "/?#[]@:%\\^\"'<{ \u2100")
def test_nothing_is_told_of_a_password_that_is_not_encoded(letter: str) -> None:
    """Wherever the URL seems to go on in it."""
    for scheme, place in (("redis", "h:1/0"), ("redis+sentinel", "h:1/main"), ("unix", "/path")):
        for password in (f"sec{letter}ret", f"12{letter}ret", f"sec{letter}ret={letter}sec"):
            try:
                said = parse_address(f"{scheme}://me:{password}@{place}").shown
                assert said == f"{scheme}://{place}"
            except InvalidValueError as error:
                said = str(error)
                assert "percent-encoded, such as %2F for /" in said
            assert not re.search(r"sec|ret|12\b", said), said


def test_a_scheme_in_capitals_is_no_folder(cli: Cli) -> None:
    """Whose name would hold the password."""
    done = cli.run("--store", "REDIS://me:secret@h/0", "enqueue", "true", check=2)
    assert done.stderr.startswith("queuectl: no store can be opened at REDIS:// URLs")
    assert "secret" not in done.stderr
    assert list(cli.folder.iterdir()) == []


def test_what_people_see_of_a_url_has_no_secret() -> None:
    for url, shown in (
        ("redis://u:p@h:1/2?prefix=x&password=s", "redis://h:1/2?prefix=x"),
        ("rediss://:p@h/0", "rediss://h/0"),
        ("unix://u:p@/run/s.sock?db=1", "unix:///run/s.sock"),
        ("redis+sentinel://u:p@a,b:7/svc/3", "redis+sentinel://a,b:7/svc/3"),
    ):
        assert parse_address(url).shown == shown


def test_sentinels_are_asked_where_the_server_is() -> None:
    found = parse_address("redis+sentinel://u:p%40@a,b:7/svc/3?prefix=x")
    assert found.prefix == "x"
    assert found.sentinels is not None
    assert found.sentinels == ([("a", 26379), ("b", 7)], "svc", 3, "u", "p@")


def test_a_server_that_is_away_is_told_of_in_one_line(cli: Cli, machine_state: Path) -> None:
    """Without the password, whatever the command."""
    pytest.importorskip("redis")
    port = free_port()
    cli.env["QUEUECTL_STORE"] = f"redis://me:secret@127.0.0.1:{port}/0?prefix=x"
    for words in (["enqueue", "true"], ["list"], ["start"], ["status", "--json"], ["config"]):
        assert cli.run(*words, check=3).stderr == (
            f"queuectl: cannot reach redis://127.0.0.1:{port}/0?prefix=x: connection refused\n"
        )


def test_a_server_without_room_says_so(own_server: Server) -> None:
    """What is there can still be read and finished; nothing was added."""
    from queuectl.errors import StoreFullError

    store = RedisStore(own_server.url)
    add(store, "a")
    own_server.client().config_set("maxmemory", "1mb")
    with pytest.raises(StoreFullError, match=r"the server's memory is full$"):
        add(store, "b")
    assert store.counts() == Counts(pending=1)
    own_server.client().config_set("maxmemory", "0")
    add(store, "b")
    store.close()


def test_a_server_is_found_by_its_sentinels(own_server: Server, tmp_path: Path) -> None:
    """Also if one of them is gone."""
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor mine 127.0.0.1 {own_server.port} 1\n"
    )
    with subprocess.Popen(
        [own_server.program, str(config), "--sentinel"], stdout=subprocess.DEVNULL
    ) as sentinel:
        try:
            wait_until(lambda: answers(port))
            url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/mine/0"
            store = RedisStore(url)
            add(store, "a")
            assert store.shown == url
            store.close()
            with pytest.raises(StoreAwayError) as caught:
                opened(f"redis+sentinel://127.0.0.1:{port}/other/0")
            assert str(caught.value) == (
                f"cannot reach redis+sentinel://127.0.0.1:{port}/other/0: "
                "no sentinel tells of a server"
            )
        finally:
            sentinel.kill()
    assert own_server.client().exists("{queuectl}:jobs") == 1


def answers(port: int) -> bool:
    """Whether a server listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.slow
def test_a_queue_lives_on_one_server_of_a_cluster(tmp_path: Path, machine_state: Path) -> None:
    """It is found by whichever is asked, and news of it comes from there too."""
    servers = [Server(tmp_path / name, cluster_enabled="yes") for name in "ab"]
    try:
        halves = ((0, 8191), (8192, 16383))
        for server, half in zip(servers, halves):
            server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", *half)
        servers[0].client().execute_command("CLUSTER", "MEET", "127.0.0.1", servers[1].port)
        for server in servers:
            redis = server.client()
            wait_until(lambda redis=redis: "cluster_state:ok" in str(info(redis)), timeout=20)
        for prefix in ("one", "two", "three"):
            stores = [RedisStore(f"{server.url}?prefix={prefix}") for server in servers]
            stores[0].enroll(member("s1", "supervisor"))
            add(stores[1], "a", "b")
            assert is_readable(stores[0].listen(), 10)
            done = rules.complete(claim_one(stores[0]), NOW)
            assert claim_one(stores[1], done=done).id == "b"
            assert stores[0].counts() == stores[1].counts() == Counts(completed=1, processing=1)
            stores[0].leave("s1")
            for store in stores:
                store.close()
        assert all(server.client().dbsize() for server in servers)
    finally:
        for server in servers:
            server.kill()


def info(redis: Any) -> bytes:
    """What a server tells of its cluster."""
    told: bytes = redis.execute_command("CLUSTER", "INFO")
    return told
