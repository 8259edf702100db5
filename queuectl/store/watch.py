"""Jobs of the job file, for those who look at them again and again.

A look reads what was committed since the last one, without the lock, in a job file that was opened
for it alone: where it is in there is nobody else's position. A file that took the place of the one
that was read, and one that seems damaged, are looked through anew, as `JobFile.read` does.
"""

from __future__ import annotations

from array import array
from typing import Callable, Collection, Dict, Iterator, Match, Optional, Tuple

from queuectl.errors import DamagedError
from queuectl.job import Job, JobState
from queuectl.store.base import Activity, Counts, Watch
from queuectl.store.head import HEADS
from queuectl.store.jobfile import JobFile
from queuectl.store.journal import Journal, Visit
from queuectl.store.record import PURGED, from_line, none_if_purged
from queuectl.store.snapshot import Snapshot
from queuectl.values import DEFAULT_QUEUE

_RUNNING = JobState.PROCESSING.encode()
_PURGED = PURGED.encode()
_DEFAULT = DEFAULT_QUEUE.encode()
_FAILURES = (JobState.FAILED.encode(), JobState.DEAD.encode())
# Nothing in the text of a job looks like it, as JSON puts a backslash before a quote there.
_UPDATED = b'"updated_at":"'
# So many times the failures that were asked for are known, for some will be retried.
_SPARE = 8


class _Follower:
    """How far a job file was read.

    Args:
        file: the job file, for this follower alone.
        begin: called with all that there is.
        visit: called with what was committed since.
    """

    def __init__(self, file: JobFile, begin: Callable[[Snapshot], None], visit: Visit) -> None:
        self._file = file
        self._begin = begin
        self._visit = visit
        self._journal: Optional[Journal] = None

    def look(self) -> None:
        """Read on, or from the beginning."""
        self._file.reopen_if_replaced()
        if self._file.journal is self._journal:
            try:
                self._journal.follow(self._visit)
            except DamagedError:
                # It may have been read while a writer cut a torn tail.
                self.look_anew()
        else:
            self.look_anew()

    def look_anew(self) -> None:
        """Read from the beginning."""
        self._file.read(self._take_in)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take_in(self, snapshot: Snapshot) -> None:
        self._begin(snapshot)
        self._journal = self._file.journal
        self._journal.go_to(snapshot.commit)


class FileWatch(Watch):
    """Some jobs of a job file.

    Args:
        file: the job file, for this watch alone.
        job_ids: the ids of the jobs.
    """

    def __init__(self, file: JobFile, job_ids: Collection[str]) -> None:
        self._ids = {job_id.encode(): job_id for job_id in job_ids}
        self._changed: Dict[bytes, Optional[bytes]] = {}
        self._follower = _Follower(file, self._begin, self._visit)

    def look(self) -> Iterator[Tuple[str, Optional[Job]]]:
        """Yield those that changed."""
        self._follower.look()
        changed, self._changed = self._changed, {}
        return (
            (self._ids[job_id], None if line is None else from_line(line))
            for job_id, line in changed.items()
        )

    def close(self) -> None:
        """Close the file."""
        self._follower.close()

    def _begin(self, snapshot: Snapshot) -> None:
        self._changed = snapshot.newest_lines(list(self._ids.values()))

    def _visit(self, offset: int, block: bytes) -> None:
        for head in HEADS.finditer(block):
            if head[1] in self._ids:
                line = block[head.start() : block.index(b"\n", head.end())]
                self._changed[head[1]] = none_if_purged(line)


class FileActivity:
    """What the jobs of a job file do at the moment; of the failures no more than may be asked for.

    Args:
        file: the job file, for this alone.
    """

    def __init__(self, file: JobFile) -> None:
        self._follower = _Follower(file, self._begin, self._visit)
        self._running: Dict[int, bytes] = {}
        self._failures: Dict[int, Tuple[bytes, bytes]] = {}
        self._most = 0
        self._has_dropped = False

    def look(self, failures: int) -> Activity:
        """Return what is running, and so many of the newest failures."""
        self._most = max(self._most, failures * _SPARE)
        self._follower.look()
        if self._has_dropped and len(self._failures) < failures:
            self._follower.look_anew()
        running = [from_line(line) for line in self._running.values()]
        newest = sorted(self._failures.items(), key=_by_time, reverse=True)[:failures]
        return Activity(
            sorted(running, key=lambda job: (str(job.started_at), job.seq)),
            [from_line(line) for _, (_, line) in newest],
        )

    def close(self) -> None:
        """Close the file."""
        self._follower.close()

    def _begin(self, snapshot: Snapshot) -> None:
        self._running, self._failures, self._has_dropped = {}, {}, False
        places, _ = snapshot.places_of_newest(JobState.COMPLETED)
        for line in snapshot.lines(places):
            self._visit(0, line)

    def _visit(self, offset: int, block: bytes) -> None:
        for head in HEADS.finditer(block):
            seq, state = int(head[2]), head[3]
            self._running.pop(seq, None)
            self._failures.pop(seq, None)
            if state == _RUNNING:
                self._running[seq] = block[head.start() : block.index(b"\n", head.end())]
            elif state in _FAILURES:
                line = block[head.start() : block.index(b"\n", head.end())]
                at = line.index(_UPDATED) + len(_UPDATED)
                self._failures[seq] = (line[at : line.index(b'"', at)], line)
                if len(self._failures) > 2 * self._most:
                    self._drop_oldest()

    def _drop_oldest(self) -> None:
        newest = sorted(self._failures.items(), key=_by_time, reverse=True)
        self._failures = dict(newest[: self._most])
        self._has_dropped = True


class FileTally:
    """How many jobs of a job file there are of each kind, with four bytes for each job.

    Args:
        file: the job file, for this alone.
    """

    def __init__(self, file: JobFile) -> None:
        self._follower = _Follower(file, self._begin, self._visit)
        self._begin_anew()

    def look(self) -> Dict[str, Counts]:
        """Return the counts of each queue that holds a job."""
        self._follower.look()
        queues: Dict[str, Dict[str, int]] = {}
        for (queue, state, has_time), kind in self._kinds.items():
            count = self._counts[kind]
            if count == 0:
                continue
            tally = queues.setdefault(queue.decode(), {})
            tally[state] = tally.get(state, 0) + count
            if has_time and state == JobState.PENDING:
                tally["delayed"] = tally.get("delayed", 0) + count
        return {queue: Counts(**counts) for queue, counts in queues.items()}

    def close(self) -> None:
        """Close the file."""
        self._follower.close()

    def _begin_anew(self) -> None:
        # The kind of each job by its seq; 0 is that of what is not there.
        self._of = array("I")
        self._kinds: Dict[Tuple[bytes, str, bool], int] = {}
        self._counts = [0]

    def _begin(self, snapshot: Snapshot) -> None:
        self._begin_anew()
        self._take_in(snapshot.heads())

    def _visit(self, offset: int, block: bytes) -> None:
        self._take_in(HEADS.finditer(block))

    def _take_in(self, heads: Iterator[Match[bytes]]) -> None:
        of, counts = self._of, self._counts
        for head in heads:
            number, state, run_at, queue = head.group(2, 3, 4, 5)
            seq = int(number)
            if seq >= len(of):
                of.frombytes(bytes(of.itemsize * (seq + 1 - len(of))))
            counts[of[seq]] -= 1
            kind = 0 if state == _PURGED else self._kind(queue, state, run_at is not None)
            of[seq] = kind
            counts[kind] += 1

    def _kind(self, queue: Optional[bytes], state: bytes, has_time: bool) -> int:
        key = (queue or _DEFAULT, state.decode(), has_time)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = len(self._counts)
            self._counts.append(0)
        return kind


def _by_time(failure: Tuple[int, Tuple[bytes, bytes]]) -> Tuple[bytes, int]:
    seq, (at, _) = failure
    return at, seq
