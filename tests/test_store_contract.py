"""The store contract, held by every store that comes with QueueCTL."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from queuectl.store.base import Store
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
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "queuectl_data")


class TestRedisStore(StoreContract):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url
