"""Where a store on a server is: its URL, taken apart.

    redis://[user:password@]host[:port][/db]       the same with rediss:// over TLS
    unix://[user:password@]/path/of/socket[?db=N]
    redis+sentinel://[user:password@]host[:port][,host[:port]...]/service[/db]

`?prefix=NAME` tells one store on a server from others. Any other parameter is for the client
library, such as `ssl_ca_certs` or `socket_timeout`.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Tuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from queuectl.errors import InvalidValueError
from queuectl.store.redis.keys import DEFAULT_PREFIX

SENTINEL = "redis+sentinel"
_SENTINEL_PORT = 26379
_FORMS = {
    "redis": "redis://[USER:PASSWORD@]HOST[:PORT][/DB]",
    "rediss": "rediss://[USER:PASSWORD@]HOST[:PORT][/DB]",
    "unix": "unix://[USER:PASSWORD@]/PATH[?db=DB]",
    SENTINEL: "redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DB]",
}


class Sentinels(NamedTuple):
    """The sentinels that know where the server is, and what they call it."""

    hosts: List[Tuple[str, int]]
    service: str
    db: int
    username: Optional[str]
    password: Optional[str]


class Address(NamedTuple):
    """A URL, taken apart.

    Attributes:
        url: as it was given.
        shown: the same for people to read, without what is secret.
        client_url: the same for the client library.
        prefix: of all keys.
        sentinels: who is asked where the server is, if anybody.
    """

    url: str
    shown: str
    client_url: str
    prefix: str
    sentinels: Optional[Sentinels]


def parse_address(url: str) -> Address:
    """Take a URL apart.

    Raises:
        InvalidValueError: it is not in one of the forms above. Of one that was not understood,
            nothing is told: any part of it may be the password.
    """
    scheme = url.partition("://")[0]
    try:
        parts = _split(url)
        sentinels = _sentinels(parts) if scheme == SENTINEL else None
        if scheme in ("redis", "rediss"):
            # Only asked for is it looked at.
            _ = parts.port
            _db(parts.path.strip("/"))
    except ValueError as error:
        raise InvalidValueError(
            f"bad {scheme}:// URL: it must be {_FORMS[scheme]}, with special characters in user and"
            " password percent-encoded, such as %2F for /"
        ) from error
    options = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in options if name != "prefix"]
    prefix = dict(options).get("prefix", DEFAULT_PREFIX)
    host = parts.netloc.rpartition("@")[2]
    named = "" if prefix == DEFAULT_PREFIX else "?" + urlencode([("prefix", prefix)])
    shown = f"{scheme}://{host}{parts.path}{named}"
    if sentinels is not None and kept:
        raise InvalidValueError(
            f"bad store URL {shown}: with Sentinel it takes no parameter but prefix"
        )
    client_url = f"{scheme}://{parts.netloc}{parts.path}"
    client_url += "?" + urlencode(kept) if kept else ""
    return Address(url, shown, client_url, prefix, sentinels)


def _split(url: str) -> SplitResult:
    """Take a URL apart; raises ValueError where a part may not be what it seems."""
    parts = urlsplit(url)
    # A password that is not encoded ends the part before the path too early.
    if "@" in parts.path + parts.query or parts.fragment:
        raise ValueError("something is not percent-encoded")
    if parts.scheme == "unix" and (parts.netloc.rpartition("@")[2] or not parts.path):
        raise ValueError("there is no path of a socket")
    return parts


def _sentinels(parts: SplitResult) -> Sentinels:
    user, _, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not hosts or not service:
        raise ValueError("there is no host, or no service")
    return Sentinels(
        [_host_and_port(each) for each in hosts.split(",")],
        unquote(service),
        _db(db),
        unquote(username) or None,
        unquote(password) or None,
    )


def _host_and_port(text: str) -> Tuple[str, int]:
    one = urlsplit(f"//{text}")
    if not one.hostname:
        raise ValueError("a sentinel has no host")
    return one.hostname, one.port or _SENTINEL_PORT


def _db(text: str) -> int:
    return int(text or 0)
