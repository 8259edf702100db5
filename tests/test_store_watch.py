"""Looking at a job file again and again: without the lock, and never taking damage for data."""

from __future__ import annotations

import os
import shutil
from typing import Callable, Iterator

import pytest

from queuectl.errors import DamagedError, StoreGoneError
from queuectl.store.file import FileStore
from queuectl.store.lock import StoreLock
from queuectl.testing.common import add, claim_one
from test_store_tools import Disk

Look = Callable[[], object]


@pytest.fixture
def store(disk: Disk) -> FileStore:
    """A store with a job `a`."""
    store = disk.open()
    add(store, "a")
    return store


@pytest.fixture(params=["watch", "activity"])
def look(store: FileStore, request: pytest.FixtureRequest) -> Iterator[Look]:
    """A look at the job, by a watch, or at what all jobs do."""
    with store.watch(["a"]) as watch:
        yield {"watch": lambda: dict(watch.look()), "activity": lambda: store.activity(5)}[
            request.param
        ]


def overwrite(path: str, offset: int, data: bytes) -> None:
    """Write over bytes of a file."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_look_takes_no_lock_and_reads_only_what_is_new(store: FileStore, look: Look) -> None:
    look()
    path = store.folder.job_file
    with open(path, "rb") as file:
        at = file.read().index(b'"command"')
    with StoreLock(store.folder.lock):
        overwrite(path, at, b"*")
        look()
    overwrite(path, at, b'"')
    claimed = claim_one(store)
    overwrite(path, at, b"*")
    assert claimed.command in str(look())
    overwrite(path, at, b'"')


def test_what_is_not_committed_is_not_seen(store: FileStore, look: Look) -> None:
    look()
    before = look()
    path = store.folder.job_file
    size = os.path.getsize(path)
    with open(path, "ab") as file:
        file.write(b'{"id":"a","seq":1,"state":"processing","run_at":null')
    assert look() == before
    os.truncate(path, size)
    assert look() == before


@pytest.mark.parametrize("new", [True, False])
def test_damage_is_an_error_and_no_data(new: bool, store: FileStore, look: Look) -> None:
    """Damage in what is new, and anywhere if the file has to be looked through."""
    if new:
        look()
    size = os.path.getsize(store.folder.job_file)
    claim_one(store)
    overwrite(store.folder.job_file, size + 20 if new else 200, b"\0")
    with pytest.raises(DamagedError):
        look()


def test_a_store_that_was_removed_or_made_anew_is_gone(
    store: FileStore, look: Look, disk: Disk
) -> None:
    look()
    shutil.rmtree(store.url)
    with pytest.raises(StoreGoneError):
        look()
    add(disk.open(), "a")
    with pytest.raises(StoreGoneError):
        look()
