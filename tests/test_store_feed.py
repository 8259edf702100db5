"""Feeds where their store is replaced or cut off: what may be missing is said, and they go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import List, Tuple

import pytest

from queuectl.store import recovery
from queuectl.store.base import Feed, JobChange
from queuectl.store.file import FileStore
from queuectl.store.redis import RedisStore
from queuectl.store.redis import feed as feed_module
from queuectl.testing.common import add, run_and_complete
from queuectl.testing.feeds import open_feed, told
from servers import Cable, Server, client
from support import wait_until


def look(feed: Feed) -> Tuple[bool, List[str]]:
    found: List[JobChange] = []
    return feed.look(found.append), [change.id for change in found]


def test_a_file_that_was_copied_is_read_on_in(tmp_path: Path) -> None:
    """As the next writer does after a sync that failed; its commits keep their numbers."""
    store = FileStore(str(tmp_path / "q"))
    add(store, "a")
    with open_feed(store) as feed:
        add(store, "b")
        recovery.mark_unsynced(store.folder)
        inode = (tmp_path / "q" / "jobs.jsonl").stat().st_ino
        add(store, "c", "d")
        assert (tmp_path / "q" / "jobs.jsonl").stat().st_ino != inode
        assert [job_id for job_id, _ in told(feed, 3)] == ["b", "c", "d"]
    store.close()


def test_a_file_that_was_replaced_twice_is_not_taken_for_the_next(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path / "q"))
    add(store, "a", "b")
    with open_feed(store) as feed:
        for _ in range(2):
            run_and_complete(store)
            store.rewrite()
        assert look(feed)[0] is False
        add(store, "c")
        assert look(feed) == (True, ["c"])
    store.close()


def test_a_server_that_was_away_may_have_told_of_something(redis_url: str) -> None:
    store = RedisStore(redis_url)
    with open_feed(store) as feed:
        add(store, "a")
        assert told(feed, 1) == [("a", "pending")]
        client(redis_url).execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        add(store, "b")
        wait_until(lambda: look(feed)[0] is False)
        wait_until(lambda: look(feed)[0])
        add(store, "c")
        assert told(feed, 1) == [("c", "pending")]
    store.close()


def test_a_server_that_fell_silent_is_asked(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers has nothing to tell; through a network that was cut may be missing some."""
    monkeypatch.setattr(feed_module, "_QUIET", 0.02)
    monkeypatch.setattr(feed_module, "_ANSWER", 0.3)
    cable = Cable(own_server.port)
    store = RedisStore(f"redis://127.0.0.1:{cable.port}/0")
    with open_feed(store) as feed:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert look(feed) == (True, [])
        cable.mute_newest()
        add(store, "a")
        wait_until(lambda: look(feed)[0] is False)
        add(store, "b")
        assert told(feed, 1) == [("b", "pending")]
    store.close()
    cable.close()
