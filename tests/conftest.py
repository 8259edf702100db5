"""The fixtures of all tests, and the guard that fails a test which leaves a process behind."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import hypothesis
import pytest

import support
from cluster import cluster, own_cluster
from forking import Commands
from servers import machine_state, own_server, redis_server, redis_url
from test_store_tools import Disk, Sample, make_sample, new_disk

__all__ = ["cluster", "machine_state", "own_cluster", "own_server", "redis_server", "redis_url"]

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("queuectl", deadline=None, print_blob=True)
hypothesis.settings.load_profile("queuectl")

# A distribution of its own, which test_plugin.py installs.
collect_ignore = ["plugin"]

_FAILED = pytest.StashKey[bool]()


# Else each process that runs tests compiles them all, which takes longer than all else before them.
sys.dont_write_bytecode = False


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three for each core: a test spends most of its time waiting for those whom it watches."""
    return 3 * (os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Side by side, let who has run his tests take over from others, so that all end at once."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Side by side, begin with what takes longest, which nobody then waits for in the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(autouse=True)
def mark(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test's mark, by which the processes that it started are known.

    When the test ends, they must have ended, and so must the children that it forked. A test that
    failed is not blamed for those too: they are only killed.
    """
    value = uuid.uuid4().hex
    before = frozenset(support.all_pids())

    def left() -> Dict[int, str]:
        own = support.children(but=before)
        # Helpers that multiprocessing starts once, and keeps.
        kept = [pid for pid, line in own.items() if "from multiprocessing." in line]
        own.update(support.processes(value, but=before))
        return {pid: line for pid, line in own.items() if pid not in kept}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(support.MARK, value)
        yield value
    try:
        # What is about to end may do so.
        support.wait_until(lambda: not left(), timeout=1.0)
    except AssertionError:
        leftovers = left()
        support.kill(leftovers)
        if leftovers and not request.node.stash.get(_FAILED, False):
            names = "\n".join(f"  {pid}: {line}" for pid, line in leftovers.items())
            pytest.fail(f"processes left behind:\n{names}", pytrace=False)


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Optional[Commands]]:
    """Runs commands that need no Python of their own; not where each of them is measured."""
    if not support.HAS_PROC or any(name.startswith("COVERAGE_PROCESS") for name in os.environ):
        yield None
        return
    environ = support.Cli(tmp_path_factory.getbasetemp(), "").environment({support.MARK: None})
    with contextlib.closing(Commands(support.PYTHON, environ)) as commands:
        yield commands


@pytest.fixture
def cli(tmp_path: Path, commands: Optional[Commands], mark: str) -> Iterator[support.Cli]:
    """The installed queuectl, on a store of this test's own."""
    tool = support.Cli(tmp_path, mark, commands)
    yield tool
    tool.close()


@pytest.fixture
def terminal(cli: support.Cli) -> Callable[..., support.Terminal]:
    """Starts queuectl, or another `program`, at a terminal: `support.Cli.terminal`."""
    return cli.terminal


@pytest.fixture
def disk() -> Iterator[Disk]:
    """The folder of a file store that does not exist yet."""
    with new_disk() as disk:
        yield disk


@pytest.fixture(scope="session")
def sample() -> Sample:
    """A job file with one of each kind of commit, and what it held after each."""
    return make_sample()
