"""The routes that the dashboard needs beside those of jobs, queues and workers."""

from __future__ import annotations

from typing import Any, Dict

from fastapi import APIRouter, Request
from starlette.responses import Response

from queuectl import __version__, clock
from queuectl.manager import QueueManager
from queuectl.web import models
from queuectl.web.history import History
from queuectl.web.kin import kin
from queuectl.web.problems import Json
from queuectl.web.reading import API, JobId, desk_of

router = APIRouter()


@router.get(f"{API}/session", tags=["server"], response_model=models.Session)
async def show_session(request: Request) -> Response:
    """Tell what whoever asks may do, and of which store."""

    def look(manager: QueueManager) -> str:
        # Who asks again and again must hear if the store is gone.
        manager.counts()
        return manager.store.shown

    store = await desk_of(request).ask(look)
    told = {
        "scope": request.scope["queuectl.scope"],
        "read_only": request.app.state.read_only,
        "version": __version__,
        "store": store,
    }
    return Json(told)


@router.get(f"{API}/history", tags=["server"], response_model=models.History)
async def show_history(request: Request) -> Response:
    """Tell what became of jobs in each of the last sixty minutes, as far as the server saw it."""
    history: History = request.app.state.history
    await history.look(desk_of(request))
    return Json(history.told(clock.now()))


@router.get(f"{API}/jobs/{{job_id}}/why", tags=["jobs"], response_model=models.Why)
async def explain_job(request: Request, job_id: str = JobId) -> Response:
    """Tell why a job waits, for which jobs, and which wait for it."""

    def explain(manager: QueueManager) -> Dict[str, Any]:
        job = manager.find(job_id)
        reasons = [reason._asdict() for reason in manager.waiting_for(job)]
        return {"waiting_for": reasons, **kin(manager, job)}

    return Json(await desk_of(request).ask(explain))
