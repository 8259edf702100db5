"""What the dashboard is made of, without a browser: its files, its colours, its hour."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Dict

import pytest

pytest.importorskip("fastapi", reason="serve needs Python 3.10")

from queuectl import clock
from queuectl.web.history import History

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "queuectl" / "web" / "static"
NAMES = sorted(path.name for path in STATIC.iterdir())
STYLE = (STATIC / "style.css").read_text(encoding="utf-8")
NOON = clock.from_iso("2025-11-09T12:00:00.000Z")

TEXT, GRAPHIC = 4.5, 3.0  # what WCAG 2.2 asks for, level AA
STATES = ("pending", "processing", "completed", "failed", "dead", "cancelled")
PAIRS = (
    *((name, ground, TEXT) for name in ("text", "muted") for ground in ("page", "panel", "sunk")),
    *((name, ground, TEXT) for name in (*STATES, "accent") for ground in ("page", "panel", "sunk")),
    ("on-accent", "accent", TEXT),
    ("on-lost", "lost", TEXT),
    *((name, ground, GRAPHIC) for name in ("edge", "focus") for ground in ("page", "panel")),
    *((name, ground, GRAPHIC) for name in ("up", "down") for ground in ("panel", "sunk")),
)


def colours(text: str) -> Dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_colours_have_contrast_in_light_and_dark() -> None:
    assert round(contrast("#ffffff", "#000000"), 1) == 21.0
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    for scheme in (colours(light), colours(dark.partition("\n}\n")[0])):
        assert set(scheme) == set(colours(light))
        for name, ground, least in PAIRS:
            found = contrast(scheme[name], scheme[ground])
            assert found >= least, f"{name} on {ground} has {found:.2f}"


def test_no_colour_is_used_that_has_no_name() -> None:
    rules = STYLE.partition("* { box-sizing")[2]
    # But for shadows.
    assert re.findall(r"#[0-9a-f]{3,8}\b", rules) == []
    used = set(re.findall(r"var\(--([\w-]+)\)", rules))
    assert used == set(colours(STYLE)) - {"color-scheme"}


def test_nothing_comes_from_elsewhere_and_nothing_is_inline() -> None:
    for name in NAMES:
        text = (STATIC / name).read_text(encoding="utf-8")
        namespaces = text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in namespaces, name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text
        ), name
        if name.endswith(".html"):
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", text)


def test_the_package_brings_all_of_it(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "-w", tmp_path, ROOT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("queuectl/web/static/")}
    assert inside == {f"queuectl/web/static/{name}" for name in NAMES}


def test_the_pictures_of_the_docs_are_there_and_small() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {
        (page.parent / name).resolve()
        for page in pages
        for name in re.findall(r"[\w/-]+\.png", page.read_text(encoding="utf-8"))
    }
    assert shown == set((ROOT / "docs").glob("*.png"))
    assert max(picture.stat().st_size for picture in shown) < 200_000


def test_what_totals_grow_by_belongs_to_a_minute() -> None:
    history = History()
    history.add(NOON, {"completed": 100, "failed": 7, "waited_ms": 5})
    history.add(NOON + 5, {"completed": 103, "failed": 7})
    history.add(NOON + 59, {"completed": 104, "failed": 8})
    history.add(NOON + 60, {"completed": 106, "failed": 8})
    told = history.told(NOON + 61)
    assert told["since"] == "2025-11-09T12:00:00.000Z"
    assert len(told["minutes"]) == 60
    assert told["minutes"][-2:] == [
        {"at": "2025-11-09T12:00:00.000Z", "completed": 4, "failed": 1},
        {"at": "2025-11-09T12:01:00.000Z", "completed": 2, "failed": 0},
    ]
    assert sum(minute["completed"] for minute in told["minutes"]) == 6


def test_an_hour_is_all_that_is_kept() -> None:
    history = History()
    for minute in range(200):
        history.add(NOON + minute * 60, {"completed": minute})
    assert len(history._minutes) == 60
    told = history.told(NOON + 199 * 60)
    assert {minute["completed"] for minute in told["minutes"]} == {1}
    assert {minute["completed"] for minute in history.told(NOON + 10**6)["minutes"]} == {0}


def test_a_store_that_is_made_anew_begins_from_nothing() -> None:
    history = History()
    history.add(NOON, {"completed": 50})
    history.add(NOON + 1, {})
    history.add(NOON + 2, {"completed": 2})
    assert history.told(NOON + 3)["minutes"][-1]["completed"] == 2
