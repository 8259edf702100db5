"""The application: its routes, who is let in, and what becomes of errors."""

from __future__ import annotations

import re
from typing import Any, Dict, List

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response

from queuectl import __version__
from queuectl.errors import QueueError
from queuectl.web import looking, models, pages, reading, writing
from queuectl.web.chronicle import Chronicle
from queuectl.web.desk import Desk
from queuectl.web.history import History
from queuectl.web.problems import Json, Problem, problem_of

_REFUSED = {
    "description": "What went wrong",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def make_app(desk: Desk, read_only: bool = False) -> FastAPI:
    """Make the application.

    Args:
        desk: of the queue.
        read_only: whether to leave out what changes something.
    """
    app = FastAPI(
        title="QueueCTL",
        version=__version__,
        openapi_url=f"{reading.API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        default_response_class=Json,
        redirect_slashes=False,
        responses={"4XX": _REFUSED, "5XX": _REFUSED},
    )
    app.state.desk = desk
    app.state.chronicle = Chronicle(desk)
    app.state.read_only = read_only
    app.state.history = History()
    if not read_only:
        # First: `jobs/batch` is no id.
        app.include_router(writing.router)
    app.include_router(reading.router)
    app.include_router(looking.router)
    app.include_router(pages.router)
    app.add_exception_handler(QueueError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    app.openapi = lambda: description(app)  # type: ignore[method-assign]
    return app


def description(app: FastAPI) -> Dict[str, Any]:
    """Describe the API, as OpenAPI has it."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        parts = schema.setdefault("components", {})
        parts.setdefault("schemas", {})["Problem"] = models.Problem.model_json_schema()
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
        schema["paths"]["/healthz"]["get"]["security"] = []
        app.openapi_schema = schema
    return app.openapi_schema


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueueError)
    return problem_of(error)


async def _on_bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[0]
    where = ".".join(str(part) for part in wrong["loc"])
    return Problem(422, f"{where}: {wrong['msg']}", kind="invalid-value")


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    return Problem(error.status_code, str(error.detail), headers=headers)


def _allowed(request: Request) -> List[str]:
    """All methods of a path; the first route with that path knows but its own."""
    asked, paths = request.scope["path"], description(request.app)["paths"]
    if asked in paths:
        # It is no id.
        return sorted(map(str.upper, paths[asked]))
    for path, methods in paths.items():
        form = "[^/]+".join(map(re.escape, re.split(r"\{\w+\}", path)))
        if re.fullmatch(form, asked):
            return sorted(map(str.upper, methods))
    return ["GET"]


async def _on_bug(request: Request, error: Exception) -> Response:
    # Its traceback goes to the log of the server.
    return Problem(500, "this is a bug in queuectl: see what the server says")
