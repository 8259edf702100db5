"""All changes of the jobs of a job file, each once and in the order of the commits.

A look reads what was committed since the last one, without the lock. To a file that was replaced
nothing is added any more: so it is read to its end, and then the one in its place from there on.
That is told by the numbers of the commits: one that was rewritten begins with the commit behind the
last of the old file, and one that was copied holds the same bytes up to there.
"""

from __future__ import annotations

from typing import Callable

from queuectl.errors import DamagedError
from queuectl.store.base import Feed, JobChange
from queuectl.store.head import HEADS
from queuectl.store.jobfile import JobFile
from queuectl.store.record import PURGED
from queuectl.values import DEFAULT_QUEUE

_PURGED = PURGED.encode()
_DEFAULT = DEFAULT_QUEUE.encode()


class FileFeed(Feed):
    """The changes of a job file from now on.

    Args:
        file: the job file, for this alone.
    """

    def __init__(self, file: JobFile) -> None:
        self._file = file
        last = file.tail()
        file.journal.go_to(last)

    def look(self, tell: Callable[[JobChange], None]) -> bool:
        """Read on."""

        def visit(offset: int, block: bytes) -> None:
            for head in HEADS.finditer(block):
                state = None if head[3] == _PURGED else head[3].decode()
                tell(JobChange(head[1].decode(), state, (head[5] or _DEFAULT).decode()))

        try:
            if self._file.was_replaced():
                self._file.journal.follow(visit)
                if not self._go_on():
                    self._skip()
                    return False
            self._file.journal.follow(visit)
        except DamagedError:
            # It may have been read while a writer cut a torn tail.
            self._skip()
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _go_on(self) -> bool:
        """Go from the end of the old file to the same place in the new one, if it is known."""
        old = self._file.journal
        number, meta, end, crc = old.number, old.meta, old.end, old.crc
        self._file.reopen_if_replaced()
        new = self._file.journal
        first = new.first()
        if first.number == number + 1:
            new.go_to(first)
        elif first.number <= number:
            new.go_to(first._replace(number=number, meta=meta, end=end, crc=crc))
        return first.number <= number + 1

    def _skip(self) -> None:
        """Go to the end of all that is there, once it is known to be right."""
        commit = self._file.read(lambda snapshot: snapshot.commit)
        self._file.journal.go_to(commit)
