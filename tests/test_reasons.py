"""Why a job waits, where it takes a clock that steps back to see it."""

from __future__ import annotations

from typing import List

import pytest

from queuectl import job as rules
from queuectl.queues import QueueRule
from queuectl.reasons import ReasonKind, reasons

NOW = 1_762_707_697.0


@pytest.mark.parametrize(
    ("stepped_back", "kinds"),
    [
        (0.0, [ReasonKind.RETRY, ReasonKind.NO_WORKER]),
        (99.0, [ReasonKind.RETRY, ReasonKind.NO_WORKER]),
        (100.0, [ReasonKind.NO_WORKER]),
    ],
)
def test_a_retry_is_no_reason_once_it_is_due_for_the_clock_stepped_back(
    stepped_back: float, kinds: List[str]
) -> None:
    claimed = rules.claim(rules.enqueue("a", "true", NOW, max_retries=3), "w1", NOW)
    failed = rules.fail(claimed, NOW, "Exit code 1", 1.0, 1)
    why = reasons(
        failed,
        NOW - stepped_back,
        horizon=100.0,
        parents={},
        rule=QueueRule(),
        running=0,
        supervisors=[],
    )
    assert [reason.kind for reason in why] == kinds
