"""docs/python.md is true: its blocks are run, in order, on one store with a worker at hand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import queuectl
from queuectl.manager import QueueManager
from queuectl.newjob import NewJob
from starting import Queue
from support import Cli

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_its_blocks_work_one_after_the_other(cli: Cli) -> None:
    cli.store = cli.folder / "queuectl_data"
    Queue(cli).start("--quiet")
    assert len(BLOCKS) == 5
    for number, block in enumerate(BLOCKS):
        program = cli.folder / f"block{number}.py"
        program.write_text(block, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(program)],
            cwd=cli.folder,
            env=cli.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.slow
def test_its_blocks_are_typed(tmp_path: Path) -> None:
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"block{number}.py").write_text(block, encoding="utf-8")
    files = sorted(map(str, tmp_path.glob("*.py")))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *files], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()


def test_every_option_of_a_new_job_is_named() -> None:
    for name in NewJob._fields:
        assert f"`{name}`" in PAGE or name == "command", name


def test_every_method_of_the_queue_exists() -> None:
    named = set(re.findall(r"`(\w+)\(", PAGE)) - {"str", "to_dict", "open"}
    assert named <= set(dir(QueueManager)), named - set(dir(QueueManager))
    assert all(hasattr(queuectl, name) for name in re.findall(r"`(\w+Error)`", PAGE))
