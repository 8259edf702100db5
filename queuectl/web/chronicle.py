"""What changes in the queue: the store is followed once, for all who are told.

Events have numbers, `BOOT-N`, of this server, and the last ones about jobs are kept. So whoever was
cut off and names the last event that it saw gets what it missed, each once and in order. Who missed
more than is known, or names another server's event, is told so by `reset`, and begins with how all
is. Of the events that tell that only the newest is kept: who missed some needs no other.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple

from queuectl.errors import QueueError
from queuectl.manager import QueueManager
from queuectl.store.base import Feed, JobChange
from queuectl.web import records
from queuectl.web.desk import Desk
from queuectl.web.live import Event

KEPT = 10_000
"""So many changes of jobs are kept."""

_PAUSE = 0.25  # seconds between two looks
_FAILURES = 10
_NUMBER = re.compile(r"([0-9a-f]{16})-(\d{1,15})", re.ASCII)


class _Look(NamedTuple):
    """What a look found: the newest changes, how many there were, and if none is missing."""

    changes: Deque[JobChange]
    number: int
    is_whole: bool


class Chronicle:
    """What changed since this server was first asked.

    All of it belongs to the event loop, but for the feed, which one thread looks at.

    Args:
        desk: of the queue.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._boot = secrets.token_hex(8)
        self._task: Optional[asyncio.Task[None]] = None
        self._trouble: Optional[QueueError] = None
        self._feed: Optional[Feed] = None
        self._fed_by: Optional[QueueManager] = None
        self._is_whole = True
        self._number = 0
        # Of an event up to this one it is not known what came behind it.
        self._lost = 0
        self._jobs: Deque[Tuple[int, JobChange]] = deque()
        self._state: Dict[str, Any] = {}
        self._text = ""
        self._changed_at = 0
        self._known_at = -1

    def begin(self) -> None:
        """Follow the store from now on."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow())

    def place_of(self, number: str) -> Optional[int]:
        """Read the number of an event; nothing if it is not one of this server's."""
        match = _NUMBER.fullmatch(number)
        return int(match[2]) if match is not None and match[1] == self._boot else None

    def beginning(self, is_anew: bool) -> Tuple[List[Event], Optional[int]]:
        """How all is, and the place of who was told that; none as long as it is not known.

        Args:
            is_anew: whether to tell before that something was missed.
        """
        self._require_well()
        if self._known_at < self._lost:
            return [], None
        # Who is cut off behind the first must not take the second for told.
        found = [self._event("reset", 0, {})] if is_anew else []
        return [*found, self._event("changed", self._known_at, self._state)], self._known_at

    def since(self, place: int) -> Optional[Tuple[List[Event], int]]:
        """What came behind an event, and where that ends; nothing if some of it is lost."""
        self._require_well()
        if not self._lost <= place <= self._number:
            return None
        found: List[Tuple[int, Event]] = []
        for number, change in reversed(self._jobs):
            if number <= place:
                break
            found.append((number, self._event("job", number, change._asdict())))
        if self._changed_at > place:
            changed = self._event("changed", self._changed_at, self._state)
            found.append((self._changed_at, changed))
        return [event for _, event in sorted(found, key=lambda each: each[0])], self._number

    async def _follow(self) -> None:
        while True:
            try:
                self._take_in(await self._desk.follow(self._look))
                stats = records.stats(await self._desk.measures())
                # It grows by itself.
                stats.pop("oldest")
                activity = await self._desk.follow(
                    lambda manager: manager.store.activity(_FAILURES)
                )
                self._tell(
                    {
                        "stats": stats,
                        "running": records.jobs(activity.running),
                        "failures": records.jobs(activity.failures),
                    }
                )
                self._trouble = None
            except QueueError as error:
                self._trouble = error
            await asyncio.sleep(_PAUSE)

    def _look(self, manager: QueueManager) -> _Look:
        """Look at the feed."""
        count = 0
        changes: Deque[JobChange] = deque(maxlen=KEPT)

        def tell(change: JobChange) -> None:
            nonlocal count
            count += 1
            changes.append(change)

        # If it raises, what it has told of is lost.
        is_whole, self._is_whole = self._is_whole, False
        if self._fed_by is not manager:
            is_whole = is_whole and self._fed_by is None
            if self._feed is not None:
                self._feed.close()
            self._feed, self._fed_by = manager.store.feed(), manager
        if self._feed is not None:
            is_whole = self._feed.look(tell) and is_whole
        self._is_whole = True
        return _Look(changes, count, is_whole)

    def _take_in(self, look: _Look) -> None:
        dropped = look.number - len(look.changes)
        if dropped or not look.is_whole:
            self._number += dropped + 1
            self._lost = self._number
            self._jobs.clear()
        for change in look.changes:
            self._number += 1
            if len(self._jobs) == KEPT:
                self._lost, _ = self._jobs.popleft()
            self._jobs.append((self._number, change))

    def _tell(self, state: Dict[str, Any]) -> None:
        text = json.dumps(state, sort_keys=True)
        if text != self._text:
            self._number += 1
            self._text, self._state, self._changed_at = text, state, self._number
        self._known_at = self._number

    def _require_well(self) -> None:
        if self._task is not None and self._task.done():
            # Only by a bug.
            self._task.result()
        if self._trouble is not None:
            raise self._trouble

    def _event(self, name: str, number: int, data: Dict[str, Any]) -> Event:
        return Event(name, f"{self._boot}-{number}", data)


class Changes:
    """What one of those who follow is told.

    Args:
        chronicle: what changed.
        last: the id of the last event that was seen, if any was.
    """

    def __init__(self, chronicle: Chronicle, last: Optional[str]) -> None:
        self._chronicle = chronicle
        self._place = None if last is None else chronicle.place_of(last)
        self._has_seen = last is not None

    async def look(self, desk: Desk) -> Tuple[List[Event], bool]:
        """Tell what came since the last look."""
        self._chronicle.begin()
        if self._place is not None:
            found = self._chronicle.since(self._place)
            if found is not None:
                events, self._place = found
                return events, False
        events, self._place = self._chronicle.beginning(is_anew=self._has_seen)
        self._has_seen = self._has_seen or self._place is not None
        return events, False

    def close(self, desk: Desk) -> None:
        """There is nothing to let go of."""
