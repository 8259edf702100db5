"""Output as an answer: all of it in pieces, or a range of its bytes (RFC 9110, section 14)."""

from __future__ import annotations

import os
import re
from typing import Dict, Optional, Tuple

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from queuectl.outputs import pieces
from queuectl.web.problems import Problem

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)
_MOST = 1 << 20
_TYPE = "text/plain; charset=utf-8"


def ranged(fd: int, span: Optional[str], headers: Dict[str, str]) -> Response:
    """Answer with what is in a file, which is closed then.

    Args:
        fd: the file.
        span: the header `Range`; what cannot be read is passed over, as several ranges are.
        headers: more of them.
    """
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": _TYPE}
    match = None if span is None else _RANGE.fullmatch(span.strip())
    if match is None or not (match[1] or match[2]):
        return _Whole(fd, headers)
    try:
        size = os.fstat(fd).st_size
        first, last = _bounds(match[1], match[2], size)
        data = os.pread(fd, max(min(last + 1 - first, _MOST), 0), first)
    finally:
        os.close(fd)
    if not data:
        said = {"Content-Range": f"bytes */{size}"}
        return Problem(416, f"there are only {size} bytes", headers=said)
    headers["Content-Range"] = f"bytes {first}-{first + len(data) - 1}/{size}"
    return Response(data, 206, headers)


def _bounds(first: str, last: str, size: int) -> Tuple[int, int]:
    if not first:
        return max(size - int(last), 0), size - 1
    return int(first), int(last) if last else size - 1


class _Whole(StreamingResponse):
    """All of a file. Its length is not told: what is running may be cut while it is read.

    Args:
        fd: the file.
        headers: to send with it.
    """

    def __init__(self, fd: int, headers: Dict[str, str]) -> None:
        super().__init__(pieces(fd), headers=headers)
        self._fd = fd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Not where it is read: of who has gone by now, nothing ever is.
            os.close(self._fd)
