"""The jobs that are left in a store: each record read once, and what the rest of them tell."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from typing import Dict, List, Optional, Set, Tuple

from queuectl.errors import InvalidValueError
from queuectl.job import Job, JobState
from queuectl.soundness import check_fit, to_record
from queuectl.store.creation import EMPTY_COUNTS
from queuectl.store.record import PURGED, from_line
from queuectl.store.survey import Fragment, Place, Survey, Wrong
from queuectl.values import DEFAULT_QUEUE


class Inventory:
    """The jobs that a survey found, without those that cannot be kept, which it takes out.

    Args:
        survey: what there is of the store.

    Attributes:
        damage: what is wrong with the records.
        odd: records that can be worked with, but that no sequence of events makes.
        counts: how many jobs there are in each state.
        running: the running jobs, with their workers.
        lost: the ids of jobs of which no whole line is left.
        reverted: of jobs whose newest line is not whole, but an older one is.
        unchecked: of jobs that are kept as lines say for which nothing vouches.
        held: of those for whose commands nothing vouches either, and that would be run: a repair
            puts them with the dead, for somebody to look at them.
        unnamed: how many jobs are lost whose ids are not known.
        unreadable: how many lines do not even tell whose they were: so many jobs more may be in an
            earlier state.
    """

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self.damage: List[Wrong] = []
        self.odd: List[Wrong] = []
        self.counts = dict(EMPTY_COUNTS)
        self.running: List[Tuple[str, str]] = []
        self.lost: List[str] = []
        self.reverted: List[str] = []
        self.unchecked: List[str] = []
        self.held: List[str] = []
        # What the last commit says of jobs beside their counts.
        self._running_in: Dict[str, int] = {}
        self._bound = 0
        self._hashes = array("q")
        self._torn: Dict[str, Fragment] = {
            each.id: each for each in survey.fragments if each.id is not None
        }
        present: Set[str] = set()
        for seq, place in survey.places:
            if place.state != PURGED:
                job = self._read(seq, place)
                if job is not None:
                    self._take(job, place)
                    if job.id in self._torn:
                        present.add(job.id)
        self._hashes = array("q", sorted(self._hashes))
        self._drop_doubles()
        for job_id, torn in self._torn.items():
            is_purged = torn.seq is not None and survey.places.state(torn.seq) == PURGED
            if job_id not in present and not is_purged:
                self.lost.append(job_id)
        self._check_last_commit()
        self.unnamed = self._count_unnamed()
        self.unreadable = self._count_unreadable()

    @property
    def total(self) -> int:
        """How many jobs there are."""
        return sum(self.counts.values()) - self.counts["delayed"]

    def has(self, job_id: str) -> bool:
        """Whether there is a job of this id."""
        wanted = hash(job_id)
        at = bisect_left(self._hashes, wanted)
        return at < len(self._hashes) and self._hashes[at] == wanted

    def _read(self, seq: int, place: Place) -> Optional[Job]:
        path = self._survey.files[place.source][0]
        line = self._survey.line(place)
        if place.unchecked:
            # Only a line that is exactly what would be written is taken.
            return from_line(line)
        try:
            job = to_record(json.loads(line))
            if job.seq != seq:
                raise InvalidValueError("seq is there twice")
        except (ValueError, RecursionError, InvalidValueError) as error:
            job_id = line[: line.find(b'","seq"')][len(b'{"id":"') :].decode("ascii", "replace")
            why = str(error) if isinstance(error, InvalidValueError) else "it is not JSON"
            self.damage.append(Wrong(path, place.offset, f"job {job_id}: {why}", (job_id,)))
            self.lost.append(job_id)
            self._survey.places.put(seq, None)
            return None
        try:
            check_fit(job)
        except InvalidValueError as error:
            self.odd.append(Wrong(path, place.offset, f"job {job.id}: {error}", (job.id,)))
        return job

    def _take(self, job: Job, place: Place) -> None:
        self._count(place, 1)
        self._hashes.append(hash(job.id))
        if place.would_run:
            self.held.append(job.id)
        elif place.unchecked:
            self.unchecked.append(job.id)
        if job.state == JobState.PROCESSING and not place.would_run:
            self.running.append((job.id, str(job.worker)))
            if job.queue != DEFAULT_QUEUE:
                self._running_in[job.queue] = self._running_in.get(job.queue, 0) + 1
        self._bound += bool(job.parents) and job.waits
        torn = self._torn.get(job.id)
        if torn is not None and (place.source, place.offset) < (torn.source, torn.offset):
            self.reverted.append(job.id)

    def _check_last_commit(self) -> None:
        """Hold what it says of queues and of waiting jobs against the jobs, where all is whole."""
        survey = self._survey
        if survey.damage or self.damage or survey.audit is None or survey.audit.newest is None:
            return
        newest = survey.audit.newest
        said = {name: newest.meta.get(name) for name in ("running", "bound")}
        found = {"running": self._running_in, "bound": self._bound}
        for name, value in found.items():
            if said[name] != value:
                reason = f"the commit says {said[name]} {name}, the lines say {value}"
                self.damage.append(Wrong(survey.look.path, newest.start, reason))

    def _count(self, place: Place, by: int) -> None:
        state = JobState.DEAD if place.would_run else place.state
        if state == "delayed":
            self.counts["pending"] += by
        self.counts[state] += by

    def _drop_doubles(self) -> None:
        """Of jobs with the same id, keep the last that was checked."""
        hashes = self._hashes
        twice = {one for one, other in zip(hashes, hashes[1:]) if one == other}
        if not twice:
            return
        found: Dict[str, List[Tuple[bool, int, Place]]] = {}
        for seq, place in self._survey.places:
            if place.state != PURGED:
                job_id = json.loads(self._survey.line(place))["id"]
                if hash(job_id) in twice:
                    found.setdefault(job_id, []).append((not place.unchecked, seq, place))
        for job_id, places in found.items():
            for _, seq, place in sorted(places)[:-1]:
                path = self._survey.files[place.source][0]
                self.damage.append(
                    Wrong(path, place.offset, f"another job has the id {job_id}, too", (job_id,))
                )
                self._count(place, -1)
                self._survey.places.put(seq, None)

    def _count_unnamed(self) -> int:
        audit = self._survey.audit
        if audit is None or audit.newest is None:
            return 0
        meta = audit.newest.meta
        there = int(meta["seq"]) - int(meta["purged"])
        return max(there - self.total - len(self.lost), 0)

    def _count_unreadable(self) -> int:
        survey = self._survey
        anonymous = sum(each.id is None for each in survey.fragments)
        if survey.audit is None or survey.audit.newest is None:
            return anonymous
        histories = len(survey.look.histories)
        named = sum(each.id is not None and each.source == histories for each in survey.fragments)
        missing = int(survey.audit.newest.meta["lines"]) - survey.job_lines - named
        return max(anonymous, missing)
