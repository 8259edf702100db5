"""The routes that change something; a server that is read-only has none of them."""

from __future__ import annotations

import re
import uuid
from typing import Any, Dict, List, Optional, Tuple

from fastapi import APIRouter, Header, Path, Request
from starlette.responses import Response

from queuectl.admission import Receipt
from queuectl.changes import Cancelled
from queuectl.errors import DuplicateIdError, InvalidValueError, RequestError
from queuectl.fields import parse_max_retries, parse_priority, parse_run_at, read_job
from queuectl.filter import DEAD_JOBS, JobFilter, parse_age, parse_states
from queuectl.job import OVER
from queuectl.manager import QueueManager
from queuectl.newjob import NewJob
from queuectl.queues import QueueRule, parse_concurrency
from queuectl.store.base import Counts
from queuectl.values import validate_command, validate_label, validate_queue
from queuectl.web import models, records
from queuectl.web.problems import Json
from queuectl.web.reading import API, JobId, desk_of

router = APIRouter()

_KEY = Header(
    default=None,
    alias="Idempotency-Key",
    description="The same key never enqueues twice, whatever happened to the first answer.",
)
_KEYS = re.compile(r"[\x20-\x7e]{1,255}")
_SPACE = uuid.UUID("6f0e1ee0-2c41-5d3c-9f0e-7175657565c7")
_QueueName = Path(description="The name of a queue.")
_Setting = Path(description="The name of a setting.")


@router.post(
    f"{API}/jobs",
    tags=["jobs"],
    status_code=201,
    response_model=models.Job,
    responses={200: {"description": "It was there", "model": models.Job}},
)
async def enqueue_job(
    request: Request,
    body: models.NewJob,
    key: Optional[str] = _KEY,
) -> Response:
    """Enqueue a job; 200 if there was one already, by its unique key or the idempotency key."""
    requests = _keyed([_new_job(body)], key)
    receipt, is_new = await desk_of(request).ask(lambda manager: _submit(manager, requests, key))
    (job,) = receipt.jobs
    return Json(job.to_dict(), 201 if is_new and job.id not in receipt.known else 200)


@router.post(
    f"{API}/jobs/batch",
    tags=["jobs"],
    status_code=201,
    response_model=models.Enqueued,
    responses={200: {"description": "They were there", "model": models.Enqueued}},
)
async def enqueue_jobs(
    request: Request, body: models.NewJobs, key: Optional[str] = _KEY
) -> Response:
    """Enqueue jobs, all or none."""
    requests = _keyed([_new_job(each) for each in body.jobs], key)
    receipt, is_new = await desk_of(request).ask(lambda manager: _submit(manager, requests, key))
    answer = {
        "jobs": records.jobs(receipt.jobs),
        "known": sorted(receipt.known),
        "notices": receipt.notices,
    }
    return Json(answer, 201 if is_new else 200)


@router.post(f"{API}/jobs/purge", tags=["jobs"], response_model=models.Jobs)
async def purge_jobs(request: Request, body: models.Purge) -> Response:
    """Delete jobs that are over, and what they printed; the jobs as they were."""
    said = body.model_fields_set - {"all"}
    if body.all == bool(said):
        raise InvalidValueError("give all, or which: states, label or older_than")
    states = parse_states(",".join(body.states))
    running = [state for state in states if state not in OVER]
    if running:
        raise InvalidValueError(f"jobs that are {running[0]} are not over: cancel them")
    label = None if body.label is None else validate_label(body.label)
    age = None if body.older_than is None else parse_age(body.older_than)

    def purge(manager: QueueManager) -> Cancelled:
        wanted = JobFilter(states, label=label)
        if age is not None:
            wanted = wanted._replace(ended_before=manager.store.now() - age)
        return manager.purge(wanted)

    return _changed(await desk_of(request).ask(purge))


@router.patch(f"{API}/jobs/{{job_id}}", tags=["jobs"], response_model=models.Job)
async def edit_job(request: Request, body: models.Edit, job_id: str = JobId) -> Response:
    """Change a job that waits, or is dead."""
    values = body.model_dump(exclude_unset=True)
    if not values:
        raise InvalidValueError("give what to change, such as command or priority")
    for name, read in _EDITS.items():
        if name in values:
            values[name] = read(values[name])
    job = await desk_of(request).ask(lambda manager: manager.edit(job_id, **values))
    return Json(job.to_dict())


@router.delete(f"{API}/jobs/{{job_id}}", tags=["jobs"], response_model=models.Jobs)
async def purge_job(request: Request, job_id: str = JobId) -> Response:
    """Delete a job that is over, and what it printed; the job as it was."""
    return _changed(await desk_of(request).ask(lambda manager: manager.purge_jobs([job_id])))


@router.post(f"{API}/jobs/{{job_id}}/cancel", tags=["jobs"], response_model=models.Jobs)
async def cancel_job(request: Request, job_id: str = JobId) -> Response:
    """End a job, and with it those that were to follow it; one that runs is ended soon."""
    return _changed(await desk_of(request).ask(lambda manager: manager.cancel([job_id])))


@router.post(f"{API}/jobs/{{job_id}}/retry", tags=["jobs"], response_model=models.Job)
async def retry_job(request: Request, job_id: str = JobId) -> Response:
    """Make a failed, dead or cancelled job pending at once."""
    (job,) = await desk_of(request).ask(lambda manager: manager.retry([job_id]))
    return Json(job.to_dict())


@router.post(f"{API}/dlq/retry", tags=["dlq"], response_model=models.Retried)
async def retry_dlq(request: Request, body: models.Named) -> Response:
    """Make dead jobs pending again, some or all."""
    ids = _chosen(body)

    def retry(manager: QueueManager) -> Dict[str, Any]:
        if ids is not None:
            return {"jobs": records.jobs(manager.retry_dead(ids)), "refused": {}}
        done = manager.retry_all(DEAD_JOBS)
        refused = {job_id: str(error) for job_id, error in done.refused.items()}
        return {"jobs": records.jobs(done.jobs), "refused": refused}

    return Json(await desk_of(request).ask(retry))


@router.post(f"{API}/dlq/purge", tags=["dlq"], response_model=models.Jobs)
async def purge_dlq(request: Request, body: models.Named) -> Response:
    """Delete dead jobs and what they printed, some or all."""
    ids = _chosen(body)
    return _changed(await desk_of(request).ask(lambda manager: manager.purge_dead(ids)))


@router.put(f"{API}/queues/{{name}}", tags=["queues"], response_model=models.Queue)
async def set_queue(request: Request, body: models.Rule, name: str = _QueueName) -> Response:
    """Limit how many jobs of a queue run at once."""
    number = None if body.concurrency is None else parse_concurrency(str(body.concurrency))
    return await _set_queue(request, name, concurrency=number)


@router.post(f"{API}/queues/{{name}}/pause", tags=["queues"], response_model=models.Queue)
async def pause_queue(request: Request, name: str = _QueueName) -> Response:
    """Claim nothing from a queue any more."""
    return await _set_queue(request, name, paused=True)


@router.post(f"{API}/queues/{{name}}/resume", tags=["queues"], response_model=models.Queue)
async def resume_queue(request: Request, name: str = _QueueName) -> Response:
    """Claim from a queue again."""
    return await _set_queue(request, name, paused=False)


@router.put(f"{API}/settings/{{name}}", tags=["settings"], response_model=models.Settings)
async def set_setting(request: Request, body: models.Value, name: str = _Setting) -> Response:
    """Store a setting; all of them as they are now."""
    return await _configure(request, name, body.value)


@router.delete(f"{API}/settings/{{name}}", tags=["settings"], response_model=models.Settings)
async def reset_setting(request: Request, name: str = _Setting) -> Response:
    """Give a setting its default again; all of them as they are now."""
    return await _configure(request, name, None)


_EDITS: Dict[str, Any] = {
    "command": validate_command,
    "queue": validate_queue,
    "priority": lambda value: parse_priority(str(value)),
    "run_at": parse_run_at,
    "max_retries": lambda value: parse_max_retries(str(value)),
}


def _new_job(body: Any) -> NewJob:
    return read_job(body.model_dump(exclude_unset=True))


def _keyed(requests: List[NewJob], key: Optional[str]) -> List[NewJob]:
    """Give each its id by the key: what was enqueued with it once is found by that."""
    if key is None:
        return requests
    if _KEYS.fullmatch(key) is None:
        raise InvalidValueError("an Idempotency-Key has 1 to 255 characters of ASCII")
    return [
        request._replace(id=request.id or str(uuid.uuid5(_SPACE, f"{len(requests)}:{at}:{key}")))
        for at, request in enumerate(requests)
    ]


def _submit(
    manager: QueueManager, requests: List[NewJob], key: Optional[str]
) -> Tuple[Receipt, bool]:
    """Enqueue; returns also whether that was done now, not with the same key before."""
    try:
        return manager.submit(requests), True
    except DuplicateIdError:
        if key is None:
            raise
    jobs = [manager.store.get(str(request.id)) for request in requests]
    there = [job for job in jobs if job is not None]
    if [job.command for job in there] != [request.command for request in requests]:
        raise RequestError("the Idempotency-Key was used for another request")
    return Receipt(there, frozenset(job.id for job in there), []), False


def _chosen(body: models.Named) -> Optional[List[str]]:
    if body.all == bool(body.ids):
        raise InvalidValueError("give ids, or all")
    return None if body.all else body.ids


def _changed(done: Cancelled) -> Response:
    return Json({"jobs": records.jobs(done.jobs), "followers": records.jobs(done.followers)})


async def _set_queue(request: Request, name: str, **values: Any) -> Response:
    desk = desk_of(request)
    rule: QueueRule = await desk.ask(lambda manager: manager.set_queue(name, **values))
    told = await desk.measures()
    return Json(records.queue(name, rule, told.queues.get(name, Counts())))


async def _configure(request: Request, name: str, text: Optional[str]) -> Response:
    def configure(manager: QueueManager) -> List[Dict[str, str]]:
        manager.configure(name, text)
        return records.settings(manager)

    return Json({"settings": await desk_of(request).ask(configure)})
