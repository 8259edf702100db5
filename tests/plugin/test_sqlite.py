"""The store keeps what QueueCTL promises."""

from pathlib import Path

import pytest

from queuectl.testing import StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/queue"
