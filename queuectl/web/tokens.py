"""The tokens that let somebody in, each with what it lets him do; and one-time codes.

A file has a token a line, behind its scope and a blank. The first start makes it in the store's
folder. Tokens are compared in constant time, all of them each time.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import stat
import time
from typing import Dict, List, NamedTuple, Optional

from queuectl.errors import InvalidValueError, StoreError

WRITE, READ, METRICS = "write", "read", "metrics"
SCOPES = (WRITE, READ, METRICS)

_TOKEN = re.compile(r"[\x21-\x7e]{16,512}")
_CODE_LASTS = 600.0  # seconds
_MOST_SESSIONS = 64


class Token(NamedTuple):
    """What somebody shows, and for what: `write`, `read` or `metrics`."""

    scope: str
    text: str


def made_tokens() -> List[Token]:
    """Make a token for each scope."""
    return [Token(scope, secrets.token_urlsafe(32)) for scope in SCOPES]


def from_variable(text: str) -> List[Token]:
    """Take what a variable says as the token of all scopes; raises InvalidValueError."""
    return [_checked(WRITE, text.strip(), "QUEUECTL_TOKEN")]


def read_tokens(path: str) -> List[Token]:
    """Read a file of tokens; a line that names no scope is for all of them.

    Raises:
        StoreError: it cannot be read, or others could.
        InvalidValueError: there is none in it, or what is no token.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            status = os.fstat(file.fileno())
            lines = file.read(1 << 16).splitlines()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if status.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(status.st_mode) & 0o077:
        raise StoreError(f"{path} can be read or written by others: chmod 600 {path}")
    tokens: List[Token] = []
    for line in filter(None, map(str.strip, lines)):
        scope, _, text = line.partition(" ") if " " in line else (WRITE, "", line)
        tokens.append(_checked(scope, text.strip(), path))
    if not tokens:
        raise InvalidValueError(f"{path} holds no token")
    return tokens


def kept_tokens(path: str) -> List[Token]:
    """Read the tokens of a store; make them if this is the first time.

    Raises:
        StoreError: they cannot be read or written, or others can read them.
    """
    with contextlib.suppress(FileExistsError):
        _write(path, made_tokens())
    return read_tokens(path)


def _write(path: str, tokens: List[Token]) -> None:
    """Write a file that is there whole or not at all, and not at all if there is one already."""
    new = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    if os.path.lexists(path):
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        with open(os.open(new, flags, 0o600), "w", encoding="ascii") as file:
            file.writelines(f"{token.scope} {token.text}\n" for token in tokens)
        try:
            os.link(new, path)
        finally:
            os.unlink(new)
    except FileExistsError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _checked(scope: str, text: str, where: str) -> Token:
    if scope not in SCOPES:
        raise InvalidValueError(f"{where}: {scope!r} is not one of {', '.join(SCOPES)}")
    if _TOKEN.fullmatch(text) is None:
        raise InvalidValueError(f"{where}: a token has 16 to 512 characters, and no blanks")
    return Token(scope, text)


class Keyring:
    """Knows who may come in.

    Args:
        tokens: those that are valid.
    """

    def __init__(self, tokens: List[Token]) -> None:
        self._tokens = tokens
        self._code = ""
        self._code_until = 0.0
        self._sessions: Dict[bytes, str] = {}

    def scope_of(self, text: str) -> Optional[str]:
        """Return what a token is for; nothing if it is none."""
        shown = text.encode("utf-8", "replace")
        found: Optional[str] = None
        for token in self._tokens:
            # Without stopping: how long it takes must not tell which was nearly right.
            if hmac.compare_digest(token.text.encode("ascii"), shown) and found is None:
                found = token.scope
        return found

    def new_code(self) -> str:
        """Make a code that lets a browser in once, for ten minutes."""
        self._code = secrets.token_urlsafe(24)
        self._code_until = time.monotonic() + _CODE_LASTS
        return self._code

    def redeem(self, code: str) -> Optional[str]:
        """Take a code; return the session that it begins, nothing if it is not valid any more."""
        is_right = hmac.compare_digest(self._code.encode(), code.encode("utf-8", "replace"))
        if not (self._code and is_right and time.monotonic() < self._code_until):
            return None
        self._code = ""
        return self.begin(WRITE)

    def begin(self, scope: str) -> str:
        """Begin a session for what a scope allows; return what a browser is to show for it."""
        session = secrets.token_urlsafe(32)
        self._sessions[session.encode()] = scope
        while len(self._sessions) > _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session

    def scope_of_session(self, session: str) -> Optional[str]:
        """Return what a session is for; nothing if there is none such."""
        shown = session.encode("utf-8", "replace")
        found: Optional[str] = None
        for known, scope in self._sessions.items():
            if hmac.compare_digest(known, shown):
                found = scope
        return found
