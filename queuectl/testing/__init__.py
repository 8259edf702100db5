"""For those who write a store: the suite that it must pass, and a reference to compare it with.

    from queuectl.testing import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def url(self, tmp_path):
            return f"mine://{tmp_path}/queue"

Needs pytest, which `queuectl[dev]` installs.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(
        f"queuectl.testing.{part}"
        for part in (
            "claims",
            "common",
            "dependencies",
            "jobs",
            "keys",
            "members",
            "outputs",
            "queues",
            "watching",
        )
    )
)

from queuectl.testing.contract import StoreContract  # noqa: E402  # After the line above.
from queuectl.testing.memory import MemoryStore  # noqa: E402

__all__ = ["MemoryStore", "StoreContract"]
