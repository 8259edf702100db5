"""What Prometheus is told: its text, and the command that prints it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict

import pytest
from prometheus_client.parser import text_string_to_metric_families

import queuectl
from queuectl import QueueManager, totals
from queuectl.metrics import Measures, measure
from queuectl.store.base import Counts
from queuectl.store.journal import Journal, commit_line
from queuectl.web.exposition import exposition
from support import Cli

NOTHING = Measures({"default": Counts()}, 0, {}, 0.0, 0, 0, None)


def samples(text: str) -> Dict[str, float]:
    """Read the text as Prometheus does."""
    found: Dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            name = sample.name + (f"{{{labels}}}" if labels else "")
            assert name not in found
            found[name] = sample.value
    assert text.endswith("\n")
    return found


def test_a_queue_of_which_nothing_is_known_has_all_metrics() -> None:
    found = samples(exposition(NOTHING))
    assert found[f'queuectl_build_info{{version="{queuectl.__version__}"}}'] == 1
    assert found['queuectl_jobs{queue="default",state="dead"}'] == 0
    assert found["queuectl_attempts_failed_total"] == 0
    assert found['queuectl_job_running_seconds_bucket{le="+Inf"}'] == 0
    assert "queuectl_store_size_bytes" not in found


def test_nothing_else_is_told() -> None:
    """Neither of this process, which is none that runs jobs, nor when a counter was made."""
    names = {family.name for family in text_string_to_metric_families(exposition(NOTHING))}
    assert all(name.startswith("queuectl_") for name in names)
    assert not any(name.endswith("_created") for name in names)


def test_promtool_finds_nothing_to_say_against_it(cli: Cli) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    cli.run("enqueue", "true", "--queue", "q", check=0)
    for text in (exposition(NOTHING), cli.run("metrics", check=0).stdout):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_writes_it_is_named_where_it_is_missing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('none')\n")
    env = {"PYTHONPATH": str(tmp_path)}
    cli.run("enqueue", "true", check=0)
    error = cli.run("metrics", env=env, check=1).stderr
    assert error == 'queuectl: metrics needs more: pip install "queuectl[web]"\n'
    assert json.loads(cli.run("metrics", "--json", env=env, check=0).stdout)["enqueued"] == 1


def test_buckets_hold_what_is_below_them() -> None:
    told = {"waited:0": 2, "waited:3": 1, "waited:10": 4, "waited_ms": 1_234_567}
    found = samples(exposition(NOTHING._replace(totals=told)))
    buckets = [v for k, v in found.items() if k.startswith("queuectl_job_waiting_seconds_bucket")]
    assert buckets == [2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 7]
    assert found['queuectl_job_waiting_seconds_bucket{le="0.1"}'] == 2
    assert found['queuectl_job_waiting_seconds_bucket{le="1800"}'] == 3
    assert found["queuectl_job_waiting_seconds_count"] == 7
    assert found["queuectl_job_waiting_seconds_sum"] == 1234.567


def test_the_command_tells_what_became_of_jobs(cli: Cli, tmp_path: Path) -> None:
    for command, options in (("true", []), ("exit 3", ["--max-retries", "1"])):
        cli.run("enqueue", command, *options, check=0)
    cli.run("enqueue", "true", "--queue", "later", "--delay", "1h", check=0)
    cli.run("start", "--drain", "--queue", "default", check=0)
    cli.run("dlq", "purge", "--all", check=0)
    found = samples(cli.run("metrics", check=0).stdout)
    assert {name: value for name, value in found.items() if value and "bucket" not in name} == {
        f'queuectl_build_info{{version="{queuectl.__version__}"}}': 1,
        'queuectl_jobs{queue="default",state="completed"}': 1,
        'queuectl_jobs{queue="later",state="pending"}': 1,
        "queuectl_jobs_enqueued_total": 3,
        "queuectl_jobs_completed_total": 1,
        "queuectl_jobs_dead_total": 1,
        "queuectl_attempts_failed_total": 1,
        "queuectl_job_waiting_seconds_count": 2,
        "queuectl_job_waiting_seconds_sum": found["queuectl_job_waiting_seconds_sum"],
        "queuectl_job_running_seconds_count": 2,
        "queuectl_job_running_seconds_sum": found["queuectl_job_running_seconds_sum"],
        "queuectl_store_size_bytes": os.path.getsize(cli.store / "jobs.jsonl"),
    }
    told = json.loads(cli.run("metrics", "--json", check=0).stdout)
    assert (told["enqueued"], told["totals"]["completed"], told["workers"]) == (3, 1, 0)
    assert told["queues"]["later"]["delayed"] == 1


def test_the_file_is_replaced_as_a_whole(cli: Cli, tmp_path: Path) -> None:
    cli.run("enqueue", "true", check=0)
    path = tmp_path / "queuectl.prom"
    path.write_text("old")
    with path.open() as before:
        assert cli.run("metrics", "--output", str(path), check=0).stdout == ""
        assert before.read() == "old"
    assert samples(path.read_text())["queuectl_jobs_enqueued_total"] == 1
    assert path.stat().st_mode & 0o077 == 0o666 & ~_umask() & 0o077
    assert [name.name for name in tmp_path.glob("queuectl.prom*")] == ["queuectl.prom"]


def test_a_file_that_cannot_be_written_is_named(cli: Cli, tmp_path: Path) -> None:
    cli.run("enqueue", "true", check=0)
    path = tmp_path / "none" / "queuectl.prom"
    error = cli.run("metrics", "--output", str(path), check=3).stderr
    assert error == f"queuectl: cannot write {path}: No such file or directory\n"
    error = cli.run("metrics", "--json", "--output", str(path), check=2).stderr
    assert "--output has no JSON form" in error


def test_the_oldest_job_is_known_by_how_long_it_waits(tmp_path: Path) -> None:
    with QueueManager.open(str(tmp_path / "q")) as manager:
        assert measure(manager).oldest == 0
        manager.enqueue("true", run_at=manager.store.now() - 600)
        manager.enqueue("true", run_at=manager.store.now() + 600)
        assert 0 <= measure(manager).oldest < 60


def test_a_store_that_was_made_before_counts_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with QueueManager.open(str(path)) as manager:
        manager.enqueue("true")
    file = path / "jobs.jsonl"
    journal = Journal(str(file))
    last = journal.tail()
    journal.close()
    data = file.read_bytes()[: last.start]
    del last.meta["lifetime"]
    (path / "jobs.jsonl").write_bytes(data + commit_line(last.number, last.meta, _crc(data)))
    with QueueManager.open(str(path)) as manager:
        assert manager.store.totals() == {"completed": 0}
        (job,) = manager.jobs()
        manager.cancel([job.id])
        assert manager.store.totals() == {"completed": 0, "cancelled": 1}


def test_scripts_have_the_same_buckets() -> None:
    script = Path(queuectl.__file__).parent / "store" / "redis" / "common.lua"
    match = re.search(r"local BOUNDS = \{([\d, ]+)\}", script.read_text())
    assert match is not None
    assert tuple(map(int, match[1].split(","))) == totals.BOUNDS


@pytest.mark.slow
def test_a_scrape_reads_only_what_is_new(tmp_path: Path) -> None:
    """However many jobs there are, once they were looked at."""
    from queuectl.newjob import NewJob

    with QueueManager.open(str(tmp_path / "q")) as manager:
        for _ in range(10):
            manager.enqueue_many([NewJob("true", queue=f"q{n % 3}") for n in range(10_000)])
        first = measure(manager)
        assert {name: counts.pending for name, counts in first.queues.items()} == {
            "default": 0, "q0": 33_340, "q1": 33_330, "q2": 33_330,
        }  # fmt: skip
        begun = os.times().user
        for number in range(10):
            manager.enqueue("true")
            assert measure(manager).queues["default"].pending == number + 1
        assert (os.times().user - begun) / 10 < 0.05


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _crc(data: bytes) -> int:
    from zlib import crc32

    return crc32(data)
