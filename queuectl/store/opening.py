"""Which store a command means, and opening it."""

from __future__ import annotations

import os
import re
from typing import Optional

from queuectl.errors import InvalidValueError, RequestError
from queuectl.store.base import Notice, Store
from queuectl.store.folder import StoreFolder, find_folder

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.ASCII)

_ON_REDIS = ("redis://", "rediss://", "unix://", "redis+sentinel://")


def locate(location: Optional[str] = None) -> str:
    """Choose the store: as asked for, else `QUEUECTL_STORE`, else the nearest `queuectl_data`.

    Args:
        location: a folder or a URL; empty is unset.

    Returns:
        A URL, or the absolute path of a folder.

    Raises:
        RequestError: it depends on the current folder, which was deleted.
    """
    location = location or os.environ.get("QUEUECTL_STORE")
    if location and (os.path.isabs(location) or _URL.match(location)):
        return location
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise RequestError(
            "the current folder was deleted: change to one that exists, or use --store"
        ) from error
    return os.path.abspath(location) if location else find_folder(here, os.path.expanduser("~"))


def open_store(location: str, create: bool, notice: Notice) -> Store:
    """Open a store.

    Args:
        location: what `locate` returned.
        create: whether to make it where there is none.
        notice: told, in one line each, what a user should know.

    Raises:
        InvalidValueError: there is no kind of store for this URL.
        StoreError, DamagedError, StoreLockedError: see `queuectl.errors`.
    """
    if location.startswith(_ON_REDIS):
        from queuectl.store.redis import RedisStore

        return RedisStore(location, create, notice)
    _require_folder(location)
    from queuectl.store.file import FileStore

    return FileStore(location, create, notice)


def find_files(location: str) -> StoreFolder:
    """Name the files of a store, whatever is in them.

    Args:
        location: what `locate` returned.

    Raises:
        InvalidValueError: such a store has no files.
    """
    _require_folder(location)
    return StoreFolder(location)


def _require_folder(location: str) -> None:
    url = _URL.match(location)
    if url is not None:
        raise InvalidValueError(
            f"no store can be opened at {url[0]} URLs: give the path of a folder"
        )
