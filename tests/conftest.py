"""The fixtures of all tests, and the guard that fails a test which leaves a process behind."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Callable, Dict, Iterator

import hypothesis
import pytest

import support
from cluster import cluster, own_cluster
from servers import machine_state, own_server, redis_server, redis_url
from test_store_tools import Disk, Sample, make_sample, new_disk

__all__ = ["cluster", "machine_state", "own_cluster", "own_server", "redis_server", "redis_url"]

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("queuectl", deadline=None, print_blob=True)
hypothesis.settings.load_profile("queuectl")

# A distribution of its own, which test_plugin.py installs.
collect_ignore = ["plugin"]

_FAILED = pytest.StashKey[bool]()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each core: a test spends half its time waiting for the processes that it watches."""
    return 2 * (os.cpu_count() or 1)


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
    before = support.children()

    def left() -> Dict[int, str]:
        own = {pid: line for pid, line in support.children().items() if pid not in before}
        # Helpers that multiprocessing starts once, and keeps.
        kept = [pid for pid, line in own.items() if "from multiprocessing." in line]
        own.update(support.processes(value))
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


@pytest.fixture
def cli(tmp_path: Path, mark: str) -> Iterator[support.Cli]:
    """The installed queuectl, on a store of this test's own."""
    tool = support.Cli(tmp_path, mark)
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
