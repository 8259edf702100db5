"""Which jobs are meant: by state, queue, label, age or a part of the command."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

from queuectl import clock
from queuectl.errors import InvalidValueError
from queuectl.job import Job, JobState


class JobFilter(NamedTuple):
    """What jobs must be like; what is not given does not matter.

    Attributes:
        states: one of these states.
        queue: in this queue.
        label: with this label.
        created_since: enqueued then or later, in seconds since the epoch.
        ended_before: completed, died or was cancelled before that, in seconds since the epoch.
        text: this is a part of the command.
        before: enqueued before the job of this `seq`.
    """

    states: Sequence[str] = JobState.ALL
    queue: Optional[str] = None
    label: Optional[str] = None
    created_since: Optional[float] = None
    ended_before: Optional[float] = None
    text: Optional[str] = None
    before: Optional[int] = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing matters but the state and the place."""
        return all(value is None for value in self[1:-1])

    def takes(self, job: Job) -> bool:
        """Whether a job, in one of the states, is like this."""
        return (
            (self.queue is None or job.queue == self.queue)
            and (self.label is None or self.label in job.labels)
            and (self.text is None or self.text in job.command)
            and (self.created_since is None or job.created_at >= clock.to_iso(self.created_since))
            and (self.before is None or job.seq < self.before)
            and (self.ended_before is None or self._ended_before(job, self.ended_before))
        )

    @staticmethod
    def _ended_before(job: Job, moment: float) -> bool:
        return job.finished_at is not None and job.finished_at < clock.to_iso(moment)


DEAD_JOBS = JobFilter((JobState.DEAD,))

_ALIASES = {"dlq": JobState.DEAD}


def parse_states(text: str) -> Tuple[str, ...]:
    """Read names of states, separated by commas; `dlq` is another name of `dead`.

    Raises:
        InvalidValueError: one is unknown; the message offers the nearest.
    """
    states: List[str] = []
    for word in text.split(","):
        name = word.strip().lower()
        state = _ALIASES.get(name, name)
        if state not in JobState.ALL:
            import difflib

            near = difflib.get_close_matches(name, [*JobState.ALL, *_ALIASES], n=1)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(JobState.ALL)}"
            raise InvalidValueError(f"unknown state {word.strip()!r}: {hint}")
        if state not in states:
            states.append(state)
    return tuple(states)


def parse_age(text: str) -> float:
    """Read how many seconds ago something was, as a duration.

    Raises:
        InvalidValueError: it is no duration.
    """
    return 0.0 if text.strip() in ("0", "0s") else clock.parse_duration(text)
