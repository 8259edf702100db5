"""Everything that can be said of a store: what is damaged in it, and what somebody should know.

Nothing is changed, and nobody is kept waiting (see `look`).
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple

from queuectl import clock
from queuectl.store.entries import refuse_unreadable
from queuectl.store.finding import DAMAGE, NOTE, Finding, count
from queuectl.store.folder import StoreFolder
from queuectl.store.inventory import Inventory
from queuectl.store.lock import StoreLock
from queuectl.store.look import Look, look_at
from queuectl.store.surroundings import look_around
from queuectl.store.survey import Survey, Wrong


class Examined(NamedTuple):
    """What was found.

    Attributes:
        survey: the lines of the jobs.
        jobs: the jobs.
        findings: in words, what is damaged first.
    """

    survey: Survey
    jobs: Inventory
    findings: List[Finding]

    @property
    def jobs_are_damaged(self) -> bool:
        """Whether the job file or its history is."""
        return bool(self.survey.damage or self.jobs.damage)


def examine(folder: StoreFolder, lock: StoreLock) -> List[Finding]:
    """Examine a store while others may use it.

    Raises:
        NoStoreError: there is none.
        StoreError: it cannot be read, or needs a newer QueueCTL.
        StoreLockedError: somebody holds its lock for too long.
    """
    now = clock.now()
    refuse_unreadable(folder)
    with look_at(folder, lock) as look:
        return examine_look(folder, look, now).findings


def examine_look(folder: StoreFolder, look: Look, now: float) -> Examined:
    """Examine a store's files.

    Args:
        folder: its folder.
        look: the files.
        now: when they were opened, in seconds since the epoch.
    """
    survey = Survey(look)
    jobs = Inventory(survey)
    findings = [
        *(_finding(DAMAGE, wrong) for wrong in (*survey.damage, *jobs.damage)),
        *_missing(survey, jobs),
        *(_finding(NOTE, wrong) for wrong in jobs.odd),
        *_torn(survey),
        *look_around(folder, look, jobs, now),
    ]
    return Examined(survey, jobs, sorted(findings, key=lambda each: each.level != DAMAGE))


def _finding(level: str, wrong: Wrong) -> Finding:
    return Finding(level, wrong.path, wrong.offset, wrong.reason, wrong.ids)


def _missing(survey: Survey, jobs: Inventory) -> Iterator[Finding]:
    if jobs.unnamed:
        message = f"{count(jobs.unnamed, 'job')} cannot be found"
        yield Finding(DAMAGE, survey.look.path, None, message)


def _torn(survey: Survey) -> Iterator[Finding]:
    audit, look = survey.audit, survey.look
    if audit is not None and look.size > audit.end:
        size = look.size - audit.end
        what = "an end that the disk did not hold" if audit.lost_end else "an unfinished change"
        message = f"{what}, {count(size, 'byte')}: the next change cuts it off and keeps it aside"
        yield Finding(NOTE, look.path, audit.end, message)
