"""What requests and answers look like, for the description of the API.

What is sent is checked here only for its shape: what a value may be is said once, where the command
line has it from, too.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Union, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from queuectl.fields import FIELDS
from queuectl.job import SHOWN_FIELDS
from queuectl.job import Job as Record

_ARRAYS = {"after", "after_any", "labels", "success_codes", "no_retry_on"}


def _job_model() -> Any:
    hints = get_type_hints(Record)
    kinds: Dict[str, Any] = {name: (hints[name], ...) for name in SHOWN_FIELDS}
    kinds.update((name, (List[hints[name].__args__[0]], ...)) for name in _ARRAYS)  # type: ignore[misc]
    kinds["env"] = (Dict[str, Optional[str]], ...)
    return create_model("Job", **kinds)


Job = _job_model()


class _Asked(BaseModel):
    """What is asked for: nothing that is not known, and nothing taken for something else."""

    model_config = ConfigDict(extra="forbid", strict=True)


_Texts = Union[str, List[str]]
_KINDS: Dict[str, Any] = {
    "max_retries": int,
    "timeout": Optional[float],
    "priority": Union[int, str],
    "queue": str,
    "run_at": str,
    "delay": Union[float, str],
    "after": _Texts,
    "after_any": _Texts,
    "unique": str,
    "on_conflict": str,
    "labels": _Texts,
    "env": Dict[str, str],
    "cwd": str,
    "shell": str,
    "backoff_base": float,
    "backoff_max": Optional[float],
    "success_codes": List[int],
    "no_retry_on": List[int],
}
NewJob = create_model(
    "NewJob",
    __base__=_Asked,
    command=(str, Field(description="The shell line.")),
    id=(str, Field(default=None, description="Its id. Default: a random one.")),
    **{  # type: ignore[call-overload]
        key: (_KINDS[key], Field(default=None, description=field.help))
        for key, field in FIELDS.items()
    },
)


class NewJobs(_Asked):
    """Jobs to enqueue, all or none."""

    jobs: List[NewJob] = Field(min_length=1)  # type: ignore[valid-type]


class Edit(_Asked):
    """What to change of a job that waits, or is dead."""

    command: str = Field(default=None)  # type: ignore[assignment]
    priority: Union[int, str] = Field(default=None)  # type: ignore[assignment]
    run_at: str = Field(default=None)  # type: ignore[assignment]
    queue: str = Field(default=None)  # type: ignore[assignment]
    max_retries: int = Field(default=None)  # type: ignore[assignment]


class Purge(_Asked):
    """Which jobs that are over to delete; they must meet all that is said."""

    states: List[str] = Field(default=["completed", "cancelled"], min_length=1)
    label: Optional[str] = None
    older_than: Optional[str] = Field(default=None, description="A duration, such as 7d.")
    all: bool = Field(default=False, description="Needed where nothing else is said.")


class Named(_Asked):
    """Which dead jobs: some, by id, or all."""

    ids: List[str] = Field(default=[])
    all: bool = False


class Rule(_Asked):
    """How many jobs of a queue may run at once; null for no limit."""

    concurrency: Optional[int]


class Value(_Asked):
    """The value of a setting, as text."""

    value: str


class Page(BaseModel):
    """Some jobs, and where the next ones begin, if there are any."""

    jobs: List[Job]  # type: ignore[valid-type]
    next: Optional[str]


class Jobs(BaseModel):
    """Jobs as they are now, and others that changed with them."""

    jobs: List[Job]  # type: ignore[valid-type]
    followers: List[Job] = []  # type: ignore[valid-type]


class Retried(BaseModel):
    """Jobs that are pending now, and why others are not, by id."""

    jobs: List[Job]  # type: ignore[valid-type]
    refused: Dict[str, str]


class Enqueued(BaseModel):
    """A job for each that was asked for, which of them were there before, and what to know."""

    jobs: List[Job]  # type: ignore[valid-type]
    known: List[str]
    notices: List[str]


class Counts(BaseModel):
    """How many jobs there are in each state; delayed ones are part of the pending."""

    pending: int
    processing: int
    completed: int
    failed: int
    dead: int
    cancelled: int
    delayed: int


class Queue(BaseModel):
    """A queue."""

    name: str
    paused: bool
    concurrency: Optional[int]
    counts: Counts


class Queues(BaseModel):
    """The queues that hold jobs, or for which something is set."""

    queues: List[Queue]


class Worker(BaseModel):
    """A worker that is alive."""

    id: str
    name: str
    pid: int
    host: str
    supervisor: str
    started_at: str
    job: Optional[str]
    run: int


class Workers(BaseModel):
    """All workers, the oldest first."""

    workers: List[Worker]


class Node(BaseModel):
    """A machine that works on the store."""

    host: str
    workers: int
    running: int
    heard_at: str
    version: str


class Nodes(BaseModel):
    """All of them, by name."""

    nodes: List[Node]


class Stats(BaseModel):
    """What the queue does, as `queuectl metrics --json` has it."""

    queues: Dict[str, Counts]
    enqueued: int
    totals: Dict[str, int]
    oldest: float
    workers: int
    busy: int
    size: Optional[int]


class Setting(BaseModel):
    """A setting: its value as text, and where that comes from."""

    name: str
    value: str
    source: str


class Settings(BaseModel):
    """All settings."""

    settings: List[Setting]


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str


class Session(BaseModel):
    """What whoever asks may do, and of which store."""

    scope: str
    read_only: bool
    version: str
    store: str


class Minute(BaseModel):
    """A minute: when it begins, how many jobs completed in it, and how many attempts failed."""

    at: str
    completed: int
    failed: int


class History(BaseModel):
    """The last sixty minutes, the oldest first, and since when the server has looked."""

    since: str
    minutes: List[Minute]


class Reason(BaseModel):
    """Why a job waits; see `waiting_for` of `queuectl show --json`."""

    kind: str
    what: str
    state: Optional[str]


class Kin(BaseModel):
    """A job among those that it waits for and those that wait for it."""

    id: str
    command: str
    state: str
    after: List[str]
    after_any: List[str]


class Why(BaseModel):
    """Why a job waits; it and its kin; which parents were purged; whether there is more."""

    waiting_for: List[Reason]
    jobs: List[Kin]
    missing: List[str]
    more: bool
