"""Housekeeping in processes of its own: when it begins, what it may take, how its failure shows."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest

from queuectl.chore import Chore
from queuectl.errors import StoreError, StoreGoneError
from queuectl.events import Event
from support import wait_until

FAILURE = "it did not work"


def make(work: Callable[[], object], told: List[Event], **options: Any) -> Chore:
    """A chore that is always due."""
    options.setdefault("is_due", lambda: True)
    return Chore(
        "chore", work=work, let_go=lambda: None, failure=FAILURE, report=told.append, **options
    )


def run(chore: Chore) -> None:
    """Do it once."""
    chore.begin_if_due()
    wait_until(lambda: not chore.goes_on, what="the end of the chore")


def test_it_is_done_beside_what_else_there_is_to_do(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / str(os.getpid())).touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.01)

    chore = make(work, [])
    chore.begin_if_due()
    wait_until(lambda: len(list(tmp_path.iterdir())) == 1, what="its beginning")
    chore.begin_if_due()
    assert chore.goes_on
    (tmp_path / "go").touch()
    wait_until(lambda: not chore.goes_on, what="its end")
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 2
    assert str(os.getpid()) not in names


def test_it_is_not_begun_unless_it_is_due(tmp_path: Path) -> None:
    chore = make((tmp_path / "done").touch, [], is_due=lambda: False)
    run(chore)
    assert not (tmp_path / "done").exists()


def test_it_lets_go_before_it_begins(tmp_path: Path) -> None:
    steps = tmp_path / "steps"

    def step(name: str) -> Callable[[], object]:
        return lambda: steps.open("a").write(name)

    chore = Chore(
        "chore",
        is_due=lambda: True,
        work=step("work "),
        let_go=step("let go "),
        failure=FAILURE,
        report=lambda event: None,
    )
    run(chore)
    assert steps.read_text() == "let go work "


def test_it_is_done_again_after_a_while(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / f"{time.monotonic()}").touch()

    chore = make(work, [], interval=0.3)

    def look() -> bool:
        chore.begin_if_due()
        return len(list(tmp_path.iterdir())) == 3

    wait_until(look, what="the third time")
    wait_until(lambda: not chore.goes_on)
    times = sorted(float(path.name) for path in tmp_path.iterdir())
    assert all(later - earlier > 0.2 for earlier, later in zip(times, times[1:]))


@pytest.mark.parametrize("error", [StoreError("no room"), StoreGoneError("/store")])
def test_a_failure_is_told_and_it_is_not_tried_again_at_once(
    tmp_path: Path, error: Exception
) -> None:
    def work() -> None:
        (tmp_path / f"{time.monotonic()}").touch()
        raise error

    told: List[Event] = []
    chore = make(work, told)
    run(chore)
    for _ in range(3):
        run(chore)
    assert len(list(tmp_path.iterdir())) == 1
    assert [event.detail for event in told] == [FAILURE]


def test_it_can_be_ended(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "begun").touch()
        time.sleep(1000)

    chore = make(work, [])
    chore.begin_if_due()
    wait_until((tmp_path / "begun").exists, what="its beginning")
    chore.end()
    assert not chore.goes_on
    chore.end()
