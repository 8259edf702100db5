"""What a supervisor hears from the server: that jobs may have come, or that a stop is asked for.

The descriptor that it waits for stays the same, whatever becomes of the connection behind it: it is
that of a selector, which is readable when one of those in it is.
"""

from __future__ import annotations

import selectors
from typing import Any, NamedTuple, Optional

from redis import exceptions

from queuectl.errors import StoreError
from queuectl.store.redis.link import Link


def subscribed(link: Link, channel: str) -> Any:
    """Open a connection on which comes what is told on a channel; raises StoreError."""
    connection = link.open_another()
    try:
        connection.send_command("SUBSCRIBE", channel)
        connection.read_response()
    except (exceptions.RedisError, OSError) as error:
        connection.disconnect()
        raise StoreError(f"cannot listen: {error}") from error
    return connection


class Heard(NamedTuple):
    """What was heard: how many jobs may have come, and whether a stop is asked for, by force."""

    jobs: int
    stop: Optional[bool]


class Listener:
    """Listens for one supervisor.

    Args:
        link: opens the connection.
        channel: where news is told.
        member: the supervisor's id.
        pipe: where this machine's own commands tell it something; it stays the caller's.
    """

    def __init__(self, link: Link, channel: str, member: str, pipe: int) -> None:
        self._link = link
        self._channel = channel
        self._member = member.encode()
        self._connection: Optional[Any] = None
        self._socket: Any = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(pipe, selectors.EVENT_READ)

    def descriptor(self) -> int:
        """What is readable once there is something to hear."""
        return self._selector.fileno()

    def connect(self, anew: bool = False) -> None:
        """Listen from now on, if that is not so; raises StoreError if it cannot be.

        Args:
            anew: whether nothing comes any more from a connection that looks whole: as nothing is
                sent on it either, its other side may be gone unnoticed.
        """
        if anew:
            self._drop()
        if self._connection is not None:
            return
        connection = subscribed(self._link, self._channel)
        self._connection = connection
        # The library has no other way to tell; by this it is found again once it is closed.
        self._socket = connection._sock
        self._selector.register(self._socket, selectors.EVENT_READ)

    def hear(self) -> Heard:
        """Take in all that has arrived; never waits."""
        jobs, stop = 0, None
        while self._connection is not None:
            try:
                if not self._connection.can_read(timeout=0):
                    break
                said = bytes(self._connection.read_response()[-1])
            except (exceptions.RedisError, OSError):
                # `connect` is asked for again before long; what was missed is found by then.
                self._drop()
                break
            if said[:1] == b"n":
                jobs += int(said[1:])
            elif said[1:] == self._member:
                stop = bool(stop) or said[:1] == b"f"
        return Heard(jobs, stop)

    def close(self) -> None:
        """Stop listening; in a forked process, close what was the parent's."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
        self._selector.close()

    def _drop(self) -> None:
        if self._connection is not None:
            self._selector.unregister(self._socket)
            self._connection.disconnect()
            self._connection = None
