"""How text, tables and rows are written, without any terminal."""

from __future__ import annotations

import json
import unicodedata
from typing import List, Tuple

import hypothesis
import pytest
from hypothesis import strategies

from queuectl import render
from queuectl.render import Screen

TEXTS = strategies.text(
    strategies.characters(blacklist_categories=())
    | strategies.sampled_from("\x1b\n\t\\\x9b\u202e\udcff")
)
BYTES = strategies.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))
SCREENS = strategies.builds(
    Screen,
    strategies.sampled_from(["utf-8", "ascii", "latin-1", "cp1251"]),
    strategies.integers(20, 200),
)
HARMFUL = ("Cc", "Cs", "Zl", "Zp")


@hypothesis.given(TEXTS)
def test_a_line_is_one_line_in_which_nothing_is_obeyed(text: str) -> None:
    shown = render.visible(text)
    assert not [sign for sign in shown if unicodedata.category(sign) in HARMFUL]
    shown.encode()
    assert render.visible(shown) == shown


@hypothesis.given(BYTES)
def test_a_row_can_be_read_back_to_the_byte(text: str) -> None:
    cells = render.row([text, None, 3, text]).split("\t")
    assert cells[1:3] == ["", "3"]
    assert cells[0] == cells[3]
    # Harmless characters stand for themselves: encoded first, they survive the reading of escapes.
    back = cells[0].encode().decode("unicode_escape").encode("latin-1")
    assert back.decode("utf-8", "surrogateescape") == text


@hypothesis.given(TEXTS, SCREENS)
def test_a_screen_can_show_what_it_is_given(text: str, screen: Screen) -> None:
    assert "\n" not in screen.text(text)
    screen.text(text).encode(screen.encoding)
    screen.output(text).encode(screen.encoding)
    assert screen.output(text).count("\n") == text.count("\n")


@hypothesis.given(TEXTS, SCREENS, strategies.integers(4, 50))
def test_what_is_cut_is_not_wider_than_asked_for(text: str, screen: Screen, width: int) -> None:
    shown = screen.text(text)
    cut = screen.cut(shown, width)
    assert render.width_of(cut) <= width
    assert cut == shown or cut.endswith("..." if screen.plain else "…")


@hypothesis.given(strategies.lists(strategies.tuples(TEXTS, TEXTS), min_size=1), SCREENS)
def test_a_table_fits_its_screen(rows: List[Tuple[str, str]], screen: Screen) -> None:
    lines = screen.table(("One", "Two"), rows, elastic=(0, 1)).splitlines()
    widths = {render.width_of(line) for line in lines}
    assert len(widths) == 1
    assert widths.pop() <= max(screen.width, 2 * 10 + 7)
    assert len(lines) == 3 + 2 * len(rows)


def test_columns_that_people_see() -> None:
    assert [render.width_of(text) for text in ("ab", "é", "e\u0301", "你", "📦", "⚠️", "")] == [
        2, 1, 1, 2, 2, 1, 0,
    ]  # fmt: skip


def test_the_widest_cells_are_cut_first() -> None:
    screen = Screen(width=40)
    (line,) = [
        line
        for line in screen.table(("A", "B"), [("a" * 99, "b" * 12)], elastic=(0, 1)).splitlines()
        if "…" in line
    ]
    assert line == f"│ {'a' * 20}… │ {'b' * 12} │"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"), (0.04, "0.0s"), (0.1, "0.1s"), (9.94, "9.9s"), (9.97, "10.0s"), (59.9, "59s"),
        (60, "1m 00s"), (185, "3m 05s"), (7200, "2h 00m"), (86399, "23h 59m"),
        (5 * 86400 + 3 * 3600, "5d 03h"),
    ],
)  # fmt: skip
def test_how_long_something_took(seconds: float, text: str) -> None:
    assert render.elapsed(seconds) == text


def test_ids_are_cut_only_if_nobody_chose_them() -> None:
    assert render.short_id("a1b2c3d4-e5f6-7890-abcd-ef1234567890") == "a1b2c3d4"
    assert render.short_id("backup-of-2025-11-09") == "backup-of-2025-11-09"


def test_json_is_ascii_and_strict() -> None:
    text = render.to_json({"command": "é\udcff\n\x1b"})
    assert text == '{"command": "\\u00e9\\udcff\\n\\u001b"}'
    assert json.loads(text) == {"command": "é\udcff\n\x1b"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        render.to_json(float("nan"))


def test_symbols_are_left_out_where_they_cannot_be_shown() -> None:
    assert Screen("utf-8").say("📦", "Total: 1") == "📦 Total: 1"
    assert Screen("utf-8").say("⚠️", "Job failed") == "⚠️  Job failed"
    for encoding in ("ascii", "latin-1", "no-such-encoding"):
        assert Screen(encoding).say("📦", "Total: 1") == "Total: 1"


def test_colours_only_where_they_are_wanted() -> None:
    assert Screen(color=True).state("dead") == "\x1b[31mdead\x1b[0m"
    assert Screen(color=False).state("dead") == "dead"
