"""`queuectl status`: how many jobs there are in which state, and who works on them."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import click

from queuectl import clock
from queuectl.cli import output
from queuectl.cli.command import Command, Session, pass_session
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.render import Screen, elapsed, short_id, to_json
from queuectl.store.base import Counts, Member
from queuectl.text import as_utf8

_RULE = "=" * 40


@click.command(cls=Command, short_help="Count the jobs, and tell what the workers do.")
@pass_session
def status(session: Session) -> None:
    """Count the jobs in each state, and tell what the workers do.

    Scheduled jobs are a part of the pending ones: their time has not come yet.
    Failed jobs wait for their next attempt; those that used up all of them are
    in the DLQ.

    Example:
      queuectl status
      queuectl status --json
    """
    with session.open() as manager:
        counts = manager.counts()
        scheduled = manager.scheduled(counts)
        workers = manager.members("worker")
        if session.json:
            output.line(to_json(_record(manager, counts, scheduled, workers)))
            return
        screen = output.screen()
        _print_counts(screen, counts)
        if scheduled:
            output.line(screen.say("⏰", f"Scheduled: {scheduled}"))
        if workers:
            _print_workers(screen, manager, workers)
        output.line(screen.say("📁", f"Store: {screen.text(as_utf8(manager.store.url))}"))
        if counts.pending + counts.failed + counts.processing and not workers:
            output.line(screen.paint("no workers running: queuectl start", "yellow"))


def _record(
    manager: QueueManager, counts: Counts, scheduled: int, workers: List[Member]
) -> Dict[str, Any]:
    keys = ("id", "pid", "host", "job", "started_at")
    return {
        **{state: getattr(counts, state) for state in JobState.ALL},
        "total": counts.total,
        "scheduled": scheduled,
        "workers": [{key: getattr(worker, key) for key in keys} for worker in workers],
        "store": as_utf8(manager.store.url),
    }


def _print_counts(screen: Screen, counts: Counts) -> None:
    lines = [
        ("🟡", "Pending", counts.pending),
        ("🟠", "Processing", counts.processing),
        ("✅", "Completed", counts.completed),
        ("🔴", "Failed", counts.failed),
        ("💀", "DLQ", counts.dead),
        ("🚫", "Cancelled", counts.cancelled),
        ("📦", "Total", counts.total),
    ]
    output.line(screen.paint(screen.say("📊", "QueueCTL System Status"), bold=True))
    output.line(_RULE)
    for symbol, label, count in lines:
        if count or label != "Cancelled":
            output.line(screen.say(symbol, f"{label}: {count}"))
    output.line(_RULE)


def _print_workers(screen: Screen, manager: QueueManager, workers: List[Member]) -> None:
    output.line(screen.say("👷", f"Workers: {len(workers)}"))
    for worker in sorted(
        workers, key=lambda member: (member.supervisor, len(member.name), member.name)
    ):
        start = f"   {screen.text(worker.name)} (pid {worker.pid}): "
        job = None if worker.job is None else manager.store.get(worker.job)
        output.line(start + _doing(screen, worker, job, screen.width - len(start)))


def _doing(screen: Screen, worker: Member, job: Optional[Job], room: int) -> str:
    if worker.job is None:
        return "idle"
    if job is None or job.started_at is None:
        return short_id(worker.job)
    head = f"{short_id(job.id)} "
    end = f" ({elapsed(clock.now() - clock.from_iso(job.started_at))})"
    command = screen.cut(screen.text(job.command), max(room - len(head) - len(end), 10))
    return f"{head}{command}{end}"
