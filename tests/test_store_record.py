"""A job as a line: it comes back as it was, and its beginning says what scheduling needs."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import job as rules
from queuectl.job import Job, JobState
from queuectl.store.head import HEADS, Plan, read_plan
from queuectl.store.journal import Commit
from queuectl.store.record import from_line, none_if_purged, purged_line, to_line
from queuectl.store.rewrite import is_worthwhile
from queuectl.testing.common import NOW

USUAL = Plan("default", 0, None, 0, ())
# What argv can hold: text, and bytes that are none as lone surrogates.
CHARACTERS = st.characters() | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
TEXT = st.text(CHARACTERS, max_size=20) | st.sampled_from(
    ['"', "\\", "\n\r\u2028\0", '","seq":9,"', '\n{"id":"a","seq":9,"state":"dead","run_at":null']
)
JOBS = st.builds(
    Job,
    id=st.sampled_from(["a", "job-1.x_Y", "x" * 64]),
    command=TEXT,
    state=st.sampled_from(JobState.ALL),
    attempts=st.integers(0, 9),
    max_retries=st.just(3),
    created_at=st.just("2025-11-09T17:01:37.123Z"),
    updated_at=st.just("2025-11-09T17:01:37.123Z"),
    last_error=st.none() | TEXT,
    run_at=st.sampled_from([None, "2025-11-09T17:01:37.123Z", "1970-01-01T00:00:00.000Z"]),
    timeout=st.none() | st.floats(0.001, 1e9),
    cwd=TEXT,
    worker=st.sampled_from([None, "w1"]),
    exit_code=st.sampled_from([None, 0, 255]),
    cancel_requested=st.booleans(),
    seq=st.sampled_from([1, 10, 1 << 40]),
    priority=st.sampled_from([0, 0, 10, -1_000_000]),
    queue=st.sampled_from(["default", "default", "q-1.x_Y"]),
    signal=st.sampled_from([None, None, 9]),
    timed_out=st.booleans(),
    after=st.sampled_from([(), ("a", "b.c")]),
    dependents=st.sampled_from([0, 0, 12]),
    unique=st.none() | st.none() | TEXT,
    labels=st.sampled_from([(), ("urgent", '"parents":[1]')]),
    env=st.just(()) | st.tuples(TEXT.map("A={}".format)),
    backoff_max=st.none() | st.floats(0, 3155760000.0, exclude_min=True) | st.integers(1, 99),
    success_codes=st.sampled_from([(0,), (0, 3)]),
    parents=st.sampled_from([(), (), (7,), (1 << 40, -3)]),
)


@given(JOBS)
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    line = to_line(job)
    assert from_line(line) == job
    assert b"\n" not in line
    assert line.isascii()
    assert json.loads(line)["id"] == job.id


@given(JOBS)
def test_its_beginning_says_what_scheduling_needs(job: Job) -> None:
    line = to_line(job)
    run_at = None if job.run_at is None else job.run_at.encode()
    match = HEADS.match(line)
    assert match is not None
    head = (job.id.encode(), b"%d" % job.seq, job.state.encode(), run_at)
    assert match.groups()[:4] == head
    reach = None if job.backoff_max is None else 2 * job.backoff_max
    plan = Plan(job.queue, job.priority, reach, job.dependents, job.parents)
    assert (read_plan(*match.groups()[4:]) or USUAL) == plan
    # Most lines are as short as they can be.
    assert (b'"priority"' in line.replace(b'\\"', b"")) == (plan != USUAL)
    match = HEADS.match(purged_line(job))
    assert match is not None
    assert match.groups()[:4] == (*head[:2], b"purged", None)
    assert (read_plan(*match.groups()[4:]) or USUAL) == plan
    assert (job.unique is None) == (b'"unique":' not in purged_line(job))
    assert none_if_purged(purged_line(job)) is None
    assert none_if_purged(line) == line


@given(JOBS)
def test_a_command_cannot_look_like_another_line(job: Job) -> None:
    data = to_line(job) + b"\n"
    assert len(HEADS.findall(data)) == 1
    assert b'"worker":"' not in to_line(job).replace(b'"worker":"', b"", 1)


def test_jq_reads_it() -> None:
    line = to_line(rules.enqueue("a", "echo ä \udcff", NOW, max_retries=3))
    try:
        done = subprocess.run(["jq", ".id"], input=line, stdout=subprocess.PIPE, check=True)
    except FileNotFoundError:
        pytest.skip("there is no jq here")
    assert done.stdout == b'"a"\n'


class TestRewriteIsDue:
    """When superseded lines outnumber both the live ones and 100,000."""

    @pytest.mark.parametrize(
        ("lines", "pending", "delayed", "completed", "moved", "due"),
        [
            (100_001, 0, 0, 0, 0, True),
            (100_000, 0, 0, 0, 0, False),
            (100_010, 10, 0, 0, 0, False),
            (100_011, 10, 0, 0, 0, True),
            # Delayed jobs are pending ones.
            (100_010, 10, 10, 0, 0, False),
            (400_000, 200_000, 0, 0, 0, False),
            (400_001, 200_000, 0, 0, 0, True),
            # Completed jobs are live until they are moved to the history.
            (100_011, 0, 0, 10, 0, True),
            (100_010, 0, 0, 10, 0, False),
            (100_001, 0, 0, 10, 10, True),
        ],
    )
    def test_the_limit(
        self, lines: int, pending: int, delayed: int, completed: int, moved: int, due: bool
    ) -> None:
        counts = dict.fromkeys(JobState.ALL, 0)
        counts.update(pending=pending, delayed=delayed, completed=completed)
        tail = Commit(1, {"lines": lines, "counts": counts}, 0, 0, 0)
        history = {"counts": {"completed": moved}} if moved else None
        assert is_worthwhile(tail, {"history": history}) is due
