"""Reading jobs: up to a few thousand as of one moment; of more, a part after the other.

Parts come in the order of `seq`, which no job ever changes. So each is there at most once, and one
that is there all the time is there; as it stood when its part was read.
"""

from __future__ import annotations

from typing import Any, Callable, Collection, Dict, Iterator, List, Optional, Sequence, Tuple

from queuectl.job import Job
from queuectl.store.base import Activity, Counts, Watch
from queuectl.store.redis.packed import DELAYED, LETTERS, unpack

PAGE = 2000
"""So many jobs are read as of one moment."""

_STATES = {letter: state for state, letter in LETTERS.items()}
_STATES[DELAYED] = "delayed"

Call = Callable[..., List[Any]]
"""Runs a script on the store, and returns what it says behind `ok`."""


def pages(
    call: Call,
    states: Collection[str],
    newest: bool,
    limit: Optional[int],
    before: Optional[int] = None,
) -> Iterator[List[Any]]:
    """Yield ids and values of jobs in these states, part by part, those before a seq."""
    letters = "".join(LETTERS[state] for state in states)
    place: Any = "+inf" if newest else "-inf"
    if before is not None:
        place = f"({before}"
    while letters and place and limit != 0:
        size = PAGE if limit is None else min(limit, PAGE)
        place, *found = call("page", letters, "new" if newest else "old", place, size)
        limit = None if limit is None else limit - len(found) // 2
        yield found


def jobs_of(found: Sequence[Any]) -> Iterator[Job]:
    """Turn ids and values into jobs."""
    for job_id, value in zip(found[::2], found[1::2]):
        yield unpack(job_id.decode(), value)


def activity(call: Call, failures: int) -> Activity:
    """Read what runs, and what failed last."""
    running, *found = call("activity", max(failures, 1))
    jobs = list(jobs_of(found))
    return Activity(
        sorted(jobs[:running], key=lambda job: (job.started_at, job.seq)),
        sorted(jobs[running:], key=lambda job: (job.updated_at, job.seq), reverse=True)[:failures],
    )


def find(call: Call, prefix: str, limit: int) -> List[str]:
    """Find ids that begin so."""
    if not prefix.isascii():
        return []
    escaped = "".join(f"\\{each}" if each in "*?[]^\\" else each for each in prefix)
    place: Any = b"0"
    # A job may be met twice while the server spreads them anew.
    ids: Dict[str, None] = {}
    while len(ids) < limit:
        place, *found = call("find", place, escaped + "*")
        ids.update((job_id.decode(), None) for job_id in found)
        if place == b"0":
            break
    return list(ids)[:limit]


def tally(counted: Dict[bytes, bytes]) -> Dict[str, Counts]:
    """Turn what scripts count into the counts of each queue."""
    queues: Dict[str, Dict[str, int]] = {}
    for field, number in counted.items():
        name = field.decode()
        queues.setdefault(name[1:], {})[_STATES[name[0]]] = int(number)
    return {queue: Counts(**counts) for queue, counts in queues.items()}


class RedisWatch(Watch):
    """Some jobs, each compared by its place and number of changes.

    Args:
        call: runs a script.
        job_ids: which jobs.
    """

    def __init__(self, call: Call, job_ids: Collection[str]) -> None:
        self._call = call
        # What is known of each: `SEQ REV`, empty if there is none, or what no value begins with.
        self._known: Dict[str, str] = dict.fromkeys(job_ids, "?")

    def look(self) -> Iterator[Tuple[str, Optional[Job]]]:
        """See `Watch`."""
        ids = list(self._known)
        changed: List[Tuple[str, Optional[Job]]] = []
        for start in range(0, len(ids), PAGE):
            part = ids[start : start + PAGE]
            found = self._call("changed", *(each for i in part for each in (i, self._known[i])))
            for name, value in zip(found[::2], found[1::2]):
                job_id = name.decode()
                seq, rev = value.split(b" ", 2)[:2] if value else (b"", b"")
                self._known[job_id] = f"{seq.decode()} {rev.decode()}" if value else ""
                changed.append((job_id, unpack(job_id, value) if value else None))
        return iter(changed)

    def close(self) -> None:
        """See `Watch`; there is nothing to let go of."""


def total(counted: Dict[str, Counts]) -> Counts:
    """Add up the counts of all queues."""
    return Counts(*map(sum, zip(*counted.values()))) if counted else Counts()


def running(counted: Dict[str, Counts], always: str) -> Dict[str, int]:
    """How many jobs of each queue are processing, with one queue in any case."""
    found = {queue: counts.processing for queue, counts in counted.items() if counts.processing}
    return {always: 0, **found}
