"""What doctor finds: one thing about a store, in words."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple

DAMAGE, NOTE = "damage", "note"


class Finding(NamedTuple):
    """Something about a store that somebody who looks after it should know.

    Attributes:
        level: `damage`, which stops commands or has cost something; or `note`, which needs nobody.
        file: which file or folder it is about.
        offset: where in it, in bytes, if it is about a place.
        message: what it is, in words.
        ids: the jobs that it concerns, as far as they are known.
    """

    level: str
    file: str
    offset: Optional[int]
    message: str
    ids: Tuple[str, ...] = ()


def count(number: int, noun: str) -> str:
    """Write how many there are of something: `1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
