"""The queue in its plainest form: what README.md and docs/ say of it, over a list of jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Collection, Dict, List, Optional, Set, Tuple

from queuectl import clock
from queuectl.newjob import NewJob

START = 1_762_707_697_000
"""When every walk begins, in milliseconds; so are all times here."""
WAITING = ("pending", "failed")
OVER = ("completed", "dead", "cancelled")


class Refused(Exception):  # noqa: N818  # It is no error, but what is to be expected.
    """The queue must not do what it is asked for."""


@dataclass(eq=False)
class Entry:
    """A job, as the reference has it. Times are in milliseconds."""

    id: str
    command: str
    priority: int
    queue: str
    run_at: Optional[int]
    key: Optional[str]
    max_retries: int
    # Its own base and longest delay.
    backoff: Optional[Tuple[float, float]]
    success_codes: Collection[int]
    no_retry_on: Collection[int]
    # Whom it follows, and whether any end of those will do.
    parents: List[Tuple[Entry, bool]] = field(default_factory=list)
    state: str = "pending"
    attempts: int = 0
    runs: int = 0
    interruptions: int = 0
    cancel_requested: bool = False
    worker: Optional[str] = None
    purged: bool = False

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    def blockers(self) -> List[Tuple[str, Entry]]:
        """Those for which it waits."""
        return [
            ("after_any" if any_end else "after", parent)
            for parent, any_end in self.parents
            if not parent.purged and parent.state != "completed"
            if not (any_end and parent.is_over)
        ]

    def end(self, state: str) -> None:
        self.state, self.worker, self.run_at, self.cancel_requested = state, None, None, False


class Reference:
    """What the queue should hold.

    Attributes:
        now: the time.
        entries: the jobs by seq, from 1 on; also those that were purged.
        paused: the queues that are.
        limits: by queue, how many of its jobs may run at once.
        base: that of the delays of those that have no backoff of their own.
        longest: their longest delay, in seconds.
    """

    def __init__(self) -> None:
        self.now = START
        self.entries: List[Entry] = []
        self.paused: Set[str] = set()
        self.limits: Dict[str, int] = {}
        self.base, self.longest = 2.0, 3600.0

    def there(self) -> List[Entry]:
        """The jobs that were not purged, oldest first."""
        return [entry for entry in self.entries if not entry.purged]

    def of(self, job_id: str) -> Optional[Entry]:
        return next((entry for entry in self.there() if entry.id == job_id), None)

    def running(self, queue: str) -> int:
        return sum(each.state == "processing" and each.queue == queue for each in self.there())

    def is_full(self, queue: str) -> bool:
        return queue in self.limits and self.running(queue) >= self.limits[queue]

    def is_due(self, entry: Entry) -> bool:
        if entry.run_at is None or entry.run_at <= self.now:
            return True
        # The clock stepped back: no retry lies so far ahead.
        longest = self.longest if entry.backoff is None else 2 * entry.backoff[1]
        return entry.state == "failed" and entry.run_at > self.now + longest * 1000

    def claimable(self, queues: Optional[Collection[str]]) -> List[Entry]:
        """The jobs that may be claimed now, those to be claimed first in front."""
        found = [
            entry
            for entry in self.there()
            if entry.waits and self.is_due(entry) and not entry.blockers()
            if queues is None or entry.queue in queues
            if entry.queue not in self.paused and not self.is_full(entry.queue)
        ]
        return sorted(found, key=lambda entry: -entry.priority)

    def is_drained(self, queues: Optional[Collection[str]]) -> bool:
        """Nothing runs, can be claimed, or waits for nothing but its retry."""
        served = [each for each in self.there() if queues is None or each.queue in queues]
        return not self.claimable(queues) and not any(
            entry.state == "processing"
            or (entry.state == "failed" and entry.queue not in self.paused and not entry.blockers())
            for entry in served
        )

    def give_up(self, ended: List[Entry]) -> List[Entry]:
        """Cancel those that can no more run: they were to follow one of these."""
        found: List[Entry] = []
        left = list(ended)
        while left:
            parent = left.pop()
            for entry in self.there():
                if entry.waits and (parent, False) in entry.parents:
                    entry.end("cancelled")
                    found.append(entry)
                    left.append(entry)
        return found

    def ended(
        self,
        entry: Entry,
        error: Optional[str],
        exit_code: Optional[int],
        interrupted: bool,
        timed_out: bool,
        signal: Optional[int],
    ) -> None:
        """Take in how a run ended."""
        if interrupted:
            entry.interruptions += 1
            if entry.cancel_requested:
                entry.end("cancelled")
                self.give_up([entry])
            else:
                entry.end("pending")
                entry.attempts -= 1
        elif (
            exit_code in entry.success_codes
            and not timed_out
            and not (entry.cancel_requested and error is not None)
        ):
            entry.end("completed")
        else:
            self.failed(entry, exit_code)

    def failed(self, entry: Entry, exit_code: Optional[int]) -> None:
        if entry.cancel_requested:
            entry.end("cancelled")
            self.give_up([entry])
        elif entry.attempts < max(entry.max_retries, 1) and exit_code not in entry.no_retry_on:
            base, longest = entry.backoff or (self.base, self.longest)
            entry.end("failed")
            delay = min(base**entry.attempts, longest, clock.MAX_DURATION)
            entry.run_at = self.now + math.floor(delay * 1000)
        else:
            entry.end("dead")

    def retried(self, entries: List[Entry]) -> None:
        for entry in entries:
            entry.attempts = entry.attempts if entry.state == "failed" else 0
            entry.end("pending")

    def admitted(self, requests: List[NewJob]) -> List[Entry]:
        """Take in new jobs, and return the one that each request means; raise Refused."""
        # By id, the request that is meant: the first of its key.
        firsts: Dict[str, NewJob] = {}
        for request in requests:
            rivals = [r for r in firsts.values() if r.unique and r.unique == request.unique]
            _refuse_unless(request.id not in firsts)
            _refuse_unless(not rivals or request.on_conflict in (None, "skip"))
            firsts[str(request.id)] = rivals[0] if rivals else request
        own = [request for request in requests if firsts[str(request.id)] is request]
        jobs: Dict[str, Entry] = {}
        replaced: List[Entry] = []
        for request in own:
            _refuse_unless(self.of(str(request.id)) is None)
            held = [e for e in self.there() if e.key and e.key == request.unique and not e.is_over]
            jobs[str(request.id)] = self.entry(request)
            if held and request.on_conflict in (None, "skip"):
                jobs[str(request.id)] = held[0]
            elif held:
                _refuse_unless(request.on_conflict == "replace" and held[0].waits)
                replaced += held
        jobs = {job_id: jobs[str(first.id)] for job_id, first in firsts.items()}
        follows = {
            str(request.id): {
                str(firsts[name].id) if name in firsts else "" for name in self.tie(request, jobs)
            }
            for request in own
        }
        _refuse_circles(follows)
        new = [job for job in jobs.values() if job not in self.entries]
        doomed = self.descendants(replaced)
        _refuse_unless(doomed.isdisjoint(parent for job in new for parent, _ in job.parents))
        for entry in doomed:
            entry.end("cancelled")
        self.entries += dict.fromkeys(new)
        return list(jobs.values())

    def tie(self, request: NewJob, jobs: Dict[str, Entry]) -> List[str]:
        """Have a new job wait for its parents; return the ids by which it names them."""
        job = jobs[str(request.id)]
        wanted = [(name, False) for name in request.after]
        wanted += [(name, True) for name in request.after_any]
        for name, any_end in wanted:
            parent = jobs.get(name) or self.of(name)
            if parent is None or (parent.state == "cancelled" and not any_end):
                raise Refused
            is_waited_for = not (parent.is_over if any_end else parent.state == "completed")
            if job not in self.entries and is_waited_for and (parent, any_end) not in job.parents:
                job.parents.append((parent, any_end))
        return [name for name, _ in wanted]

    def descendants(self, entries: List[Entry]) -> Set[Entry]:
        found = set(entries)
        while True:
            more = {
                entry
                for entry in self.there()
                if entry.waits and any((parent, False) in entry.parents for parent in found)
            }
            if more <= found:
                return found
            found |= more

    def entry(self, request: NewJob) -> Entry:
        backoff = None
        base, longest = request.backoff_base, request.backoff_max
        if base is not None or longest is not None:
            backoff = (
                self.base if base is None else base,
                min(self.longest if longest is None else longest, clock.MAX_DURATION),
            )
        at = None if request.run_at is None else round(request.run_at * 1000)
        return Entry(
            str(request.id),
            request.command,
            request.priority or 0,
            request.queue or "default",
            at if at is not None and at > self.now else None,
            request.unique,
            3 if request.max_retries is None else request.max_retries,
            backoff,
            request.success_codes or (0,),
            request.no_retry_on or (),
        )


def _refuse_unless(condition: bool) -> None:
    if not condition:
        raise Refused


def _refuse_circles(follows: Dict[str, Set[str]]) -> None:
    left = dict(follows)
    while left:
        free = [job_id for job_id, others in left.items() if others.isdisjoint(left)]
        _refuse_unless(bool(free))
        for job_id in free:
            del left[job_id]
