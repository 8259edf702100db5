"""verify_all.py passes on what works, and of what is broken it names the one feature that is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from support import Cli

ROOT = Path(__file__).resolve().parent.parent

# For each line of the report a wrapper's body, which spoils that feature: `real` runs the real
# command.
SPOILERS = {
    "Job Enqueue": 'case "$*" in enqueue\\ --file*) real "$@" ;; enqueue*) echo "{}" ;; *) real "$@" ;; esac',
    "Status Command": 'case $1 in status) real "$@" | sed "s/1/2/g" ;; *) real "$@" ;; esac',
    "List Command": 'case $1 in list) real "$@" --limit 1 ;; *) real "$@" ;; esac',
    "Configuration": 'case $1 in config) exit 0 ;; *) real "$@" ;; esac',
    "DLQ Commands": 'case "$1 $2" in "dlq retry") exit 0 ;; *) real "$@" ;; esac',
    "Multiple Job Types": 'case $1 in enqueue) sed "s/ | / ; /" | real "$@" ;; *) real "$@" ;; esac',
    "Worker Pool": 'case "$1 $2" in "start --count") shift 3; real start --count 1 "$@" ;; *) real "$@" ;; esac',
    "Retry With Backoff": '[ "$QUEUECTL_BACKOFF_BASE" = 1.2 ] && export QUEUECTL_BACKOFF_BASE=0; real "$@"',
    "Crash Recovery": (
        'case $1 in enqueue) sed \'/"crash"/s/"max_retries": 2/"max_retries": 1/\' | real "$@" ;; '
        '*) real "$@" ;; esac'
    ),
    "Graceful Shutdown": 'export QUEUECTL_SHUTDOWN_GRACE=0.001; real "$@"',
}

# Those that can be broken at once, as each spoils what no other of its group uses.
GROUPS = [
    ["Job Enqueue", "Status Command", "DLQ Commands", "Worker Pool", "Graceful Shutdown"],
    ["List Command", "Configuration", "Multiple Job Types", "Retry With Backoff", "Crash Recovery"],
]


def verify(cli: Cli, path: str) -> subprocess.CompletedProcess[str]:
    environ: Dict[str, str] = {**cli.environment(), "PATH": path}
    return subprocess.run(
        [sys.executable, str(ROOT / "verify_all.py")],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def lines(report: str, verdict: str) -> List[str]:
    return [
        line[2:].split(" - ")[0].strip()
        for line in report.splitlines()
        if line.endswith(f"- {verdict}")
    ]


@pytest.mark.slow
def test_all_pass(cli: Cli) -> None:
    done = verify(cli, cli.environment()["PATH"])
    report = done.stdout.splitlines()
    assert report[0] == "🎯 COMPREHENSIVE QUEUECTL VERIFICATION"
    assert "✅ Job Enqueue        - PASS" in report
    assert lines(done.stdout, "PASS") == list(SPOILERS)
    assert report[-1] == "🎉 ALL FEATURES VERIFIED SUCCESSFULLY!"
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "features",
    GROUPS,
    ids=", ".join,
)
def test_broken_features_fail_their_lines_only(cli: Cli, features: List[str]) -> None:
    path = cli.environment()["PATH"]
    real = str(shutil.which("queuectl", path=path))
    # Each calls the one before.
    for feature in features:
        folder = cli.folder / feature.replace(" ", "-")
        folder.mkdir()
        real = write_wrapper(folder / "queuectl", SPOILERS[feature], real)
    done = verify(cli, f"{os.path.dirname(real)}{os.pathsep}{path}")
    assert lines(done.stdout, "FAIL") == [
        name for name in SPOILERS if name in features
    ], done.stdout
    assert lines(done.stdout, "PASS") == [name for name in SPOILERS if name not in features]
    assert done.returncode == 1


def write_wrapper(wrapper: Path, body: str, real: str) -> str:
    # exec where nothing follows, so that signals sent to the wrapper reach the command.
    if not body.startswith("case"):
        body = body.replace('real "$@"', f'exec {real} "$@"')
    body = body.replace('*) real "$@"', f'*) exec {real} "$@"')
    wrapper.write_text(f'#!/bin/bash\nreal() {{ {real} "$@"; }}\n{body}\n', encoding="utf-8")
    wrapper.chmod(0o755)
    return str(wrapper)


def test_each_feature_is_broken_once() -> None:
    assert sorted(name for group in GROUPS for name in group) == sorted(SPOILERS)
