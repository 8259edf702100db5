"""Errors as RFC 9457 has them, from the same tree as the exit codes."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, Dict, Mapping, Optional, Tuple, Type

from starlette.responses import JSONResponse

from queuectl.errors import (
    AmbiguousIdError,
    DamagedError,
    InvalidValueError,
    NotFoundError,
    QueueError,
    RequestError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    WaitTimeoutError,
)

# The first that an error is one of.
_STATUS: Tuple[Tuple[Type[QueueError], int], ...] = (
    (NotFoundError, 404),
    (AmbiguousIdError, 409),
    (RequestError, 409),
    (InvalidValueError, 422),
    (StoreFullError, 507),
    (StoreError, 503),
    (StoreLockedError, 503),
    (WaitTimeoutError, 504),
    (DamagedError, 500),
)


class Json(JSONResponse):
    """JSON in ASCII: commands and output may hold what is not Unicode."""

    def render(self, content: Any) -> bytes:
        """Write it."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Problem(Json):
    """What went wrong."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Make one.

        Args:
            status: of HTTP.
            detail: in words.
            kind: what it is called; none if the status says all.
            headers: to send with it.
        """
        content: Dict[str, Any] = {
            "type": "about:blank" if kind is None else f"urn:queuectl:{kind}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        }
        super().__init__(content, status, dict(headers or {}))


def problem_of(error: QueueError) -> Problem:
    """Tell of an error."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__[: -len("Error")]).lower()
    headers = {"Retry-After": "1"} if status == 503 else {}
    return Problem(status, str(error), kind=name, headers=headers)
