"""The connection to the server: opened when it is needed, again after it broke, never shared.

A forked process leaves its parent's connection alone and opens its own. What the client library
raises becomes one of our errors here, once. While the server is away, nobody waits for it again
and again: between two attempts to connect lies a pause that grows, with jitter.
"""

from __future__ import annotations

import random
import threading
from time import monotonic
from typing import Any, List, Optional, Sequence, Tuple

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from queuectl.errors import (
    InvalidValueError,
    StoreAwayError,
    StoreError,
    StoreFullError,
    StoreGoneError,
)
from queuectl.store.redis.address import Address
from queuectl.store.redis.scripts import script

_CONNECT = 1.0  # seconds for a connection to be made
_ANSWER = 5.0  # seconds for an answer
_QUICK_ANSWER = 1.0  # the same for who has no time to wait
# Of three attempts of theirs to connect, each may take longer: what is sent while the network is
# cut is lost, and nobody sends it again as soon as we can.
_QUICK_CONNECTS = (0.3, 0.6, _CONNECT)
_IDLE = 1.0  # seconds after which a connection may have been closed by the other side
_FIRST_PAUSE = 0.1  # seconds between two attempts to connect; doubled with each that fails
_LONGEST_PAUSE = 2.0
_LONGEST_QUICK_PAUSE = 0.3
_HOPS = 5  # servers of a cluster that are asked, one after the other, where the store is
_PASSING = (
    *("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "UNBLOCKED"),
    # It cannot write to its disk, or to its replicas.
    *("MISCONF", "NOREPLICAS"),
)
# The same where the library keeps only what is said behind the word.
_ALSO_PASSING = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
)
_ON_THE_MOVE = (exceptions.AskError, exceptions.TryAgainError)


class _MovedError(Exception):
    """Another server of the cluster has the store."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.host = host
        self.port = port


class Link:
    """A connection, with everything that can go wrong with it.

    Args:
        address: where the server is.
        jobs: the key by which a cluster knows where the store is, and scripts its prefix.
        nothing: a key that never is there. While a cluster moves the store, key by key, a server
            refuses who asks for one that it lacks: so no script finds a part of the store only.

    Attributes:
        unsure: whether the last change was sent but never answered: it may have been made.
    """

    def __init__(self, address: Address, jobs: str, nothing: str) -> None:
        self._address = address
        self._keys = (2, jobs.encode(), nothing.encode())
        self._threads = threading.Lock()
        self._connection: Optional[Any] = None
        self._used_at = 0.0
        self._failures = 0
        self._next_attempt = 0.0
        self.unsure = False
        try:
            self._pool = self._make_pool()
            # It is not opened, but would be refused parameters that it does not know.
            self._make_connection()
        except (ValueError, TypeError) as error:
            raise InvalidValueError(f"bad store URL {address.shown}: {error}") from error

    @property
    def is_down(self) -> bool:
        """Whether the connection broke, and was not opened again since."""
        return self._connection is None

    def call(self, name: str, *args: Any, quick: bool = False, changes: bool = False) -> List[Any]:
        """Run a script, and return what it says.

        Args:
            name: of the script.
            *args: for it.
            quick: whether to give up waiting for the answer after a second, and to be more eager
                to connect.
            changes: whether it makes a change of which one must know whether it was made.

        Raises:
            StoreGoneError: the store was removed.
            StoreAwayError: the server does not answer, or can do nothing just now.
            StoreFullError: it has no room.
            StoreError: anything else that it says.
        """
        code = script(name)
        calling: Tuple[str, Any] = ("EVALSHA", code.sha)
        hops = 0
        with self._threads:
            while True:
                try:
                    reply = self._ask((*calling, *self._keys, *args), quick, changes)
                except exceptions.NoScriptError:
                    calling = ("EVAL", code.text)
                except _MovedError as moved:
                    hops += 1
                    if hops > _HOPS:
                        where = self._address.shown
                        raise StoreAwayError(
                            f"cannot use {where}: its cluster does not agree on where it is"
                        ) from moved
                    self._go_to(moved)
                else:
                    return list(reply)

    def run(self, *commands: Sequence[Any]) -> List[Any]:
        """Send commands that change nothing together; return what the server says to each."""
        with self._threads:
            replies = self._exchange(commands)
            for moved in list(filter(None, map(_moved, replies)))[:1]:
                self._go_to(moved)
                replies = self._exchange(commands)
        for reply in replies:
            if isinstance(reply, exceptions.ResponseError) and not _is_refusal(reply):
                raise self._in_words(reply) from reply
        return replies

    def open_another(self, within: float = _CONNECT) -> Any:
        """Open a connection for the caller alone, in so many seconds.

        Raises StoreAwayError or StoreError.
        """
        connection = self._make_connection()
        connection.socket_connect_timeout = within
        try:
            connection.connect()
        except (exceptions.RedisError, OSError) as error:
            raise self._in_words(error) from error
        return connection

    def close(self) -> None:
        """Close the connection; in a forked process only the descriptor is."""
        self._drop()

    def after_fork(self) -> None:
        """In a forked process: begin without what is the parent's."""
        self._threads = threading.Lock()
        self.unsure = False
        self._drop()
        self._pool = self._make_pool()

    def _make_pool(self) -> Any:
        options = {
            "socket_timeout": _ANSWER,
            "socket_connect_timeout": _CONNECT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if self._address.client_url.startswith("rediss:"):
            # Older releases do not by themselves.
            options["ssl_check_hostname"] = True
        sentinels = self._address.sentinels
        if sentinels is None:
            return redis.ConnectionPool.from_url(self._address.client_url, **options)
        asked = Sentinel(sentinels.hosts, sentinel_kwargs=dict(options), **options)
        client = asked.master_for(
            sentinels.service,
            db=sentinels.db,
            username=sentinels.username,
            password=sentinels.password,
        )
        return client.connection_pool

    def _make_connection(self) -> Any:
        # Not by the pool, which counts those it has made, and has a limit.
        return self._pool.connection_class(**self._pool.connection_kwargs)

    def _exchange(self, commands: Sequence[Sequence[Any]]) -> List[Any]:
        connection = self._connected()
        try:
            for command in commands:
                connection.send_command(*command)
            replies = [self._read(connection) for _ in commands]
        except (exceptions.RedisError, OSError) as error:
            self._drop()
            raise self._in_words(error) from error
        except BaseException:
            self._drop()
            raise
        self._used_at = monotonic()
        return replies

    def _ask(self, command: Sequence[Any], quick: bool, changes: bool) -> Any:
        connection = self._connected(quick)
        try:
            connection.send_command(*command)
            if quick and not connection.can_read(timeout=_QUICK_ANSWER):
                raise exceptions.TimeoutError("no answer")
            reply = connection.read_response()
        except exceptions.NoScriptError:
            raise
        except exceptions.ResponseError as error:
            moved = _moved(error)
            if moved is not None:
                raise moved from error
            # It has answered; whatever it was, nothing was changed.
            raise self._in_words(error) from error
        except (exceptions.RedisError, OSError) as error:
            self._drop()
            self.unsure = self.unsure or changes
            raise self._in_words(error) from error
        except BaseException:
            # Whoever comes next must not take the answer to this for his own.
            self._drop()
            self.unsure = self.unsure or changes
            raise
        self._used_at = monotonic()
        return reply

    def _connected(self, quick: bool = False) -> Any:
        connection = self._connection
        if connection is not None and monotonic() - self._used_at > _IDLE:
            # It was closed if there is something to read.
            try:
                is_stale = connection.can_read(timeout=0)
            except (exceptions.RedisError, OSError):
                is_stale = True
            if is_stale:
                self._drop()
        if self._connection is None:
            self._connect(quick)
        return self._connection

    def _connect(self, quick: bool) -> None:
        if monotonic() < self._next_attempt:
            raise StoreAwayError(f"cannot reach {self._address.shown}")
        try:
            attempt = self._failures % len(_QUICK_CONNECTS)
            self._connection = self.open_another(_QUICK_CONNECTS[attempt] if quick else _CONNECT)
        except StoreError:
            longest = _LONGEST_QUICK_PAUSE if quick else _LONGEST_PAUSE
            pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 10), longest)
            self._failures += 1
            self._next_attempt = monotonic() + pause * random.uniform(0.5, 1.0)
            # The others of a cluster may know of a new one.
            self._pool = self._make_pool()
            raise
        self._failures = 0
        self._used_at = monotonic()

    def _go_to(self, moved: _MovedError) -> None:
        """Go on with the server of a cluster that has the store, which another one has named."""
        self._drop()
        self._pool.connection_kwargs.update(port=moved.port)
        if moved.host:
            self._pool.connection_kwargs.update(host=moved.host)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _read(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except exceptions.ResponseError as error:
            return error

    def gone(self) -> StoreGoneError:
        """What to raise when the store is not there any more."""
        return StoreGoneError(f"store {self._address.shown} was removed")

    def _in_words(self, error: Exception) -> StoreError:
        said = " ".join(str(error).split())
        where = self._address.shown
        if said.startswith("GONE"):
            return self.gone()
        if isinstance(error, exceptions.OutOfMemoryError) or "OOM command" in said:
            return StoreFullError(f"cannot write to {where}: the server's memory is full")
        if isinstance(error, _ON_THE_MOVE) or said.startswith(("ASK ", "TRYAGAIN ")):
            return StoreAwayError(f"cannot use {where}: its cluster is moving it")
        if isinstance(error, _ALSO_PASSING) or any(
            said.startswith(word) or f"-{word} " in said for word in _PASSING
        ):
            return StoreAwayError(f"cannot use {where}: {_plain(said)}")
        if isinstance(error, MasterNotFoundError):
            return StoreAwayError(f"cannot reach {where}: no sentinel tells of a server")
        if isinstance(error, exceptions.AuthenticationError):
            return StoreError(f"cannot use {where}: {said}")
        if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError)):
            return StoreAwayError(f"cannot reach {where}: {_reason(error)}")
        return StoreError(f"cannot use {where}: {said}")


def _moved(reply: Any) -> Optional[_MovedError]:
    """Where the store is instead, if that is what a server said."""
    if isinstance(reply, exceptions.MovedError):
        return _MovedError(reply.host, reply.port)
    words = str(reply).split() if isinstance(reply, exceptions.ResponseError) else []
    if words[:1] != ["MOVED"]:
        return None
    host, _, port = words[2].rpartition(":")
    return _MovedError(host, int(port))


def _is_refusal(error: Exception) -> bool:
    """Whether a command is not allowed to this user, or not known to this server."""
    return isinstance(error, exceptions.NoPermissionError) or "unknown command" in str(error)


def _plain(said: str) -> str:
    """What the server said, without the place in a script where it said it."""
    return said.partition(" script: ")[0].rstrip(".")


def _reason(error: BaseException) -> str:
    """What the system said, without the address, which is told once."""
    seen: Optional[BaseException] = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror[:1].lower() + seen.strerror[1:]
        seen = seen.__cause__ or seen.__context__
    return " ".join(str(error).split()).rstrip(".") or "no answer"
