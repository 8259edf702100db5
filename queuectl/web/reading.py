"""The routes that change nothing."""

from __future__ import annotations

from typing import AsyncIterator, List, Optional, Tuple

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from queuectl.errors import RequestError
from queuectl.filter import JobFilter, parse_age, parse_states
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.outputs import open_output, why_none
from queuectl.values import validate_label, validate_queue
from queuectl.web import models, records
from queuectl.web.chronicle import Changes, Chronicle
from queuectl.web.desk import Desk
from queuectl.web.exposition import CONTENT_TYPE, exposition
from queuectl.web.live import LiveOutput, events
from queuectl.web.problems import Json
from queuectl.web.ranges import ranged

API = "/api/v1"
MOST_JOBS = 500

router = APIRouter()


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


JobId = Path(description="An id, or at least its first four characters.")
_Cursor = Query(default=None, pattern=r"^[0-9]{1,15}$", description="What `next` said.")
_Limit = Query(default=50, ge=1, le=MOST_JOBS, description="How many at the most.")
_Tail = Query(
    default=None, ge=0, le=10**9, description="Begin at most so many bytes before the end."
)
_Run = Query(default=None, ge=1, le=10**9, description="Of which run. Default: the newest.")


def desk_of(request: Request) -> Desk:
    """The desk of the application."""
    desk: Desk = request.app.state.desk
    return desk


@router.get("/healthz", tags=["server"], response_class=PlainTextResponse)
async def healthz() -> Response:
    """Tell that the process answers; needs no token."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", tags=["server"], response_class=PlainTextResponse)
async def readyz(request: Request) -> Response:
    """Tell that the store answers."""
    await desk_of(request).ask(lambda manager: manager.counts())
    return PlainTextResponse("ok\n")


@router.get("/metrics", tags=["server"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Tell Prometheus what the queue does."""
    told = await desk_of(request).measures()
    return Response(exposition(told), headers={"Content-Type": CONTENT_TYPE})


@router.get(f"{API}/jobs", tags=["jobs"], response_model=models.Page)
async def list_jobs(
    request: Request,
    state: Optional[str] = Query(default=None, description="States, separated by commas."),
    queue: Optional[str] = Query(default=None, description="Only jobs of this queue."),
    label: Optional[str] = Query(default=None, description="Only jobs with this label."),
    since: Optional[str] = Query(default=None, description="Only jobs enqueued since, as 1d."),
    grep: Optional[str] = Query(default=None, description="Only with this in the command."),
    cursor: Optional[str] = _Cursor,
    limit: int = _Limit,
) -> Response:
    """List jobs, the newest first."""
    wanted = JobFilter(
        states=JobState.ALL if state is None else parse_states(state),
        queue=None if queue is None else validate_queue(queue),
        label=None if label is None else validate_label(label),
        text=grep,
    )
    age = None if since is None else parse_age(since)

    def find(manager: QueueManager) -> Tuple[List[Job], Optional[str]]:
        begun = wanted
        if age is not None:
            begun = begun._replace(created_since=manager.store.now() - age)
        return _page(manager, begun, cursor, limit)

    return _paged(await desk_of(request).ask(find))


@router.get(f"{API}/jobs/{{job_id}}", tags=["jobs"], response_model=models.Job)
async def show_job(request: Request, job_id: str = JobId) -> Response:
    """Show a job."""
    job = await desk_of(request).ask(lambda manager: manager.find(job_id))
    return Json(job.to_dict())


@router.get(
    f"{API}/jobs/{{job_id}}/logs",
    tags=["jobs"],
    response_class=PlainTextResponse,
    responses={206: {"description": "A range", "content": {"text/plain": {}}}},
)
async def read_logs(
    request: Request,
    job_id: str = JobId,
    run: Optional[int] = _Run,
    span: Optional[str] = Header(default=None, alias="Range", description="As `bytes=0-99`."),
) -> Response:
    """Read what a job printed, as bytes; all of it, or a range."""

    def read(manager: QueueManager) -> Response:
        job = manager.find(job_id)
        found = open_output(manager.store, job, run)
        if found is None:
            raise RequestError(why_none(job, run))
        return ranged(found.fd, span, {"Queuectl-Run": str(found.run)})

    return await desk_of(request).ask(read)


@router.get(f"{API}/jobs/{{job_id}}/logs/live", tags=["jobs"], response_class=EventStream)
async def follow_logs(
    request: Request,
    job_id: str = JobId,
    run: Optional[int] = _Run,
    tail: Optional[int] = _Tail,
    last: Optional[str] = Header(default=None, alias="Last-Event-ID"),
) -> Response:
    """Follow what a run prints until it has ended, as server-sent events."""
    desk = desk_of(request)
    job = await desk.ask(lambda manager: manager.find(job_id))
    return _stream(events(desk, LiveOutput(job, run, last, tail)))


@router.get(f"{API}/dlq", tags=["dlq"], response_model=models.Page)
async def list_dlq(
    request: Request, cursor: Optional[str] = _Cursor, limit: int = _Limit
) -> Response:
    """List the dead letter queue, what was enqueued last first."""
    wanted = JobFilter((JobState.DEAD,))
    found = await desk_of(request).ask(lambda manager: _page(manager, wanted, cursor, limit))
    return _paged(found)


@router.get(f"{API}/queues", tags=["queues"], response_model=models.Queues)
async def list_queues(request: Request) -> Response:
    """List the queues."""
    desk = desk_of(request)
    told = await desk.measures()
    rules = await desk.ask(lambda manager: manager.queue_rules())
    return Json({"queues": records.queues(told, rules)})


@router.get(f"{API}/workers", tags=["workers"], response_model=models.Workers)
async def list_workers(request: Request) -> Response:
    """List the workers that are alive."""
    return Json({"workers": await desk_of(request).ask(records.workers)})


@router.get(f"{API}/nodes", tags=["workers"], response_model=models.Nodes)
async def list_nodes(request: Request) -> Response:
    """List the machines that work on the store."""
    nodes = await desk_of(request).ask(lambda manager: manager.nodes())
    return Json({"nodes": [node._asdict() for node in nodes]})


@router.get(f"{API}/stats", tags=["server"], response_model=models.Stats)
async def show_stats(request: Request) -> Response:
    """Tell what the queue does."""
    return Json(records.stats(await desk_of(request).measures()))


@router.get(f"{API}/settings", tags=["settings"], response_model=models.Settings)
async def list_settings(request: Request) -> Response:
    """List the settings in force."""
    return Json({"settings": await desk_of(request).ask(records.settings)})


@router.get(f"{API}/events", tags=["server"], response_class=EventStream)
async def follow_changes(
    request: Request, last: Optional[str] = Header(default=None, alias="Last-Event-ID")
) -> Response:
    """Follow what changes, as server-sent events: of single jobs, and how all is then."""
    chronicle: Chronicle = request.app.state.chronicle
    return _stream(events(desk_of(request), Changes(chronicle, last)))


def _page(
    manager: QueueManager, wanted: JobFilter, cursor: Optional[str], limit: int
) -> Tuple[List[Job], Optional[str]]:
    """Find the jobs behind a cursor; no job ever changes its place."""
    if cursor:
        wanted = wanted._replace(before=int(cursor))
    jobs = list(manager.jobs(wanted, limit + 1))
    return jobs[:limit], str(jobs[limit - 1].seq) if len(jobs) > limit else None


def _paged(page: Tuple[List[Job], Optional[str]]) -> Response:
    return Json({"jobs": records.jobs(page[0]), "next": page[1]})


def _stream(source: AsyncIterator[bytes]) -> Response:
    return EventStream(source)
