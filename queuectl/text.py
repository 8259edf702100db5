"""Text from the system: words of the command line, variables and paths, whatever the locale says.

Python decodes them by the locale. But jobs, settings and JSON are UTF-8 for everybody, bytes that
are none being lone surrogates: else a path that is stored under one locale would name nothing under
another.
"""

from __future__ import annotations

import os


def as_utf8(text: str) -> str:
    """Decode anew, as UTF-8, what Python decoded by the locale."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")
