"""The examples of docs/python.md run, one after the other on one store, and are fully typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import queuectl
from support import Cli

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

PRINTED = [
    "pending\n",
    "3\n",
    "ship after build\nship no_worker \nship echo shipped\n5\n",
    "1\n",
    "['cancelled'] 0\n1\n",
    "ship completed 0\njoin completed 0\nall\n\n",
    """\
job 'build' exists already: choose another --id
job 'no-such-job' not found
job 'build' is completed: it cannot be cancelled
""",
]


def test_examples_print_what_they_should(cli: Cli) -> None:
    assert len(EXAMPLES) == len(PRINTED)
    for example, wanted in zip(EXAMPLES, PRINTED):
        if "queue.wait(" in example:
            cli.run("--store", cli.folder / "queue", "start", "--drain", check=0)
        done = subprocess.run(
            [sys.executable, "-c", example],
            env=cli.environment(),
            cwd=cli.folder,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert (done.returncode, done.stdout) == (0, wanted), example


@pytest.mark.slow
def test_examples_are_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    paths = [tmp_path / f"example_{number}.py" for number in range(len(EXAMPLES))]
    for path, example in zip(paths, EXAMPLES):
        path.write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", *paths],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout


def test_every_error_is_on_the_page() -> None:
    errors = [name for name in queuectl.__all__ if name.endswith("Error")]
    assert [name for name in errors if f"`{name}`" not in PAGE] == []
