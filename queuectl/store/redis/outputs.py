"""Shared output as it is kept in Redis: a line of JSON, then the head and the tail."""

from __future__ import annotations

import json

from queuectl.store.base import SharedOutput
from queuectl.store.compact import encode


def pack_output(output: SharedOutput) -> bytes:
    """Write shared output."""
    facts = [output.host, output.path, output.size, len(output.head)]
    return encode(facts).encode("ascii") + b"\n" + output.head + output.tail


def unpack_output(value: bytes) -> SharedOutput:
    """Read it back."""
    line, _, data = value.partition(b"\n")
    host, path, size, head = json.loads(line)
    return SharedOutput(host, path, size, data[:head], data[head:])
