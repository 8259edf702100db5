"""The rules of a job: each row of the state table, and that there are no others."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any, Callable, Dict, List

import pytest

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import InvalidValueError, WrongStateError
from queuectl.job import Job, JobState
from queuectl.values import MAX_COMMAND_BYTES, validate_command, validate_id

NOW = 1_762_707_697.123
THEN = NOW - 60
AT, EARLIER = clock.to_iso(NOW), clock.to_iso(THEN)


def pending(**values: Any) -> Job:
    return replace(rules.enqueue("a", "make", THEN, max_retries=3), **{"seq": 7, **values})


def processing(**values: Any) -> Job:
    return replace(rules.claim(pending(), "w1", THEN), **values)


def in_state(state: str) -> Job:
    return {
        "pending": pending(),
        "processing": processing(),
        "completed": rules.complete(processing(), THEN),
        "failed": rules.fail(processing(), THEN, "Exit code 1", 9, 1),
        "dead": rules.fail(processing(attempts=3), THEN, "Exit code 1", 9, 1),
        "cancelled": rules.cancel(pending(), THEN),
    }[state]


EVENTS: Dict[str, Callable[[Job], Job]] = {
    "claim": lambda job: rules.claim(job, "w2", NOW),
    "complete": lambda job: rules.complete(job, NOW),
    "fail": lambda job: rules.fail(job, NOW, "Exit code 3", 2, 3),
    "rescue": lambda job: rules.rescue(job, NOW, 2),
    "release": lambda job: rules.release(job, NOW),
    "cancel": lambda job: rules.cancel(job, NOW),
    "retry": lambda job: rules.retry(job, NOW),
}

# From what, by which event, to what, and which fields change beside state, rev and updated_at.
TABLE: List[Any] = [
    (
        pending(),
        "claim",
        "processing",
        {"attempts": 1, "runs": 1, "worker": "w2", "started_at": AT},
    ),
    (
        in_state("failed"),
        "claim",
        "processing",
        {"attempts": 2, "runs": 2, "worker": "w2", "started_at": AT, "run_at": None},
    ),
    (
        processing(last_error="Exit code 1", attempts=2),
        "complete",
        "completed",
        {"worker": None, "finished_at": AT, "exit_code": 0, "last_error": None},
    ),
    (
        processing(attempts=2),
        "fail",
        "failed",
        {
            "worker": None,
            "run_at": clock.to_iso(NOW + 2),
            "last_error": "Exit code 3",
            "exit_code": 3,
        },
    ),
    (
        processing(attempts=3),
        "fail",
        "dead",
        {"worker": None, "finished_at": AT, "last_error": "Exit code 3", "exit_code": 3},
    ),
    (
        processing(),
        "rescue",
        "failed",
        {"worker": None, "run_at": clock.to_iso(NOW + 2), "last_error": "Worker died"},
    ),
    (
        processing(attempts=3),
        "rescue",
        "dead",
        {"worker": None, "finished_at": AT, "last_error": "Worker died"},
    ),
    (
        processing(attempts=2),
        "release",
        "pending",
        {
            "worker": None,
            "attempts": 1,
            "interruptions": 1,
            "last_error": "Interrupted at shutdown",
        },
    ),
    (
        processing(interruptions=1),
        "release",
        "pending",
        {
            "worker": None,
            "attempts": 0,
            "interruptions": 2,
            "last_error": "Interrupted at shutdown (2 times)",
        },
    ),
    (
        processing(interruptions=2, exit_code=3),
        "release",
        "pending",
        {
            "worker": None,
            "exit_code": None,
            "attempts": 0,
            "interruptions": 3,
            "last_error": "Interrupted at shutdown (3 times)",
        },
    ),
    (pending(run_at=AT), "cancel", "cancelled", {"finished_at": AT, "run_at": None}),
    (in_state("failed"), "cancel", "cancelled", {"finished_at": AT, "run_at": None}),
    (processing(), "cancel", "processing", {"cancel_requested": True}),
    (
        processing(cancel_requested=True),
        "complete",
        "completed",
        {"worker": None, "finished_at": AT, "exit_code": 0, "cancel_requested": False},
    ),
    (
        processing(cancel_requested=True),
        "fail",
        "cancelled",
        {
            "worker": None,
            "finished_at": AT,
            "last_error": "Exit code 3",
            "exit_code": 3,
            "cancel_requested": False,
        },
    ),
    (
        processing(cancel_requested=True),
        "rescue",
        "cancelled",
        {
            "worker": None,
            "finished_at": AT,
            "last_error": "Worker died",
            "cancel_requested": False,
        },
    ),
    (
        processing(cancel_requested=True),
        "release",
        "cancelled",
        {
            "worker": None,
            "finished_at": AT,
            "last_error": "Interrupted at shutdown",
            "interruptions": 1,
            "cancel_requested": False,
        },
    ),
    (in_state("failed"), "retry", "pending", {"run_at": None}),
    (in_state("dead"), "retry", "pending", {"attempts": 0, "finished_at": None}),
    (in_state("cancelled"), "retry", "pending", {"attempts": 0, "finished_at": None}),
]


@pytest.mark.parametrize(
    ("job", "event", "state", "changes"),
    TABLE,
    ids=[f"{number}-{row[0].state}-{row[1]}-{row[2]}" for number, row in enumerate(TABLE)],
)
def test_each_row_of_the_table(job: Job, event: str, state: str, changes: Dict[str, Any]) -> None:
    """Nothing else changes, and what was given is left alone."""
    before = replace(job)
    after = EVENTS[event](job)
    assert after == replace(job, state=state, rev=job.rev + 1, updated_at=AT, **changes)
    assert job == before


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", JobState.ALL)
def test_every_other_pair_is_refused(state: str, event: str) -> None:
    allowed = {(row[0].state, row[1]) for row in TABLE}
    if (state, event) in allowed:
        EVENTS[event](in_state(state))
    else:
        with pytest.raises(WrongStateError, match=f"^job 'a' is {state}: it cannot be [a-z]+$"):
            EVENTS[event](in_state(state))


def test_the_table_has_every_pair_that_is_allowed() -> None:
    assert len({(row[0].state, row[1]) for row in TABLE}) == 12


@pytest.mark.parametrize(("max_retries", "runs"), [(0, 1), (1, 1), (2, 2), (5, 5)])
def test_max_retries_is_the_number_of_attempts_in_all(max_retries: int, runs: int) -> None:
    job = rules.enqueue("a", "false", NOW, max_retries=max_retries)
    while job.state != JobState.DEAD:
        job = rules.fail(rules.claim(job, "w", NOW), NOW, "Exit code 1", 0)
    assert (job.attempts, job.runs) == (runs, runs)


def test_runs_never_go_down_and_name_each_claim() -> None:
    job, runs = pending(), []
    for event in ("release", "fail", "rescue", "release"):
        job = rules.claim(job, "w", NOW)
        runs.append(job.runs)
        job = EVENTS[event](job)
    assert (job.state, job.attempts) == ("pending", 2)
    job = rules.retry(rules.cancel(job, NOW), NOW)
    assert (runs, job.runs, job.attempts, job.interruptions) == ([1, 2, 3, 4], 4, 0, 2)


class TestEnqueue:
    """A new job."""

    def test_it_is_pending_and_has_run_never(self) -> None:
        job = rules.enqueue("job.1_a-B", "make", NOW, max_retries=5, timeout=1.5, cwd="/tmp")
        assert job == Job(
            id="job.1_a-B",
            command="make",
            state="pending",
            attempts=0,
            max_retries=5,
            created_at=AT,
            updated_at=AT,
            timeout=1.5,
            cwd="/tmp",
        )
        assert (job.runs, job.rev, job.interruptions, job.seq) == (0, 0, 0, 0)

    def test_a_time_that_has_passed_is_now(self) -> None:
        for run_at, kept in (
            (None, None),
            (NOW, None),
            (THEN, None),
            (NOW + 1, clock.to_iso(NOW + 1)),
        ):
            assert rules.enqueue("a", "true", NOW, max_retries=1, run_at=run_at).run_at == kept

    def test_it_cannot_be_changed_in_place(self) -> None:
        with pytest.raises(FrozenInstanceError):
            pending().state = "dead"

    @pytest.mark.parametrize("job_id", ["a", "A-z_0.9", "x" * 64, "-", "..", "0"])
    def test_a_good_id(self, job_id: str) -> None:
        assert validate_id(job_id) == job_id

    @pytest.mark.parametrize(
        "job_id", ["", "x" * 65, "a b", "a/b", "ä", "a\n", "\n", "a\0", "\udcff", "a:b", "*", "٣"]
    )
    def test_a_bad_id(self, job_id: str) -> None:
        with pytest.raises(InvalidValueError, match=r"^bad id .*: use 1 to 64 letters, digits"):
            validate_id(job_id)
        with pytest.raises(InvalidValueError):
            rules.enqueue(job_id, "true", NOW, max_retries=1)

    @pytest.mark.parametrize("command", [" true", "a\nb", "\udcff", "ä", "x" * MAX_COMMAND_BYTES])
    def test_a_good_command(self, command: str) -> None:
        assert validate_command(command) == command

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            ("", "the command is empty"),
            (" \t\n", "the command is empty"),
            ("a\0b", "NUL byte"),
            ("\ud800", "lone surrogate"),
            ("x" * (MAX_COMMAND_BYTES + 1), "131072 bytes, more than the 131071"),
            ("ä" * 65_536, "131072 bytes, more than the 131071"),
        ],
    )
    def test_a_bad_command(self, command: str, message: str) -> None:
        with pytest.raises(InvalidValueError, match=message):
            validate_command(command)
        with pytest.raises(InvalidValueError):
            rules.enqueue("a", command, NOW, max_retries=1)


def test_a_job_is_shown_in_the_order_that_scripts_rely_on() -> None:
    shown = pending().to_dict()
    assert list(shown)[:10] == [
        "id",
        "command",
        "state",
        "attempts",
        "max_retries",
        "created_at",
        "updated_at",
        "last_error",
        "runs",
        "rev",
    ]
    assert set(shown) == {field.name for field in fields(Job)} - {"seq", "parents"}
    assert shown["id"] == "a"


def test_who_waits() -> None:
    assert [in_state(state).waits for state in JobState.ALL] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("job", "due"),
    [
        (pending(), True),
        (pending(run_at=clock.to_iso(NOW)), True),
        (pending(run_at=clock.to_iso(NOW + 0.001)), False),
        (pending(run_at=clock.to_iso(NOW + 999)), False),
        (replace(in_state("failed"), run_at=clock.to_iso(NOW + 100)), False),
        (replace(in_state("failed"), run_at=clock.to_iso(NOW + 100.001)), True),
        (
            replace(
                in_state("failed"), run_at=clock.to_iso(NOW + 150), backoff_base=2, backoff_max=80
            ),
            False,
        ),
        (
            replace(
                in_state("failed"), run_at=clock.to_iso(NOW + 20), backoff_base=2, backoff_max=9
            ),
            True,
        ),
    ],
)
def test_a_retry_further_ahead_than_any_can_be_is_due(job: Job, due: bool) -> None:
    assert rules.is_due(job, NOW, 100) == due
