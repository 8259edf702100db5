"""Opening a store on a server: making it if need be, and refusing a server that would lose jobs."""

from __future__ import annotations

import json
import uuid
from typing import Any, Dict, List, NamedTuple

from queuectl import __version__, clock
from queuectl.errors import NoStoreError, StoreError
from queuectl.store.base import Notice
from queuectl.store.redis.link import Link

FORMAT = 1
"""Of what is kept; to be raised where an older QueueCTL would damage what a newer one writes."""


class Opened(NamedTuple):
    """What is known of a store that was opened.

    Attributes:
        name: its own, which nobody chose.
        identity: the same, and its format if that was raised: by it each script knows whether the
            store is still the one that was opened.
        made_at: when it was made, in seconds since the epoch.
        server_time: the server's time in milliseconds.
        unsettled: whether jobs are left to be placed.
    """

    name: str
    identity: str
    made_at: float
    server_time: int
    unsettled: bool


def open_on(link: Link, shown: str, create: bool, notice: Notice) -> Opened:
    """Open the store of a link.

    Args:
        link: where.
        shown: how to call it.
        create: whether to make one.
        notice: told, in one line each, what a user should know.

    Raises:
        NoStoreError: there is none, and none is to be made.
        StoreError: it cannot be used, needs a newer QueueCTL, or its server may throw jobs away.
    """
    # Before anything is made there.
    memory, persistence = link.run(("INFO", "memory"), ("INFO", "persistence"))
    _refuse_eviction(memory, shown, notice)
    now = clock.to_iso(clock.now())
    asked = (int(create), uuid.uuid4().hex, now, FORMAT, __version__)
    made, time, listed, unsettled, older = link.call("open", *asked)
    meta = dict(zip(listed[::2], listed[1::2]))
    if b"id" not in meta:
        raise NoStoreError(shown)
    _check_format(meta, older, shown)
    if made:
        notice(f"created store {shown}")
        facts = _facts(persistence)
        if facts.get("aof_enabled") == "0" and not _saves(link):
            notice(
                f"the server of {shown} keeps nothing on its disk: it loses all jobs when it ends;"
                " CONFIG SET appendonly yes"
            )
    made_at = clock.from_iso(meta[b"created_at"].decode())
    identity = meta[b"id"].decode()
    return Opened(identity.partition(".")[0], identity, made_at, time, bool(unsettled))


def _check_format(meta: Dict[bytes, bytes], older: bytes, shown: str) -> None:
    """Refuse what this QueueCTL would damage, or who would damage what it writes."""
    if older:
        node = json.loads(older)
        raise StoreError(
            f"cannot use {shown} with QueueCTL {__version__}: node {node['host']} works on it with "
            f"QueueCTL {node['version']}, which does not know format {FORMAT}: stop it there first"
        )
    if int(meta[b"format"]) > FORMAT:
        raise StoreError(
            f"cannot use {shown} with QueueCTL {__version__}, which does not know its format "
            f"{int(meta[b'format'])}: QueueCTL {meta[b'version'].decode()} made that; upgrade"
        )


def _refuse_eviction(info: Any, shown: str, notice: Notice) -> None:
    policy = _facts(info).get("maxmemory_policy")
    if policy is None:
        notice(f"the server of {shown} does not tell whether it may throw jobs away")
    elif policy != "noeviction":
        raise StoreError(
            f"cannot use {shown}: its server may throw jobs away where memory is short "
            f"({policy}): CONFIG SET maxmemory-policy noeviction"
        )


def _saves(link: Link) -> bool:
    """Whether the server writes snapshots to its disk; yes where it does not tell."""
    (said,) = link.run(("CONFIG", "GET", "save"))
    return not isinstance(said, list) or len(said) < 2 or said[1] != b""


def _facts(info: Any) -> Dict[str, str]:
    """What INFO tells; nothing where it was refused."""
    if not isinstance(info, bytes):
        return {}
    lines: List[str] = info.decode("ascii", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
