"""Showing the end of what a job printed."""

from __future__ import annotations

import os
from typing import List

from queuectl.outputs import Output
from queuectl.render import Screen

_TAIL_BYTES = 1 << 16
_TAIL_LINES = 10


def tail(output: Output, screen: Screen, width: int) -> List[str]:
    """Return the last lines of an output, as they can be shown, each cut to so many columns."""
    size = os.fstat(output.fd).st_size
    data = os.pread(output.fd, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
    if size > _TAIL_BYTES:
        # It may begin within a character of several bytes.
        data = data.lstrip(bytes(range(0x80, 0xC0)))
    lines = data.decode("utf-8", "surrogateescape").rstrip("\n").split("\n")
    return [screen.cut(screen.output(line), width) for line in lines[-_TAIL_LINES:]]
