"""JSON as the files of a store have it: on one line, in ASCII, without spaces."""

from __future__ import annotations

import json
from typing import Any, Callable


def make_encoder() -> Callable[[Any], str]:
    """Return what writes a value as JSON; TypeError is raised for what JSON does not know."""
    encoder = json.JSONEncoder(separators=(",", ":"), check_circular=False)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    # What `encode` makes anew for each value, at a third of its time; a job takes four, a line of
    # `enqueue --file` one.
    quote = json.encoder.encode_basestring_ascii
    chunks = make(None, encoder.default, quote, None, ":", ",", False, False, True)
    return lambda value: "".join(chunks(value, 0))


encode = make_encoder()
