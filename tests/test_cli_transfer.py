"""`export` and `import`: a queue comes back exactly, or not at all."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from dataclasses import replace
from random import Random
from typing import Any, Callable, Dict, List

import pytest

from queuectl import job as rules
from queuectl.errors import InvalidValueError, WrongStateError
from queuectl.job import SHOWN_FIELDS, Job
from queuectl.soundness import to_job
from queuectl.testing.common import NOW, new_job
from queuectl.testing.jobs import store_each_state
from queuectl.testing.memory import MemoryStore
from support import Cli
from test_cli_support import HOSTILE, complaint, failure, job_file, queue_of, run


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> List[Job]:
    """A job of each state, two of them pending."""
    return store_each_state(MemoryStore(str(tmp_path_factory.mktemp("memory"))))


def export(cli: Cli) -> List[str]:
    return cli.run("export", check=0).stdout.splitlines()


def write(cli: Cli, lines: List[str]) -> str:
    path = cli.folder / "export.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def fill(cli: Cli, jobs: List[Job]) -> None:
    with queue_of(cli) as queue:
        queue.store.add(jobs)
        queue.enqueue(HOSTILE, id="hostile", timeout=1.5, cwd="/tmp/ä \udcfe")
        queue.configure("max_retries", "7")


def test_a_queue_is_moved_through_a_pipe(cli: Cli, jobs: List[Job]) -> None:
    fill(cli, [job for job in jobs if job.worker is None])
    before = export(cli)
    queuectl = " ".join(map(str, cli.command))
    done = subprocess.run(
        ["sh", "-c", f"{queuectl} export | {queuectl} --store moved import -"],
        env=cli.environment(),
        cwd=cli.folder,
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stdout) == (0, "7 jobs imported\n"), done.stderr
    cli.store = cli.folder / "moved"
    assert export(cli) == before
    assert json.loads(before[0]) == {
        "format": "queuectl-export",
        "version": 1,
        "settings": {"max_retries": "7"},
        "jobs": 7,
    }
    assert [json.loads(line)["id"] for line in before[1:]][-1] == "hostile"
    assert all(list(json.loads(line)) == list(SHOWN_FIELDS) for line in before[1:])
    with queue_of(cli) as queue:
        assert [run(queue).id for _ in range(2)] == ["fail", "wait"]


def test_a_job_that_was_running_comes_back_as_interrupted(cli: Cli, jobs: List[Job]) -> None:
    fill(cli, [job for job in jobs if job.worker is not None])
    path = write(cli, export(cli))
    cli.store = cli.folder / "moved"
    cli.run("import", path, check=0)
    with queue_of(cli) as queue:
        job = queue.find("run")
    assert (job.state, job.attempts, job.runs, job.worker) == ("pending", 0, 1, None)
    assert job.interruptions == 1


def test_ids_that_are_taken_are_refused_or_passed_over(cli: Cli, jobs: List[Job]) -> None:
    fill(cli, jobs[:2])
    lines = export(cli)
    path = write(cli, lines)
    cli.store = cli.folder / "other"
    with queue_of(cli) as queue:
        queue.enqueue("mine", id="fail")
        queue.configure("max_retries", "5")
        queue.configure("shell", "/bin/bash")
    before = job_file(cli)
    assert failure(cli, ["import", path], 1) == "line 3: job 'fail' exists already"
    assert job_file(cli) == before
    done = cli.run("import", "--skip-existing", path, "--json", check=0)
    assert json.loads(done.stdout) == {"imported": 2, "skipped": 1}
    assert complaint(done.stderr) == "max_retries stays 5, as this store has it; exported was 7"
    with queue_of(cli) as queue:
        assert queue.find("fail").command == "mine"
        assert [job.id for job in queue.jobs()] == ["hostile", "complete", "fail"]
        assert queue.store.settings() == {"max_retries": "5", "shell": "/bin/bash"}
    assert cli.run("import", "--skip-existing", path, check=0).stdout == (
        "0 jobs imported, 3 passed over\n"
    )


BAD: Dict[str, Callable[[List[str]], List[str]]] = {
    "line 1: it is not the header of a queuectl export": lambda lines: [],
    "line 1: it is not the header": lambda lines: lines[1:],
    "line 1: it is not JSON": lambda lines: ["echo hello", *lines],
    "line 1: this queuectl does not know version 2": lambda lines: [
        lines[0].replace('"version": 1', '"version": 2')
    ],
    "line 1: this queuectl does not know version True": lambda lines: [
        lines[0].replace('"version": 1', '"version": true')
    ],
    "line 1: this queuectl does not know version 1.0": lambda lines: [
        lines[0].replace('"version": 1', '"version": 1.0')
    ],
    "the export is not whole: line 1 says True jobs, there are 1": lambda lines: [
        lines[0].replace('"jobs": 3', '"jobs": true'),
        lines[1],
    ],
    "line 2: rev is out of range": lambda lines: [
        lines[0],
        re.sub('"rev": [0-9]+', f'"rev": {(1 << 53) - 1}', lines[1]),
        lines[2],
    ],
    "line 3: interruptions is out of range": lambda lines: [
        *lines[:2],
        re.sub('"interruptions": [0-9]+', f'"interruptions": {1 << 52}', lines[2]),
    ],
    "line 1: bad value for max_retries": lambda lines: [lines[0].replace('"7"', '"x"')],
    "line 2: it is not JSON": lambda lines: [lines[0], lines[1][:-1], lines[2]],
    "line 3: it is not an object": lambda lines: [*lines[:2], "[]"],
    "line 3: 'cdw' is no field": lambda lines: [*lines[:2], lines[2].replace('"cwd"', '"cdw"')],
    "line 3: 'seq' is no field": lambda lines: [*lines[:2], lines[2].replace('"cwd"', '"seq"')],
    "line 3: state is missing": lambda lines: [
        *lines[:2],
        re.sub('"state": "\\w+", ', "", lines[2]),
    ],
    "line 4: it is not JSON": lambda lines: [*lines[:3], lines[3].replace("}", " " * (1 << 20))],
    "the export is not whole: line 1 says 3 jobs, there are 2": lambda lines: lines[:-1],
}


@pytest.mark.parametrize("why", BAD)
def test_bad_lines_are_named_and_nothing_is_changed(why: str, cli: Cli, jobs: List[Job]) -> None:
    fill(cli, jobs[:2])
    path = write(cli, BAD[why](export(cli)))
    cli.store = cli.folder / "other"
    assert failure(cli, ["import", path], 2).startswith(why)
    assert not cli.store.exists()


def test_an_id_on_two_lines_is_refused(cli: Cli, jobs: List[Job]) -> None:
    fill(cli, jobs[:2])
    lines = export(cli)
    path = write(cli, [*lines[:2], lines[1], *lines[3:]])
    assert failure(cli, ["import", path], 1) == "line 3: id 'complete' is also on line 2"


MISFITS: Dict[str, Dict[str, Any]] = {
    "state": {"state": "paused"},
    "id": {"id": "a b"},
    "command": {"command": " "},
    "attempts": {"attempts": 4},
    "type": {"attempts": True},
    "worker": {"worker": "w1"},
    "run_at": {"run_at": "2025-11-09T17:01:37.123Z"},
    "time": {"updated_at": "2025-11-09 17:01:37"},
    "started_at": {"started_at": None},
    "finished_at": {"finished_at": None},
    "cancel_requested": {"cancel_requested": True},
    "rev": {"rev": -1},
    "timeout": {"timeout": float("nan")},
    "cwd": {"cwd": "here"},
    "cwd of no bytes": {"cwd": "/\ud800"},
}


@pytest.mark.parametrize("changes", MISFITS.values(), ids=MISFITS)
def test_what_no_event_makes_is_no_job(changes: Dict[str, Any], jobs: List[Job]) -> None:
    with pytest.raises(InvalidValueError):
        to_job({**jobs[0].to_dict(), **changes})


def test_what_events_make_is_a_job(jobs: List[Job]) -> None:
    for job in jobs:
        assert to_job(job.to_dict()) == replace(job, seq=0)


def test_what_an_older_queuectl_did_not_know_may_be_missing(jobs: List[Job]) -> None:
    values = new_job("a").to_dict()
    del values["cancel_requested"], values["interruptions"]
    assert to_job(values) == new_job("a")


@pytest.mark.parametrize("seed", range(20))
def test_no_events_make_what_is_refused(seed: int) -> None:
    """Whatever happens to a job, in whatever order, it could be exported and imported."""
    random = Random(seed)
    job = new_job("a", max_retries=random.randrange(4))
    events: List[Callable[[Job], Job]] = [
        lambda job: rules.claim(job, "w1", NOW),
        lambda job: rules.claim(job, "w1", NOW),
        lambda job: rules.release(job, NOW),
        lambda job: rules.fail(job, NOW, "Exit code 1", 2, 1),
        lambda job: rules.rescue(job, NOW, 2),
        lambda job: rules.cancel(job, NOW),
        lambda job: rules.retry(job, NOW),
        lambda job: rules.complete(job, NOW) if random.random() < 0.1 else job,
    ]
    for _ in range(200):
        with contextlib.suppress(WrongStateError):
            job = random.choice(events)(job)
        assert to_job(job.to_dict()) == job


def test_settings_that_do_not_parse_stop_an_import_before_it_adds_jobs(
    cli: Cli, jobs: List[Job]
) -> None:
    fill(cli, jobs[:2])
    path = write(cli, export(cli))
    cli.store = cli.folder / "other"
    with queue_of(cli) as queue:
        queue.configure("max_retries", "5")
    (cli.store / "settings.json").write_text("{")
    assert "settings.json" in failure(cli, ["import", path], 4)
    with queue_of(cli) as queue:
        assert queue.counts().total == 0


def test_forms_of_what_import_says(cli: Cli, jobs: List[Job]) -> None:
    fill(cli, jobs[:2])
    path = write(cli, export(cli))
    terminal = cli.terminal("--store", "moved", "import", path)
    terminal.expect("📦 3 jobs imported\n")
    assert terminal.wait() == 0
    again = cli.terminal("--store", "moved", "import", "--skip-existing", path)
    again.expect("📦 0 jobs imported, 3 passed over\n")
    assert again.wait() == 0
    assert failure(cli, ["import", str(cli.folder / "none")], 2).startswith("cannot read ")
    assert failure(cli, ["import", str(cli.folder)], 2).startswith("cannot read ")


def test_an_export_at_a_terminal_is_harmless(cli: Cli) -> None:
    fill(cli, [])
    terminal = cli.terminal("export")
    assert terminal.wait() == 0
    assert [json.loads(line) for line in terminal.raw.splitlines()] == [
        json.loads(line) for line in export(cli)
    ]
    assert "\x1b" not in terminal.raw


def test_a_setting_that_is_not_known_here_is_passed_over(cli: Cli) -> None:
    cli.run("config", "set", "max_retries", "7", check=0)
    lines = cli.run("export", check=0).stdout.replace("max_retries", "max_retires")
    done = cli.run("--store", "moved", "import", "-", input=lines, check=0)
    assert "setting max_retires is passed over: this queuectl does not know it" in done.stderr


def test_what_cannot_be_imported_leaves_the_settings_alone(cli: Cli) -> None:
    cli.run("enqueue", "true", "--id", "taken", check=0)
    lines = cli.run("export", check=0).stdout.replace(
        '"settings": {}', '"settings": {"max_retries": "7"}'
    )
    assert '"7"' in lines
    cli.run("import", "-", input=lines, check=1)
    assert cli.run("config", "get", "max_retries", check=0).stdout.split()[-1] == "3"


def test_jobs_wait_for_each_other_where_they_are_brought(cli: Cli) -> None:
    """Also for those that were there before, by their ids; and a queue keeps its rule."""
    cli.run("enqueue", "true", "--id", "first", "--quiet", check=0)
    cli.run("enqueue", "true", "--id", "next", "--after", "first", "--quiet", check=0)
    words = ("--after", "next", "--after-any", "first", "--queue", "q", "--env", "A=secret")
    cli.run("enqueue", "true", "--id", "last", *words, "--quiet", check=0)
    cli.run("queue", "set", "q", "--concurrency", "1", check=0)
    exported = cli.run("export", check=0).stdout
    (cli.folder / "export").write_text(exported)
    other = ("--store", str(cli.folder / "other"))
    cli.run(*other, "enqueue", "false", "--id", "first", "--quiet", "--max-retries", "1", check=0)
    cli.run(*other, "import", "--skip-existing", "export", check=0)
    assert "until job first completes" in cli.run(*other, "show", "next", check=0).stdout
    assert "q\tactive\t1\t" in cli.run(*other, "queue", "list", check=0).stdout
    cli.run(*other, "start", "--drain", "--quiet", check=0)
    states = {job["id"]: job["state"] for job in cli.json(*other, "list")}
    assert states == {"first": "dead", "next": "pending", "last": "pending"}
    assert "secret" in cli.run(*other, "show", "last", "--reveal", check=0).stdout
    cli.run(*other, "edit", "first", "--command", "true", check=0)
    cli.run(*other, "dlq", "retry", "first", check=0)
    cli.run(*other, "start", "--drain", "--quiet", check=0)
    assert {job["state"] for job in cli.json(*other, "list")} == {"completed"}
    assert cli.run(*other, "doctor", check=0).stdout == ""
