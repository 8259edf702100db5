"""Why a job that waits cannot be claimed now: every reason, not the first alone."""

from __future__ import annotations

from typing import Iterator, List, Mapping, NamedTuple, Optional, Sequence

from queuectl.job import Job, JobState, is_due
from queuectl.queues import QueueRule
from queuectl.store.base import Member


class ReasonKind:
    """What keeps a job waiting; what `Reason.what` names stands behind each."""

    SCHEDULED = "scheduled"  # the time before which it must not start
    RETRY = "retry"  # the time of its next attempt
    AFTER = "after"  # a job that must complete before it
    AFTER_ANY = "after_any"  # a job that must end before it
    PAUSED = "paused"  # its queue
    FULL = "full"  # its queue, of which as many run as may
    UNSERVED = "unserved"  # its queue, which no worker serves
    NO_WORKER = "no_worker"  # nothing: no worker is running


class Reason(NamedTuple):
    """One reason.

    Attributes:
        kind: one of `ReasonKind`.
        what: what its kind says.
        state: the state of the job for which it waits, if it does.
    """

    kind: str
    what: str = ""
    state: Optional[str] = None


def reasons(
    job: Job,
    now: float,
    *,
    horizon: float,
    parents: Mapping[str, Job],
    rule: QueueRule,
    running: int,
    supervisors: Sequence[Member],
) -> List[Reason]:
    """Find out why a job waits.

    Args:
        job: the job.
        now: the time, in seconds since the epoch.
        horizon: the longest delay of a retry without a backoff of its own, in seconds.
        parents: by id, the jobs that it is to follow, as far as they are still there.
        rule: what is set for its queue.
        running: how many jobs of its queue are processing.
        supervisors: those that live.

    Returns:
        Nothing if it does not wait, or can be claimed.
    """
    if not job.waits:
        return []
    found: List[Reason] = []
    if job.run_at is not None and not is_due(job, now, horizon):
        is_retry = job.state == JobState.FAILED
        found.append(Reason(ReasonKind.RETRY if is_retry else ReasonKind.SCHEDULED, job.run_at))
    for kind, ids in ((ReasonKind.AFTER, job.after), (ReasonKind.AFTER_ANY, job.after_any)):
        for parent in filter(None, map(parents.get, ids)):
            if parent.state == JobState.COMPLETED or abs(parent.seq) not in map(abs, job.parents):
                continue
            if kind == ReasonKind.AFTER or not parent.is_over:
                found.append(Reason(kind, parent.id, parent.state))
    found.extend(_of_queue(job.queue, rule, running, supervisors))
    return found


def _of_queue(
    queue: str, rule: QueueRule, running: int, supervisors: Sequence[Member]
) -> Iterator[Reason]:
    if rule.paused:
        yield Reason(ReasonKind.PAUSED, queue)
    elif rule.concurrency is not None and running >= rule.concurrency:
        yield Reason(ReasonKind.FULL, queue)
    serving = [each for each in supervisors if not each.stopping]
    if not serving:
        yield Reason(ReasonKind.NO_WORKER)
    elif not any(each.queues is None or queue in each.queues for each in serving):
        yield Reason(ReasonKind.UNSERVED, queue)
