"""The dashboard: files that are served as they are, and the page for those who are not signed in.

They are read once, when the server starts, so no path of a request ever becomes one of a file.
"""

from __future__ import annotations

import os
from typing import Dict, Tuple

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

_FOLDER = os.path.join(os.path.dirname(__file__), "static")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
STATIC = "/static"
OPEN = tuple(f"{STATIC}/{name}" for name in ("signin.js", "style.css", "icon.svg"))
"""What the page that asks for a token is made of: it is shown to anybody, and tells nothing."""

router = APIRouter(include_in_schema=False)


def _read() -> Dict[str, Tuple[bytes, str]]:
    files: Dict[str, Tuple[bytes, str]] = {}
    for name in sorted(os.listdir(_FOLDER)):
        kind = _TYPES.get(os.path.splitext(name)[1])
        if kind is not None:
            with open(os.path.join(_FOLDER, name), "rb") as file:
                files[name] = (file.read(), kind)
    return files


_FILES = _read()


def sign_in() -> Response:
    """The page for those who showed no token."""
    return _page("signin.html", 401)


@router.get("/")
async def root() -> Response:
    """Show the dashboard."""
    return _page("index.html", 200)


@router.get(f"{STATIC}/{{name}}")
async def static(name: str) -> Response:
    """Give what the pages are made of."""
    if name not in _FILES:
        raise HTTPException(404)
    return _page(name, 200)


def _page(name: str, status: int) -> Response:
    content, kind = _FILES[name]
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Response(content, status, headers, media_type=kind)
