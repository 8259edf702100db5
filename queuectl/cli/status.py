"""`queuectl status`: how many jobs there are in which state, and who works on them."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

import click

from queuectl import clock
from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.errors import InvalidValueError
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.render import Screen, elapsed, short_id, to_json
from queuectl.store.base import Counts, Member
from queuectl.text import as_utf8

RULE = "=" * 40
_LEAST_INTERVAL = 0.1


def _parse_interval(text: str) -> float:
    seconds = clock.parse_duration(text)
    if seconds < _LEAST_INTERVAL:
        raise InvalidValueError(f"{text} is less than {_LEAST_INTERVAL} seconds")
    return seconds


@click.command(cls=Command, short_help="Count the jobs, and tell what the workers do.")
@click.option(
    "--watch",
    "interval",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value="2",
    callback=checked(_parse_interval),
    help="Show it in place until Ctrl-C, drawn anew each 2 seconds, or as often as is said.",
)
@pass_session
def status(session: Session, interval: Optional[float]) -> None:
    """Count the jobs in each state, and tell what the workers do.

    Scheduled jobs are a part of the pending ones: their time has not come yet.
    Blocked ones wait for other jobs: show tells for which.
    Failed jobs wait for their next attempt; those that used up all of them are
    in the DLQ.

    With --watch it also tells how many jobs complete in a second and in a minute,
    what runs, what failed last, and which queues are paused. Ctrl-C leaves it,
    with exit code 0 and the terminal as it was.

    Example:
      queuectl status
      queuectl status --json
    """
    if interval is not None:
        _watch(session, interval)
        return
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
        blocked = manager.blocked()
        if blocked:
            output.line(screen.say("🔗", f"Blocked: {blocked}"))
        paused = _paused(manager)
        if paused:
            output.line(screen.say("⏸️", f"Paused queues: {', '.join(paused)}"))
        nodes = manager.nodes()
        if len(nodes) > 1:
            names = ", ".join(node.host for node in nodes)
            output.line(screen.say("🌐", f"Nodes: {len(nodes)} ({screen.text(names)})"))
        if workers:
            _print_workers(screen, manager, workers)
        output.line(screen.say("📁", f"Store: {screen.text(as_utf8(manager.store.shown))}"))
        if counts.pending + counts.failed + counts.processing and not workers:
            output.line(screen.paint("no workers running: queuectl start", "yellow"))


def _watch(session: Session, interval: float) -> None:
    if session.json:
        raise click.UsageError("--watch has no JSON form: call queuectl status --json as often")
    if not output.is_terminal() or os.environ.get("TERM", "dumb") == "dumb":
        raise click.UsageError("--watch needs a terminal: use watch, or queuectl status --json")
    from queuectl.cli.live import Live

    with session.open() as manager:
        Live(manager, interval).run()


def _paused(manager: QueueManager) -> List[str]:
    return sorted(name for name, rule in manager.queue_rules().items() if rule.paused)


def _record(
    manager: QueueManager, counts: Counts, scheduled: int, workers: List[Member]
) -> Dict[str, Any]:
    keys = ("id", "pid", "host", "job", "started_at")
    return {
        **{state: getattr(counts, state) for state in JobState.ALL},
        "total": counts.total,
        "scheduled": scheduled,
        "blocked": manager.blocked(),
        "paused": _paused(manager),
        "lifetime": {
            "enqueued": manager.store.enqueued(),
            "completed": manager.store.totals().get("completed", 0),
        },
        "workers": [{key: getattr(worker, key) for key in keys} for worker in workers],
        "store": as_utf8(manager.store.shown),
    }


def count_lines(screen: Screen, counts: Counts) -> List[str]:
    """Write the counts, a line a state."""
    lines = [
        ("🟡", "Pending", counts.pending),
        ("🟠", "Processing", counts.processing),
        ("✅", "Completed", counts.completed),
        ("🔴", "Failed", counts.failed),
        ("💀", "DLQ", counts.dead),
        ("🚫", "Cancelled", counts.cancelled),
        ("📦", "Total", counts.total),
    ]
    return [
        screen.say(symbol, f"{label}: {count}")
        for symbol, label, count in lines
        if count or label != "Cancelled"
    ]


def _print_counts(screen: Screen, counts: Counts) -> None:
    output.line(screen.paint(screen.say("📊", "QueueCTL System Status"), bold=True))
    output.line(RULE)
    for line in count_lines(screen, counts):
        output.line(line)
    output.line(RULE)


def _print_workers(screen: Screen, manager: QueueManager, workers: List[Member]) -> None:
    output.line(screen.say("👷", f"Workers: {len(workers)}"))
    now = manager.store.now()
    has_nodes = len({worker.host for worker in workers}) > 1
    for worker in sorted(
        workers, key=lambda member: (member.host, member.supervisor, len(member.name), member.name)
    ):
        where = f" on {worker.host}" if has_nodes else ""
        start = f"   {screen.text(worker.name + where)} (pid {worker.pid}): "
        job = None if worker.job is None else manager.store.get(worker.job)
        output.line(start + _doing(screen, worker, job, now, screen.width - len(start)))


def _doing(screen: Screen, worker: Member, job: Optional[Job], now: float, room: int) -> str:
    if worker.job is None:
        return "idle"
    if job is None or job.started_at is None:
        return short_id(worker.job)
    head = f"{short_id(job.id)} "
    end = f" ({elapsed(now - clock.from_iso(job.started_at))})"
    command = screen.cut(screen.text(job.command), max(room - len(head) - len(end), 10))
    return f"{head}{command}{end}"
