"""Which store a command means, and opening it."""

from __future__ import annotations

import os
import re
from typing import Optional

from queuectl.errors import InvalidValueError, RequestError
from queuectl.store.base import Notice, Store
from queuectl.store.folder import StoreFolder, find_folder

_URL = r"[A-Za-z][A-Za-z0-9+.-]*://"


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
    if location and (os.path.isabs(location) or re.match(_URL, location)):
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
    if re.match(_URL, location):
        from queuectl.store.registry import open_url

        return open_url(location, create, notice)
    from queuectl.store.file import FileStore

    return FileStore(location, create, notice)


def find_files(location: str) -> StoreFolder:
    """Name the files of a store, whatever is in them.

    Args:
        location: what `locate` returned.

    Raises:
        InvalidValueError: such a store has no files.
    """
    url = re.match(_URL, location)
    if url is not None:
        raise InvalidValueError(f"a store at a {url[0]} URL has no job file: give a folder")
    return StoreFolder(location)
