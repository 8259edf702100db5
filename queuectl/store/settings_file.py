"""The settings that `queuectl config` stored: a JSON object, replaced as a whole."""

from __future__ import annotations

import json
import os
from typing import Dict

from queuectl.errors import DamagedError, StoreError
from queuectl.store.disk import open_file, replace_file
from queuectl.store.folder import refuse_dangling, refuse_foreign


def read(path: str) -> Dict[str, str]:
    """Read the settings; none if there is no such file.

    Raises:
        DamagedError: it is not such an object.
        StoreError: it cannot be read, or others could have written it.
    """
    try:
        with open(open_file(path, os.O_RDONLY), "rb") as file:
            refuse_foreign(path, path, os.fstat(file.fileno()))
            data = file.read()
    except FileNotFoundError:
        refuse_dangling(path)
        return {}
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    try:
        stored = json.loads(data)
    except ValueError as error:
        raise DamagedError(
            path, getattr(error, "pos", getattr(error, "start", 0)), "it is not JSON"
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(text, str) for text in stored.values()):
        raise DamagedError(path, 0, "it is not an object from name to text")
    return stored


def write(path: str, stored: Dict[str, str]) -> None:
    """Replace the settings; returns once the disk holds them.

    Raises:
        OutcomeUnknownError: they are in force, but may not be after a loss of power.
        StoreError: they cannot be written; the old ones are still in force.
    """
    data = json.dumps(stored, indent=2, sort_keys=True).encode("ascii") + b"\n"
    replace_file(path, data)
