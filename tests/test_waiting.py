"""Waiting for jobs in a program, and the exit code that stands for how a job ended."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import pytest

from queuectl import QueueManager
from queuectl import job as rules
from queuectl.errors import NotFoundError, RequestError, WaitTimeoutError
from queuectl.job import Job
from queuectl.testing.common import NOW, new_job
from queuectl.waiting import exit_code, until_over
from support import Cli
from test_cli_support import keep, queue_of, run

Ending = Callable[[Job], Job]


def failing(exit_code: Optional[int] = None, **how: Any) -> Ending:
    """A last attempt that fails so."""
    return lambda job: rules.fail(job, NOW, "why", 1, exit_code, **how)


ENDINGS: Dict[str, Tuple[Ending, int]] = {
    "completed": (lambda job: rules.complete(job, NOW), 0),
    "completed with a success code": (lambda job: rules.complete(job, NOW, 3), 0),
    "its exit code": (failing(3), 3),
    "0, which is no success code": (failing(0), 1),
    "a signal": (failing(signal=9), 137),
    "its time was over": (failing(timed_out=True), 124),
    "its time was over, so a signal came": (failing(signal=15, timed_out=True), 124),
    "its time was over, and it ended by itself": (failing(0, timed_out=True), 124),
    "its worker died": (lambda job: rules.rescue(job, NOW, 1), 1),
    "it never started": (failing(), 1),
    "cancelled while it ran": (
        lambda job: rules.fail(rules.cancel(job, NOW), NOW, "why", 1, signal=15),
        1,
    ),
}


@pytest.mark.parametrize(("ending", "code"), ENDINGS.values(), ids=ENDINGS)
def test_the_exit_code_says_how_a_job_ended(ending: Ending, code: int) -> None:
    job = ending(rules.claim(new_job("a", max_retries=1), "w1", NOW))
    assert job.is_over
    assert exit_code(job) == code


def test_the_exit_code_of_a_job_that_never_ran_and_of_one_that_is_gone() -> None:
    assert exit_code(rules.cancel(new_job("a"), NOW)) == 1
    assert exit_code(None) == 1


@pytest.fixture
def queue(cli: Cli) -> Iterator[QueueManager]:
    """A queue with the jobs `aaaa` and `bbbb`."""
    with queue_of(cli) as queue:
        queue.enqueue("x", id="aaaa", cwd="/")
        queue.enqueue("x", id="bbbb", cwd="/", max_retries=1)
        yield queue


def test_jobs_are_waited_for_until_the_last_has_ended(queue: QueueManager) -> None:
    """In the order of the ids, one of which may be a prefix or come twice."""
    completed = run(queue)
    seqs = {"aaaa": 1, "bbbb": 2}
    found = []
    for job_id, job in until_over(queue.store, seqs, timeout=10, tick=lambda: found.append(1)):
        found.append(job_id)
        if job_id == "aaaa":
            assert job == completed
            dead = run(queue, error="Exit code 1")
    assert [word for word in found if word != 1] == ["aaaa", "bbbb"]
    assert queue.wait(["bbbb", "aaaa", "bbbb"]) == [dead, completed, dead]
    assert queue.wait(["aaaa"], timeout=0.001) == [completed]
    assert queue.wait([]) == []


def test_waiting_has_an_end(queue: QueueManager) -> None:
    run(queue)
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError) as caught:
        queue.wait(["aaaa", "bbbb"], timeout=0.2)
    assert time.monotonic() - began >= 0.2
    assert str(caught.value) == "1 job has not ended after 0.2 seconds"
    assert caught.value.left == 1
    assert caught.value.exit_code == 124
    with pytest.raises(NotFoundError):
        queue.wait(["none"])


def test_a_job_that_is_purged_is_waited_for_no_longer(queue: QueueManager) -> None:
    """Also if another one has its id by then."""
    for again in (False, True):
        job = queue.find("aaaa")

        def purge(job: Job = job, again: bool = again) -> None:
            queue.store.remove([job])
            if again:
                queue.enqueue("x", id="aaaa", cwd="/")

        assert list(until_over(queue.store, {"aaaa": job.seq}, 10, purge)) == [("aaaa", None)]
        if not again:
            queue.enqueue("x", id="aaaa", cwd="/")


def test_what_a_job_printed_is_a_file(queue: QueueManager) -> None:
    job = run(queue, output=b"one\n\xfftwo", interrupted=True)
    with queue.logs("aaaa") as output:
        assert list(output) == [b"one\n", b"\xfftwo"]
    keep(queue.store.kept_output(job.id, 2), b"more")
    with queue.logs("aaaa", run=1) as output:
        assert output.read() == b"one\n\xfftwo"
    with pytest.raises(RequestError, match="has not run yet"):
        queue.logs("bbbb")
