"""QueueCTL: a background job queue for shell commands.

`QueueManager`, `Job` and the errors are loaded when they are first asked for, so that a command
pays only for what it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from queuectl.errors import (
        AmbiguousIdError,
        ClaimLostError,
        ConflictError,
        DamagedError,
        DuplicateIdError,
        InvalidValueError,
        KeyTakenError,
        NoStoreError,
        NotFoundError,
        OutcomeUnknownError,
        QueueError,
        RequestError,
        StoreError,
        StoreFullError,
        StoreGoneError,
        StoreLockedError,
        WaitTimeoutError,
        WrongStateError,
    )
    from queuectl.job import Job
    from queuectl.manager import QueueManager

__version__ = "0.1.0"

__all__ = [
    "AmbiguousIdError",
    "ClaimLostError",
    "ConflictError",
    "DamagedError",
    "DuplicateIdError",
    "InvalidValueError",
    "Job",
    "KeyTakenError",
    "NoStoreError",
    "NotFoundError",
    "OutcomeUnknownError",
    "QueueError",
    "QueueManager",
    "RequestError",
    "StoreError",
    "StoreFullError",
    "StoreGoneError",
    "StoreLockedError",
    "WaitTimeoutError",
    "WrongStateError",
    "__version__",
]

_HOMES = {"Job": "queuectl.job", "QueueManager": "queuectl.manager"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'queuectl' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "queuectl.errors")), name)


def __dir__() -> List[str]:
    return sorted(__all__)
