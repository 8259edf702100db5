"""Server-sent events, and those of what a run prints.

Each event has an id, and who was cut off goes on behind the last that it has seen. Output does so
at its place in the file.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import time
from typing import Any, AsyncIterator, Dict, List, NamedTuple, Optional, Protocol, Tuple, Union

from queuectl.errors import QueueError
from queuectl.job import Job, JobState
from queuectl.manager import QueueManager
from queuectl.outputs import GrowingOutput, open_output
from queuectl.shared import SharedReader
from queuectl.web.desk import Desk

_PAUSE = 0.25  # seconds between two looks
_SIGN_OF_LIFE = 10.0  # seconds
_PLACE = re.compile(r"(\d{1,9})-(\d{1,15})", re.ASCII)


class Event(NamedTuple):
    """An event: what it is called, its id, which may be empty, and what it tells."""

    name: str
    number: str
    data: Dict[str, Any]

    def encode(self) -> bytes:
        """Write it; JSON in ASCII has no line ends."""
        text = json.dumps(self.data, allow_nan=False)
        # An empty id would make a browser forget the last one, and so what it missed.
        number = f"id: {self.number}\n" if self.number else ""
        return f"event: {self.name}\n{number}data: {text}\n\n".encode("ascii")


class Source(Protocol):
    """What events come from."""

    async def look(self, desk: Desk) -> Tuple[List[Event], bool]:
        """Return what is new, and whether that was all."""

    def close(self, desk: Desk) -> None:
        """Let go of it; the last look may not be over yet."""


async def events(desk: Desk, source: Source) -> AsyncIterator[bytes]:
    """Yield what comes, until there is no more, nobody listens, or the server ends."""
    told_at = time.monotonic()
    yield b": queuectl\n\n"
    try:
        while not desk.is_closing:
            try:
                found, is_over = await source.look(desk)
            except QueueError as error:
                found, is_over = [Event("error", "", {"detail": str(error)})], True
            for event in found:
                yield event.encode()
            now = time.monotonic()
            if found:
                told_at = now
            elif now > told_at + _SIGN_OF_LIFE:
                # Else nobody would notice that there is nobody any more.
                told_at = now
                yield b": still here\n\n"
            if is_over:
                return
            await asyncio.sleep(_PAUSE)
    finally:
        source.close(desk)


class LiveOutput:
    """What a run prints.

    Args:
        job: whose.
        run: which; the current one, or the newest, by default.
        last: the id of the last event that was seen.
        tail: so many bytes before the end to begin with, if none was; all by default.
    """

    def __init__(
        self, job: Job, run: Optional[int], last: Optional[str], tail: Optional[int] = None
    ) -> None:
        self._id, self._seq = job.id, job.seq
        self._run = max(job.runs, 1) if run is None else run
        self._at = 0
        self._tail = tail
        place = None if last is None else _PLACE.fullmatch(last)
        if place is not None:
            self._run, self._at, self._tail = int(place[1]), int(place[2]), None
        self._reader: Union[GrowingOutput, SharedReader, None] = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    async def look(self, desk: Desk) -> Tuple[List[Event], bool]:
        """Read on; the end of the run is the last event."""
        return await desk.follow(self._look)

    def close(self, desk: Desk) -> None:
        """Close what it reads, once that is read no more."""
        desk.leave(self._close)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _look(self, manager: QueueManager) -> Tuple[List[Event], bool]:
        job = manager.store.get(self._id)
        if job is None or job.seq != self._seq:
            return [self._event("end", {"state": None})], True
        runs = job.state == JobState.PROCESSING and job.runs == self._run
        # Looked at before it is read: so all is read that was printed until its end.
        has_ended = not runs and (job.runs >= self._run or job.is_over)
        found = list(self._read(manager, job, has_ended))
        if has_ended:
            rest = self._decoder.decode(b"", True)
            if rest:
                found.append(self._event("output", {"text": rest}))
            found.append(self._event("end", {"state": job.state, "exit_code": job.exit_code}))
        return found, has_ended

    def _read(self, manager: QueueManager, job: Job, has_ended: bool) -> List[Event]:
        found: List[Event] = []
        if self._reader is None and job.runs >= self._run:
            self._reader = self._open(manager, job)
            if self._at and self._tail is not None:
                found.append(self._event("lost", {"why": f"{self._at} bytes before are left out"}))
            self._tail = None
        while self._reader is not None:
            if isinstance(self._reader, SharedReader):
                self._reader.look(has_ended)
            piece = self._reader.read()
            if piece.lost != 0:
                found.append(self._event("lost", {"why": self._reader.why_lost(piece.lost)}))
            if not piece.data:
                break
            if isinstance(self._reader, GrowingOutput):
                self._at = self._reader.at
            text = self._decoder.decode(piece.data)
            if text:
                found.append(self._event("output", {"text": text}))
        return found

    def _open(self, manager: QueueManager, job: Job) -> Union[GrowingOutput, SharedReader, None]:
        found = open_output(manager.store, job, self._run)
        if found is None:
            return None
        if found.shared is None:
            if self._tail is not None:
                self._at = max(os.fstat(found.fd).st_size - self._tail, 0)
            return GrowingOutput(found.fd, self._at)
        os.close(found.fd)
        reader = SharedReader(manager.store, job.id, self._run)
        reader.look(True)
        return reader

    def _event(self, name: str, data: Dict[str, Any]) -> Event:
        return Event(name, f"{self._run}-{self._at}", {"run": self._run, **data})
