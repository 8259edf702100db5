"""The names of the keys of one store, all with one hash tag, so that a cluster keeps them together.

What each holds is told in `common.lua`, which makes most of them itself.
"""

from __future__ import annotations

import re

from queuectl.errors import InvalidValueError

DEFAULT_PREFIX = "queuectl"
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


class Keys:
    """The names that are used outside of scripts.

    Args:
        prefix: what tells the store from others on the same server.

    Raises:
        InvalidValueError: it cannot be that.
    """

    def __init__(self, prefix: str) -> None:
        if _PREFIX.fullmatch(prefix) is None:
            raise InvalidValueError(
                f"bad prefix {prefix!r}: use 1 to 64 letters, digits, '.', '_', ':' and '-'"
            )
        self._tag = f"{{{prefix}}}:"
        self.jobs = self._tag + "jobs"
        self.tally = self._tag + "tally"
        self.totals = self._tag + "totals"
        self.meta = self._tag + "meta"
        self.awaited = self._tag + "awaited"
        self.rules = self._tag + "rules"
        self.unique = self._tag + "unique"
        self.news = self._tag + "news"
        self.changes = self._tag + "changes"
        self.nothing = self._tag + "nothing"

    def kids(self, seq: int) -> str:
        """Who was made to wait for the job of this place."""
        return f"{self._tag}kids:{seq}"
