"""A store of others: a distribution of its own, in `plugin/`, is installed and used for real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from queuectl.job import JobState
from queuectl.testing import jobs as contract_of_jobs
from queuectl.testing.common import NOW, new_job
from support import Cli
from test_cli_support import complaint, queue_of

PLUGIN = Path(__file__).resolve().parent / "plugin"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the plugin is installed, from a copy, for building leaves things."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    words = "install --quiet --no-index --no-deps --no-build-isolation --target"
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words.split(), str(folder / "site"), str(folder / "source")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def sqlite(cli: Cli, site: Path) -> str:
    """The URL of a store that is not there yet, which the commands of the test use."""
    cli.env["PYTHONPATH"] = str(site)
    cli.env["QUEUECTL_STORE"] = f"sqlite://{cli.folder}/queue"
    return str(cli.env["QUEUECTL_STORE"])


def run_suite(cli: Cli, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in a folder as an author would, with nothing of ours but what is installed."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        env=cli.environment(),
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("sqlite")
def test_it_passes_the_contract(cli: Cli, tmp_path: Path) -> None:
    shutil.copy(PLUGIN / "test_sqlite.py", tmp_path)
    done = run_suite(cli, tmp_path, f"--basetemp={tmp_path}/stores")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^[0-9]{3} passed, 8 skipped in ", done.stdout, re.MULTILINE), done.stdout


def test_who_fails_the_contract_is_told_why(cli: Cli, tmp_path: Path) -> None:
    """What was expected and what was there, as by assert in tests of their own."""
    (tmp_path / "test_wrong.py").write_text(
        "import pytest\n"
        "from queuectl.testing import StoreContract\n"
        "from queuectl.testing.common import add\n"
        "class TestWrong(StoreContract):\n"
        "    @pytest.fixture\n"
        "    def url(self, tmp_path):\n"
        "        return str(tmp_path / 'queue')\n"
        "    @pytest.fixture\n"
        "    def store(self, reopen):\n"
        "        add(reopen(), 'unexpected')\n"
        "        return reopen()\n"
    )
    done = run_suite(cli, tmp_path, "-k", "empty_store", f"--basetemp={tmp_path}/stores")
    assert done.returncode == 1, done.stdout
    assert "assert Job(id='unexpected'" in done.stdout


def test_the_commands_work_on_it(cli: Cli, sqlite: str) -> None:
    assert ["sqlite", "queuectl-sqlite 1.0", "ready", ""] in [
        line.split("\t") for line in cli.run("stores", check=0).stdout.splitlines()
    ]
    assert complaint(cli.run("list", check=3).stderr).startswith(f"no store at {cli.folder}/queue")
    done = cli.run("enqueue", "echo hello", "--id", "hello", check=0)
    assert f"queuectl: created store {sqlite}\n" == done.stderr
    for number in range(20):
        cli.run("enqueue", f"echo {number} >> {cli.folder}/ran", check=0)
    cli.run("enqueue", "exit 3", "--id", "fails", "--max-retries", "1", check=0)
    cli.run("enqueue", "true", "--id", "child", "--after", "hello", "--priority", "9", check=0)
    cli.run("enqueue", "kill -9 $PPID", "--id", "kills", "--max-retries", "1", check=0)
    cli.run("enqueue", "true", "--id", "later", "--delay", "1d", check=0)
    cli.run("config", "set", "keep_finished", "none", check=0)
    cli.run("--store", sqlite, "start", "--count", "2", "--drain", check=0)
    assert sorted(map(int, (cli.folder / "ran").read_text().split())) == list(range(20))
    assert cli.run("logs", "hello", check=0).stdout == "hello\n"
    states = {job["id"]: job["state"] for job in cli.json("list", "--all")}
    assert len(states) == 25
    assert [states[name] for name in ("hello", "child", "fails", "kills", "later")] == [
        "completed", "completed", "dead", "dead", "pending"
    ]  # fmt: skip
    assert cli.json("show", "kills")["last_error"] == "Worker died"
    status = cli.json("status")
    assert (status["completed"], status["lifetime"]["completed"], status["scheduled"]) == (
        22,
        22,
        1,
    )
    assert status["store"] == sqlite
    cli.run("dlq", "purge", "--all", check=0)
    assert len(cli.json("list", "--all")) == 23


def test_of_many_who_work_on_it_each_job_has_one(cli: Cli, sqlite: str) -> None:
    """Also while others enqueue."""
    line = f"echo $QUEUECTL_JOB_ID >> {cli.folder}/ran\n"
    for name in ("jobs", "more"):
        (cli.folder / name).write_text(line * 60)
    cli.run("enqueue", "--file", cli.folder / "jobs", "--quiet", check=0)
    starts = [cli.spawn("start", "--count", "3", "--drain") for _ in range(2)]
    cli.run("enqueue", "--file", cli.folder / "more", "--quiet", check=0)
    for number in range(5):
        cli.run("enqueue", line.strip(), "--id", f"one{number}", check=0)
    for start in starts:
        start.finish(0)
        assert start.err == ""
    cli.run("start", "--drain", check=0)
    ran = (cli.folder / "ran").read_text().split()
    assert len(ran) == len(set(ran)) == 125
    assert cli.json("status")["completed"] == 125


def test_a_running_start_is_told_and_notices_what_happens(cli: Cli, sqlite: str) -> None:
    cli.run("enqueue", "true", "--id", "first", check=0)
    start = cli.spawn("start", "--count", "1")
    start.expect(r"Job completed: true \(first")
    cli.run("enqueue", "sleep 60", "--id", "long", check=0)
    cli.run("enqueue", "queuectl enqueue true --id inner", "--id", "outer", check=0)
    cli.run("cancel", "long", check=0)
    start.expect(r"Job completed: true \(inner")
    assert cli.json("status")["workers"][0]["pid"]
    shutil.rmtree(cli.folder / "queue")
    start.finish(3)
    assert "was removed while in use" in start.err


@pytest.mark.parametrize("harm", ["cut", "other bytes"])
def test_what_is_damaged_is_said(harm: str, cli: Cli, sqlite: str) -> None:
    cli.run("enqueue", "true", check=0)
    path = cli.folder / "queue" / "jobs.sqlite"
    data = path.read_bytes()
    path.write_bytes(data[:5000] if harm == "cut" else b"x" * len(data))
    said = complaint(cli.run("list", check=4).stderr)
    assert said.startswith(f"store damaged: {path}")


def test_urls_and_folders_that_are_refused(cli: Cli, sqlite: str) -> None:
    said = complaint(cli.run("--store", "sqlite://queue", "enqueue", "true", check=2).stderr)
    assert said.startswith("sqlite://queue names no absolute path")
    (cli.folder / "queue").mkdir()
    (cli.folder / "queue").chmod(0o777)
    assert "can be written by others" in complaint(cli.run("enqueue", "true", check=3).stderr)


def exported(cli: Cli, store: str) -> List[str]:
    """What `export` says of a store."""
    return cli.run("--store", store, "export", check=0).stdout.splitlines()


def test_a_queue_moves_there_and_back_with_nothing_lost(cli: Cli, sqlite: str) -> None:
    """Every field of jobs in every state, who follows whom, the settings and the rules."""
    with queue_of(cli) as queue:
        for job in contract_of_jobs.store_each_state(queue.store):
            if job.state == JobState.PROCESSING:
                queue.store.save([queue.conclude(job, "Exit code 1", 1)])
        for number, command in enumerate(contract_of_jobs.AWKWARD):
            queue.store.add([new_job(f"awkward{number}", command, cwd="/tmp/ä \udcfe")])
        queue.enqueue(
            "x", id="all", max_retries=7, priority=-3, queue="q", timeout=1.5, unique="ä 🚀",
            labels=["a", "b"], env={"A": "\udcff", "B": ""}, shell="/bin/bash", backoff_base=1.5,
            backoff_max=86400.0, success_codes=[0, 3], no_retry_on=[9], run_at=NOW + 1e9,
        )  # fmt: skip
        queue.enqueue("x", id="child", after=["all", "wait"], after_any=["later"])
        queue.store.configure({"max_retries": "9", "on_dead": "echo \udcff 'ä'"})
        queue.set_queue("q", concurrency=2, paused=True)
    origin = exported(cli, str(cli.store))
    assert len(origin) == 1 + json.loads(origin[0])["jobs"] == 18
    places = [str(cli.store), sqlite, str(cli.folder / "back")]
    for place, next_place in zip(places, places[1:]):
        backup = cli.folder / "backup.jsonl"
        backup.write_text("\n".join(exported(cli, place)) + "\n")
        cli.run("--store", next_place, "import", backup, check=0)
        assert exported(cli, next_place) == origin
    for store in places[1:]:
        show = cli.json("--store", store, "show", "child")
        assert {(why["kind"], why["what"]) for why in show["waiting_for"]} >= {
            ("after", "all"), ("after", "wait"), ("after_any", "later")
        }  # fmt: skip
        assert cli.run("--store", store, "enqueue", "x", "--unique", "ä 🚀", check=0)
        assert len(exported(cli, store)) == len(origin)
