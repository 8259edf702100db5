"""Requests for new jobs that refer to each other, and to jobs that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from queuectl.errors import (
    InvalidValueError,
    KeyTakenError,
    NotFoundError,
    QueueError,
    RequestError,
    WrongStateError,
)
from queuectl.family import find_cycle
from queuectl.job import JobState
from queuectl.manager import QueueManager
from queuectl.newjob import NewJob


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[QueueManager]:
    with QueueManager.open(str(tmp_path / "store")) as manager:
        yield manager


def job(job_id: str, *after: str, **values: object) -> NewJob:
    return NewJob("true", job_id, cwd="/", after=after, **values)  # type: ignore[arg-type]


def test_of_requests_with_one_key_the_first_is_met_and_the_others_mean_it(
    queue: QueueManager,
) -> None:
    receipt = queue.submit([job("a", unique="k"), job("b", unique="k"), job("c", "b")])
    assert [each.id for each in receipt.jobs] == ["a", "a", "c"]
    assert receipt.known == frozenset()
    assert receipt.jobs[2].after == ("a",)
    again = queue.submit([job("d", unique="k"), job("e", "d")])
    assert [each.id for each in again.jobs] == ["a", "e"]
    assert again.known == {"a"}
    assert again.jobs[1].after == ("a",)
    both = queue.submit([job("f", unique="k"), job("g", unique="k"), job("h", "g")])
    assert [each.id for each in both.jobs] == ["a", "a", "h"]
    assert both.known == {"a"}
    assert both.jobs[2].after == ("a",)


@pytest.mark.parametrize("policy", ["error", "replace"])
def test_requests_with_one_key_that_do_not_yield_are_refused(
    queue: QueueManager, policy: str
) -> None:
    with pytest.raises(KeyTakenError) as caught:
        queue.submit([job("a", unique="k"), job("b", unique="k", on_conflict=policy)])
    assert (caught.value.request, caught.value.holder) == (1, "a")
    assert queue.counts().total == 0


def test_who_replaces_a_job_takes_its_followers_along(queue: QueueManager) -> None:
    queue.submit([job("old", unique="k"), job("next", "old"), job("last", "next")])
    receipt = queue.submit([job("new", unique="k", on_conflict="replace")])
    states = {each.id: (each.state, each.last_error) for each in queue.jobs()}
    cancelled = JobState.CANCELLED
    assert states == {
        "old": (cancelled, "Replaced by job 'new'"),
        "next": (cancelled, "Job 'old', which it was to follow, was replaced"),
        "last": (cancelled, "Job 'next', which it was to follow, was cancelled"),
        "new": (JobState.PENDING, None),
    }
    assert len(receipt.notices) == 2


def test_nobody_follows_what_it_replaces(queue: QueueManager) -> None:
    queue.submit([job("old", unique="k")])
    with pytest.raises(RequestError, match="both replace job 'old' and wait for it"):
        queue.submit([job("new", "old", unique="k", on_conflict="replace")])
    assert [each.state for each in queue.jobs()] == [JobState.PENDING]


REFUSED = {
    "an unknown one": (["a"], [job("x"), job("y", "none")], NotFoundError),
    "a cancelled one": (["a", "cancelled"], [job("x"), job("y", "a")], WrongStateError),
    "itself": ([], [job("x"), job("y", "y")], InvalidValueError),
    "a circle": ([], [job("w"), job("x", "z"), job("y", "x"), job("z", "y")], InvalidValueError),
}


@pytest.mark.parametrize(("there", "requests", "error"), REFUSED.values(), ids=REFUSED)
def test_what_nobody_can_follow_is_refused_for_the_request_that_asked(
    queue: QueueManager, there: List[str], requests: List[NewJob], error: type
) -> None:
    if there:
        queue.submit([job(there[0])])
    if there[1:]:
        queue.cancel([there[0]])
    before = list(queue.jobs())
    with pytest.raises(QueueError) as caught:
        queue.submit(requests)
    assert type(caught.value) is error
    assert caught.value.request == 1
    assert list(queue.jobs()) == before


def test_a_circle_is_named() -> None:
    assert find_cycle({"a": ["b"], "b": ["c", "d"], "d": ["b"]}) == ["b", "d", "b"]
    assert find_cycle({"a": ["b", "c"], "b": ["c"], "c": []}) is None
    # As deep as a file has lines.
    chain = {str(number): [str(number + 1)] for number in range(20_000)}
    assert find_cycle(chain) is None
    assert find_cycle({**chain, "20000": ["19999"]}) == ["19999", "20000", "19999"]


@pytest.mark.parametrize(
    "value", [{"queue": "a b"}, {"priority": 10**7}, {"command": " "}, {"max_retries": -1}]
)
def test_what_can_never_be_right_is_refused_of_programs_too(
    queue: QueueManager, value: Dict[str, Any]
) -> None:
    queue.submit([job("a")])
    before = queue.find("a")
    with pytest.raises(InvalidValueError):
        queue.edit("a", **value)
    with pytest.raises(InvalidValueError):
        queue.enqueue(**{"command": "true", "cwd": "/", **value})
    assert list(queue.jobs()) == [before]
