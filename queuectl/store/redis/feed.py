"""All changes of the jobs of a store on a server, as its scripts tell of them when they end.

On one connection nothing is lost that was told. One that breaks loses what is told until there is
another, and so does one whose other side is gone unnoticed: if nothing came for a while, it is
asked whether it is there.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Callable, Optional

from redis import exceptions

from queuectl.store.base import Feed, JobChange
from queuectl.store.redis.link import Link
from queuectl.store.redis.listening import subscribed
from queuectl.store.redis.packed import LETTERS

_QUIET = 5.0  # seconds without a word, after which to ask
_ANSWER = 5.0  # seconds without an answer to that, after which nobody is

_STATES = {letter: state for state, letter in LETTERS.items()}


class RedisFeed(Feed):
    """The changes of a store from now on.

    Args:
        link: opens the connection.
        channel: where scripts tell of changes.

    Raises:
        StoreError: there is no connection.
    """

    def __init__(self, link: Link, channel: str) -> None:
        self._link = link
        self._channel = channel
        self._connection: Optional[Any] = None
        self._connect()

    def look(self, tell: Callable[[JobChange], None]) -> bool:
        """Take in all that has arrived; raises StoreError if there is no connection."""
        is_whole = self._connection is not None
        if self._connection is None:
            self._connect()
        try:
            self._hear(tell)
        except (exceptions.RedisError, OSError):
            self.close()
            self._connect()
            is_whole = False
        return is_whole

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _connect(self) -> None:
        self._connection = subscribed(self._link, self._channel)
        self._heard_at = self._asked_at = monotonic()

    def _hear(self, tell: Callable[[JobChange], None]) -> None:
        assert self._connection is not None
        while self._connection.can_read(timeout=0):
            kind, *rest = self._connection.read_response()
            self._heard_at = monotonic()
            if kind == b"message":
                for line in rest[-1].decode().split("\n"):
                    letter, job_id, queue = line.split(" ")
                    tell(JobChange(job_id, _STATES.get(letter), queue))
        now = monotonic()
        if self._asked_at > self._heard_at:
            if now > self._asked_at + _ANSWER:
                raise exceptions.TimeoutError("no answer")
        elif now > self._heard_at + _QUIET:
            self._connection.send_command("PING")
            self._asked_at = now
