"""The store contract, held by every store that comes with QueueCTL."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from queuectl.store.base import Store
from queuectl.store.file import FileStore
from queuectl.store.opening import open_store
from queuectl.testing import MemoryStore, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[MemoryStore]:
        store = MemoryStore(str(tmp_path))
        yield store
        store.close()

    @pytest.fixture
    def reopen(self, store: MemoryStore, tmp_path: Path) -> Callable[[], Store]:
        return lambda: MemoryStore(str(tmp_path), store)


class TestFileStore(StoreContract):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Iterator[Callable[[], Store]]:
        opened: List[FileStore] = []

        def reopen() -> FileStore:
            opened.append(FileStore(str(tmp_path / "queuectl_data")))
            return opened[-1]

        yield reopen
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, reopen: Callable[[], Store]) -> Store:
        return reopen()


class TestRedisStore(StoreContract):
    @pytest.fixture
    def reopen(self, redis_url: str) -> Iterator[Callable[[], Store]]:
        opened: List[Store] = []

        def reopen() -> Store:
            opened.append(open_store(redis_url, True, lambda text: None))
            return opened[-1]

        yield reopen
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, reopen: Callable[[], Store]) -> Store:
        return reopen()
