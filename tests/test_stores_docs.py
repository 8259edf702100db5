"""docs/stores.md is true: it shows the plugin that the tests use, and names what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List

from queuectl import errors
from queuectl.store.base import Store
from queuectl.store.local import LocalStore
from queuectl.store.plain import PlainStore

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")
PLUGIN = ROOT / "tests" / "plugin"


class Begun(LocalStore, PlainStore):
    """What an author begins with."""


def blocks(language: str) -> List[str]:
    """The code of a language that the page shows."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def names(heading: str) -> List[str]:
    """What stands in the first cells of the tables below a heading."""
    section = re.split(rf"^## {heading}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


def test_what_it_shows_is_the_plugin() -> None:
    sources: Dict[str, List[str]] = {
        "python": [path.read_text(encoding="utf-8") for path in PLUGIN.glob("*.py")],
        "toml": [(PLUGIN / "pyproject.toml").read_text(encoding="utf-8")],
    }
    for language, texts in sources.items():
        assert blocks(language)
        for block in blocks(language):
            assert any(block in text for text in texts), block


def test_what_is_left_to_an_author_is_told() -> None:
    classes = [f"{kind.__module__}.{kind.__qualname__}" for kind in (PlainStore, LocalStore)]
    left = names("Where to begin")
    assert left[:2] == classes
    assert sorted(left[2:]) == sorted(Begun.__abstractmethods__)
    assert len(left[2:]) == 10


def test_whatever_looks_at_all_jobs_is_told() -> None:
    looking = {
        name
        for name, method in vars(PlainStore).items()
        if not name.startswith("_") and callable(method)
    }
    steps = {name for name in looking if name in PlainStore.__abstractmethods__}
    # What is built on others, or does nothing.
    changes = {"add", "save", "remove", "claim", "configure"}
    others = {"claimable", "current", "rules", "sync", "rewrite", "rewrite_due"}
    assert looking - steps - changes - others == set(names("What to make fast"))


def test_whatever_it_names_is_there() -> None:
    assert all(hasattr(errors, name) for name in names("What goes wrong"))
    assert all(hasattr(Store, name) for name in names("More than one machine"))
    for path in re.findall(r"\]\(\.\./([^)]+)\)", PAGE):
        assert (ROOT / path).exists(), path
    methods = [name for name in vars(Store) if not name.startswith("_")]
    assert 45 < len(methods) < 60
