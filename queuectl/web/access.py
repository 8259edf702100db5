"""Who is let in: before any route is looked for, and whatever routes there are.

Every request passes here. It must name a host that is ours (else a page elsewhere could have its
own name point here), come from no other site's page, show a token or a session whose scope allows
it, and, if it brings anything, bring JSON of at most 256 KiB. All but
`/healthz`, what begins a session and the page that asks for a token is denied without one. What
reads needs the scope `read`, whatever else `write`; `/metrics` is open to `metrics` too.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from http.cookies import CookieError, SimpleCookie
from typing import Dict, List, Optional, Tuple, Union
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from queuectl.web import pages
from queuectl.web.problems import Json, Problem
from queuectl.web.tokens import METRICS, READ, WRITE, Keyring

MOST_BYTES = 256 << 10
LOGIN = "/login"
_OPEN = ("/healthz", LOGIN, *pages.OPEN)
_READING = ("GET", "HEAD")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Lets requests through to an application, or answers itself.

    Args:
        app: the application.
        keyring: knows tokens and sessions.
        host: on which host it listens.
        port: and on which port.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, host: str, port: int) -> None:
        self._app = app
        self._keyring = keyring
        self._port = port
        self._cookie = f"queuectl_{port}"
        self._loopback = is_loopback(host)
        names = (*_LOOPBACK, host.lower())
        self._names = names if self._loopback else (*names, *_own_names())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            # Nothing else is served; a connection that would be one is closed.
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers)
        body: Union[bytes, Response] = b""
        if answer is None and scope["method"] not in _READING:
            body = await _body(headers, receive)
            if isinstance(body, Response):
                answer = body
            else:
                receive = _replayed(body, receive)
        if answer is None and scope["path"] == LOGIN:
            assert isinstance(body, bytes)
            answer = self._login(scope, body)
        await (self._app if answer is None else answer)(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Optional[Response]:
        """Why a request is not let through, if it is not."""
        if not self._is_ours(headers.getlist("host")):
            return Problem(421, "the Host header names none of this server's names")
        origins = headers.getlist("origin")
        if origins and not all(self._is_same(origin, headers["host"]) for origin in origins):
            return Problem(403, "the request comes from another site")
        # Another port of this machine is the same site for a browser, which sends our cookie along.
        elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if elsewhere and not _is_link(scope, headers):
            return Problem(403, "the request comes from another site")
        path, method = scope["path"], scope["method"]
        if (method in _READING and path in _OPEN) or (method, path) == ("POST", LOGIN):
            return None
        granted = scope["queuectl.scope"] = self._granted(headers)
        if granted is None and method in _READING and path == "/":
            return pages.sign_in()
        if granted is None:
            return Problem(401, "show a token", headers={"WWW-Authenticate": "Bearer"})
        needed = READ if method in _READING else WRITE
        allowed = {METRICS: (), READ: (READ,), WRITE: (READ, WRITE)}[granted]
        if needed in allowed or (path == "/metrics" and needed == READ):
            return None
        return Problem(403, f"the token's scope is {granted}: this needs {needed}")

    def _granted(self, headers: Headers) -> Optional[str]:
        """The scope of who asks."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind:
            return self._keyring.scope_of(token.strip()) if kind.lower() == "bearer" else None
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return None
        morsel = cookies.get(self._cookie)
        return None if morsel is None else self._keyring.scope_of_session(morsel.value)

    def _login(self, scope: Scope, body: bytes) -> Response:
        """Begin a session, with a one-time code or with a token."""
        if scope["method"] == "POST":
            return self._login_with_token(body)
        if scope["method"] != "GET":
            # Whatever looks at a link before it is followed must not use it up.
            return Problem(405, "follow the link", headers={"Allow": "GET, POST"})
        codes = parse_qs(scope["query_string"].decode("ascii", "replace")).get("code", [""])
        session = self._keyring.redeem(codes[0])
        if session is None:
            return Problem(403, "the link was used, or is too old: start queuectl serve again")
        return self._with_session(RedirectResponse("/", 303), session)

    def _login_with_token(self, body: bytes) -> Response:
        token = _token_in(body)
        granted = None if token is None else self._keyring.scope_of(token)
        if granted is None:
            said = "this is no token of this server"
            return Problem(401, said, headers={"WWW-Authenticate": "Bearer"})
        if granted == METRICS:
            return Problem(403, "a token for metrics shows no pages: use one for read or write")
        return self._with_session(Json({"scope": granted}), self._keyring.begin(granted))

    def _with_session(self, answer: Response, session: str) -> Response:
        answer.set_cookie(self._cookie, session, path="/", httponly=True, samesite="strict")
        return answer

    def _is_ours(self, hosts: List[str]) -> bool:
        if len(hosts) != 1:
            return False
        try:
            parts = urlsplit(f"//{hosts[0]}")
            name, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            return False
        if parts.path or parts.query or parts.username is not None:
            return False
        if self._loopback:
            return name in self._names and port in (self._port, None if self._port == 80 else -1)
        # Through what else it may have been reached we cannot know: but no page of another site has
        # an address for its name.
        return name in self._names or _is_address(name)

    def _is_same(self, origin: str, host: str) -> bool:
        return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _is_link(scope: Scope, headers: Headers) -> bool:
    """Whether somebody followed a link from another site, which shows a page."""
    mode, to = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return scope["method"] == "GET" and mode == "navigate" and to == "document"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> Tuple[str, ...]:
    return (socket.gethostname().lower(), socket.getfqdn().lower())


def _token_in(body: bytes) -> Optional[str]:
    """The token in what was posted, if that is `{"token": "..."}`."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    token = said.get("token") if isinstance(said, dict) and len(said) == 1 else None
    return token if isinstance(token, str) else None


async def _body(headers: Headers, receive: Receive) -> Union[bytes, Response]:
    """Read what a request brings, or say why that is not taken."""
    too_large = Problem(413, f"the body is larger than {MOST_BYTES} bytes")
    said = headers.get("content-length", "0")
    if not said.isdigit() or int(said) > MOST_BYTES:
        return too_large
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BYTES:
            return too_large
    kind, _, rest = headers.get("content-type", "").partition(";")
    charset = rest.strip().lower().replace('"', "")
    is_json = kind.strip().lower() == "application/json" and charset in ("", "charset=utf-8")
    if body and not is_json:
        return Problem(415, "send application/json")
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read once more, and then what comes behind it."""
    left: Dict[str, bytes] = {"body": body}

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop("body"), "more_body": False}
        return await receive()

    return again
