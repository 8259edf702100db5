"""The newest lines of some jobs, from a look without the lock to the commit under it.

Who changes a job finds its line by a scan before the lock is taken, and holds on to it while what
was committed since is read. So is found who holds a unique key: every line of a job with one holds
it, so that the lines with the key tell all about it.
"""

from __future__ import annotations

import json
from typing import Collection, Dict, Match, Optional

from queuectl.job import Job
from queuectl.store.record import from_line, none_if_purged

Lines = Dict[bytes, Optional[bytes]]
"""The newest line of some ids, or nothing where no job has the id."""


def key_mark(key: str) -> bytes:
    """What stands in the lines of the jobs with a unique key, and in no text of others."""
    return b'"unique":' + json.dumps(key).encode("ascii")


class Watched:
    """The newest lines of some ids, and of the jobs with some unique keys.

    Args:
        lines: by id.
        holders: by unique key, the newest lines by id.
    """

    def __init__(self, lines: Lines, holders: Dict[str, Dict[bytes, bytes]]) -> None:
        self._lines = lines
        self._holders = holders
        self._marks = {key_mark(key): key for key in holders}

    def see(self, block: bytes, head: Match[bytes]) -> None:
        """Take in a line that was committed since.

        Args:
            block: lines, this one among them.
            head: where it begins.
        """
        job_id = head[1]
        if job_id not in self._lines and not self._marks:
            return
        line = block[head.start() : block.index(b"\n", head.end())]
        if job_id in self._lines:
            self._lines[job_id] = none_if_purged(line)
        for mark, key in self._marks.items():
            if mark in line:
                self._holders[key][job_id] = line

    def __contains__(self, job_id: str) -> bool:
        return job_id.encode() in self._lines

    def take(self, job_id: str) -> Optional[Job]:
        """Return a job as it stands now, and forget it, so that it has one successor.

        Raises:
            KeyError: it is not watched, or was taken.
        """
        line = self._lines.pop(job_id.encode())
        return None if line is None else from_line(line)

    def holder(self, key: str, but: Collection[str]) -> Optional[Job]:
        """Return the job that has a unique key and is not over, none of `but`."""
        for job_id, line in self._holders[key].items():
            if job_id.decode() not in but and none_if_purged(line) is not None:
                job = from_line(line)
                if job.unique == key and not job.is_over:
                    return job
        return None


NOTHING = Watched({}, {})
"""For who watches nothing."""
