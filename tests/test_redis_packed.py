"""A job as its value in Redis, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import job as rules
from queuectl.job import DEFAULTS, Job, JobState
from queuectl.store.base import SharedOutput
from queuectl.store.redis.outputs import pack_output, unpack_output
from queuectl.store.redis.packed import pack, pack_new, quoted, unpack, unquoted

NOW = 1_762_707_697.123
TEXT = st.text(st.characters(), max_size=20)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
INSTANTS = st.integers(0, 253_402_300_799_999).map(lambda ms: rules.clock.to_iso(ms / 1000))
WORDS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
SECONDS = st.floats(1e-9, 3_155_760_000.0)
COUNT = st.integers(0, 10**9)
FIELDS: Dict[str, st.SearchStrategy[Any]] = {
    "command": TEXT,
    "state": st.sampled_from(JobState.ALL),
    "attempts": COUNT,
    "max_retries": COUNT,
    "created_at": INSTANTS,
    "updated_at": INSTANTS,
}
OPTIONS: Dict[str, st.SearchStrategy[Any]] = {
    "last_error": TEXT,
    "runs": COUNT,
    "rev": COUNT,
    "priority": st.integers(-(10**6), 10**6),
    "queue": WORDS,
    "run_at": INSTANTS,
    "timeout": SECONDS,
    "cwd": TEXT,
    "worker": WORDS,
    "started_at": INSTANTS,
    "finished_at": INSTANTS,
    "exit_code": st.integers(0, 255),
    "signal": st.integers(1, 64),
    "timed_out": st.booleans(),
    "interruptions": COUNT,
    "cancel_requested": st.booleans(),
    "after": st.lists(WORDS, max_size=3).map(tuple),
    "after_any": st.lists(WORDS, max_size=3).map(tuple),
    "dependents": COUNT,
    "unique": KEYS,
    "labels": st.lists(TEXT, max_size=3).map(tuple),
    "env": st.lists(TEXT, max_size=3).map(tuple),
    "shell": TEXT,
    "backoff_base": SECONDS,
    "backoff_max": SECONDS,
    "success_codes": st.lists(st.integers(0, 255), max_size=3).map(tuple),
    "no_retry_on": st.lists(st.integers(0, 255), max_size=3).map(tuple),
    "seq": COUNT,
    "parents": st.lists(st.integers(-(10**9), 10**9), max_size=3).map(tuple),
}
JOBS = st.fixed_dictionaries(FIELDS, optional=OPTIONS).map(lambda values: Job("id", **values))


def test_every_field_is_tried() -> None:
    assert {"id", *FIELDS, *OPTIONS} == set(DEFAULTS)


@given(JOBS)
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    value = pack(job)
    found = unpack("id", value.encode("ascii"))
    assert found == job
    assert found.to_dict(reveal=True) == job.to_dict(reveal=True)
    assert {name: type(v) for name, v in vars(found).items()} == {
        name: type(getattr(job, name)) for name in vars(found)
    }
    assert value.count("\n") == 1


@given(JOBS)
def test_a_claim_changes_the_line_only(job: Job) -> None:
    """The rule of the claim is applied by whoever reads it."""
    waiting = replace(job, state=JobState.PENDING, run_at=None, worker=None)
    line, _, rest = pack(waiting).partition("\n")
    seq, rev, runs, _, *options = line.split(" ")
    claimed = " ".join([seq, str(int(rev) + 1), str(int(runs) + 1), "r", *options])
    value = f"{claimed} Wworker%2F1 C1762707697123\n{rest}"
    assert unpack("id", value.encode("ascii")) == rules.claim(waiting, "worker/1", NOW)


def test_a_plain_job_takes_little() -> None:
    job = rules.enqueue("id", "true", NOW, max_retries=3, cwd="/home/me")
    assert pack_new(job, {}, {}) == (
        '0 0 p S1762707697123\n{"command":"true","max_retries":3,'
        '"created_at":"2025-11-09T17:01:37.123Z","cwd":"/home/me"}'
    )


def test_parents_of_the_same_batch_are_named_by_their_place_in_it() -> None:
    job = rules.enqueue("id", "true", NOW, max_retries=3, after=("a", "b"), after_any=("c", "gone"))
    line = pack_new(job, {"a": 7}, {"b": 0, "c": 12}).partition("\n")[0]
    assert line == "0 0 p A7,n0,-n12 S1762707697123"


@given(TEXT)
def test_what_is_quoted_fits_into_a_line(text: str) -> None:
    assert unquoted(quoted(text).encode("ascii")) == text
    assert not set(quoted(text)) & set(" \n,")


@pytest.mark.parametrize(("head", "tail"), [(b"", b""), (b"a\nb", b"\xff\n"), (b"\n", b"")])
def test_shared_output_comes_back_as_it_was(head: bytes, tail: bytes) -> None:
    output = SharedOutput("host", "/path/\udcff\n", 10**12, head, tail)
    assert unpack_output(pack_output(output)) == output
