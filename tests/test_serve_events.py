"""`GET /api/v1/events`: what changed is told to each who follows, once and in order."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest

from queuectl.newjob import NewJob
from serving import Server, serving
from support import Cli
from test_cli_support import queue_of, run

Event = Tuple[str, str, Dict[str, Any]]


@pytest.fixture
def server(cli: Cli) -> Iterator[Server]:
    with serving(cli) as running:
        yield running


class Follower:
    """One who follows.

    Args:
        server: what.
        last: the last event that it saw before.
    """

    def __init__(self, server: Server, last: Optional[str] = None) -> None:
        headers = {} if last is None else {"Last-Event-ID": last}
        self._stream = server.events("/events", **headers)
        self.seen: List[Event] = []

    def next(self) -> Event:
        """The next event."""
        name, number, data = next(self._stream)
        self.seen.append((name, number, json.loads(data)))
        return self.seen[-1]

    def until(self, job_id: str, state: Optional[str]) -> List[Event]:
        """All events until a job is told to be in a state, which it is at last."""
        begun = len(self.seen)
        while True:
            name, _, data = self.next()
            if name == "job" and (data["id"], data["state"]) == (job_id, state):
                return self.seen[begun:]

    def told(self, holds: Callable[[Dict[str, Any]], bool]) -> Event:
        """An event of how all is, of which this holds; it may have come before one of its jobs."""
        at = 0
        while True:
            while at == len(self.seen):
                self.next()
            if self.seen[at][0] == "changed" and holds(self.seen[at][2]):
                return self.seen[at]
            at += 1

    def close(self) -> None:
        self._stream.close()


def jobs(events: List[Event]) -> List[Tuple[str, Optional[str]]]:
    return [(data["id"], data["state"]) for name, _, data in events if name == "job"]


def test_how_all_is_comes_first_and_whenever_it_changed(cli: Cli, server: Server) -> None:
    follower = Follower(server)
    name, _, data = follower.next()
    assert (name, data["stats"]["enqueued"]) == ("changed", 0)
    assert data["running"] == data["failures"] == []
    with queue_of(cli) as queue:
        queue.enqueue("exit 1", id="failing", max_retries=1, queue="q")
        assert follower.until("failing", "pending")[-1][2]["queue"] == "q"
        follower.told(lambda data: data["stats"]["enqueued"] == 1)
        run(queue, error="Exit code 1")
    assert jobs(follower.until("failing", "dead")) == [
        ("failing", "processing"), ("failing", "dead"),
    ]  # fmt: skip
    _, _, data = follower.told(lambda data: bool(data["failures"]))
    assert data["failures"][0]["last_error"] == "Exit code 1"
    last = follower.seen[-1][1]
    numbers = [int(number.partition("-")[2]) for _, number, _ in follower.seen]
    assert numbers == sorted(set(numbers))
    follower.close()
    again = Follower(server, last)
    with queue_of(cli) as queue:
        queue.enqueue("true", id="more")
    assert jobs(again.until("more", "pending")) == [("more", "pending")]
    again.told(lambda data: data["stats"]["enqueued"] == 2)
    again.close()


def test_who_comes_back_has_missed_nothing_and_hears_nothing_twice(
    cli: Cli, server: Server
) -> None:
    """As who was there all the time."""
    there, away = Follower(server), Follower(server)
    there.next()
    away.next()
    with queue_of(cli) as queue:
        for number in range(3):
            queue.enqueue("true", id=f"job-{number}")
        away.until("job-0", "pending")
        away.close()
        run(queue)
        queue.cancel(["job-2"])
        queue.purge_jobs(["job-2"])
        there.until("job-2", None)
        back = Follower(server, away.seen[-1][1])
        run(queue)
        back.until("job-1", "completed")
        there.until("job-1", "completed")
    assert jobs([*away.seen, *back.seen]) == jobs(there.seen)
    assert len(jobs(there.seen)) == 3 + 2 + 2 + 2
    assert "reset" not in {name for name, _, _ in back.seen}
    there.close()
    back.close()


def test_who_was_told_by_an_older_server_begins_anew(cli: Cli, server: Server) -> None:
    for last in ("0123456789abcdef-3", "no number"):
        follower = Follower(server, last)
        (reset, number, _), (changed, _, data) = follower.next(), follower.next()
        assert (reset, changed, data["stats"]["enqueued"]) == ("reset", "changed", 0)
        follower.close()
        # Cut off in between, it is told so again, or all there is to know.
        follower = Follower(server, number)
        assert follower.next()[0] == "changed"
        follower.close()


def test_who_missed_more_than_is_kept_begins_anew(cli: Cli, server: Server) -> None:
    follower = Follower(server)
    first = follower.next()[1]
    with queue_of(cli) as queue:
        queue.enqueue_many([NewJob("true") for _ in range(10_001)])
        queue.enqueue("true", id="last")
    names = [follower.next()[0]]
    while names[-1] != "reset":
        names.append(follower.next()[0])
    assert "job" not in names
    follower.told(lambda data: data["stats"]["enqueued"] == 10_002)
    follower.close()
    late = Follower(server, first)
    assert [late.next()[0], late.next()[0]] == ["reset", "changed"]
    late.close()


def test_a_rewrite_of_the_store_loses_nothing(cli: Cli, server: Server) -> None:
    follower = Follower(server)
    follower.next()
    with queue_of(cli) as queue:
        for number in range(2):
            queue.enqueue("true", id=f"job-{number}")
            follower.until(f"job-{number}", "pending")
            run(queue)
            queue.store.rewrite()
        queue.enqueue("true", id="last")
    follower.until("last", "pending")
    assert len(jobs(follower.seen)) == 7
    assert "reset" not in {name for name, _, _ in follower.seen}
    follower.close()
