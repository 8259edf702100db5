"""The scripts: their text, and what the server knows them by."""

from __future__ import annotations

import hashlib
import os
from typing import Dict, NamedTuple

_FOLDER = os.path.dirname(__file__)
_CHOOSING = ("claim", "look", "oldest")


class Script(NamedTuple):
    """A script, and the SHA-1 by which it is called once the server has it."""

    text: bytes
    sha: str


_loaded: Dict[str, Script] = {}


def script(name: str) -> Script:
    """Return a script by the name of its file."""
    found = _loaded.get(name)
    if found is None:
        parts = ["common", *(["choose"] if name in _CHOOSING else []), name]
        text = b"".join(map(_read, parts))
        # The server's name for it, no protection.
        found = _loaded[name] = Script(text, hashlib.sha1(text).hexdigest())
    return found


def _read(name: str) -> bytes:
    with open(os.path.join(_FOLDER, f"{name}.lua"), "rb") as file:
        return file.read()
