"""Bad luck, as a person meets it: one line, the right exit code, and nothing changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import List

import pytest

from queuectl.store.journal import header_line
from support import Cli
from test_cli_support import complaint, failure, job_file, queue_of, run

COMMANDS = [
    ["enqueue", "x"],
    ["enqueue", "x", "--id", "new"],
    ["list"],
    ["show", "job"],
    ["dlq", "retry", "--all"],
]


def complaints(cli: Cli, code: int, *lines: List[str]) -> List[str]:
    """What these command lines fail with; the first is a process of its own."""
    first = complaint(cli.run(*lines[0], check=code).stderr)
    return [first, *(failure(cli, words, code) for words in lines[1:])]


def store_with_a_job(cli: Cli) -> bytes:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="job")
        run(queue)
    return job_file(cli)


def patched(cli: Cli, code: str) -> None:
    """Have this code run before each command."""
    cli.command = [sys.executable, "-c", f"{code}\nfrom queuectl.cli import main; main()"]
    cli.env["PYTHONPATH"] = os.pathsep.join(sys.path)


def test_an_id_of_a_finished_job_is_taken(cli: Cli) -> None:
    before = store_with_a_job(cli)
    said = complaint(cli.run("enqueue", "x", "--id", "job", check=1).stderr)
    assert said == "job 'job' exists already: choose another --id"
    assert job_file(cli) == before


def test_an_ambiguous_id_with_some_candidates(cli: Cli) -> None:
    with queue_of(cli) as queue:
        for number in range(9):
            queue.enqueue("x", id=f"many-{number}")
    said = complaint(cli.run("show", "many", check=1).stderr)
    assert said.startswith("job 'many' is ambiguous: ")
    assert len(set(re.findall(r"many-\d", said))) == 5


def test_a_store_that_others_can_write(cli: Cli) -> None:
    before = store_with_a_job(cli)
    cli.store.chmod(0o777)
    for said in complaints(cli, 3, *COMMANDS):
        assert said == f"store {cli.store} can be written by others: chmod go-w {cli.store}"
    assert job_file(cli) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_store_of_somebody_else(cli: Cli) -> None:
    before = store_with_a_job(cli)
    os.chown(cli.store, 12345, -1)
    for said in complaints(cli, 3, *COMMANDS):
        assert said == f"store {cli.store} belongs to user 12345: use your own"
    assert job_file(cli) == before


def test_a_store_that_is_no_folder(cli: Cli) -> None:
    cli.store.write_text("mine")
    for said in complaints(cli, 3, *COMMANDS):
        assert said == f"cannot open the store {cli.store}: it is not a folder"
    assert cli.store.read_text() == "mine"


def test_a_store_in_a_place_that_cannot_be(cli: Cli) -> None:
    (cli.folder / "file").write_text("")
    place = cli.folder / "file" / "store"
    for words in COMMANDS:
        assert str(place) in failure(cli, [*words, "--store", str(place)], 3)


def test_a_url_of_no_store(cli: Cli) -> None:
    said = complaint(cli.run("list", "--store", "nosuch://h/0", check=2).stderr)
    assert said.startswith("no store can be opened at nosuch:// URLs: queuectl stores")


def test_a_damaged_job_file(cli: Cli) -> None:
    data = bytearray(store_with_a_job(cli))
    at = data.index(b'"command":"x"')
    data[at + 11] = ord("y")
    (cli.store / "jobs.jsonl").write_bytes(data)
    for said in complaints(cli, 4, *COMMANDS[1:]):
        where = re.match(rf"store damaged: {cli.store}/jobs.jsonl at byte (\d+): ", said)
        assert where is not None
        assert int(where[1]) <= at
    assert "store damaged: " in cli.run("start", "--drain", check=4).stderr
    assert job_file(cli) == data


def test_a_job_file_that_is_missing(cli: Cli) -> None:
    store_with_a_job(cli)
    (cli.store / "jobs.jsonl").unlink()
    for said in complaints(cli, 4, *COMMANDS):
        file = f"{cli.store}/jobs.jsonl"
        assert said.startswith(f"store damaged: {file} at byte 0: the job file is missing")
    assert not (cli.store / "jobs.jsonl").exists()


def test_a_job_file_of_a_newer_format(cli: Cli) -> None:
    data = store_with_a_job(cli)
    header = json.loads(data.split(b"\n")[0])
    newer = header_line({**header, "queuectl": 2}).replace(b'{"queuectl":1,', b'{"queuectl":2,')
    (cli.store / "jobs.jsonl").write_bytes(newer + data.partition(b"\n")[2])
    for said in complaints(cli, 3, *COMMANDS):
        assert "newer" in said


def test_settings_that_do_not_parse(cli: Cli) -> None:
    before = store_with_a_job(cli)
    settings = cli.store / "settings.json"
    settings.write_text("{max_retries: 3}")
    for said in complaints(
        cli, 4, ["enqueue", "x"], ["config"], ["config", "set", "shell", "/bin/sh"]
    ):
        assert said.startswith(f"store damaged: {settings} at byte 1: ")
    assert settings.read_text() == "{max_retries: 3}"
    assert job_file(cli) == before


def test_output_that_cannot_be_read(cli: Cli) -> None:
    store_with_a_job(cli)
    with queue_of(cli) as queue:
        path = Path(queue.store.kept_output("job", 1))
    path.mkdir(parents=True)
    for said in complaints(cli, 3, ["logs", "job"], ["show", "job"]):
        assert said == f"cannot read {path}: it is not a file"
    shutil.rmtree(cli.store / "logs")
    (cli.store / "logs").write_text("")
    for said in complaints(cli, 3, ["logs", "job"], ["show", "job"]):
        assert said == f"cannot read {path}: Not a directory"


def test_a_store_that_stays_locked(cli: Cli) -> None:
    before = store_with_a_job(cli)
    patched(
        cli,
        "from queuectl.store.lock import StoreLock\n"
        "init = StoreLock.__init__\n"
        "StoreLock.__init__ = lambda self, path: init(self, path, 0.2)",
    )
    script = (
        "import fcntl, sys, time\n"
        "file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    holder = Cli(cli.folder, cli.mark)
    holder.command = [sys.executable, "-c", script]
    held = holder.spawn(cli.store / "jobs.lock")
    held.expect("locked")
    said = complaint(cli.run("enqueue", "x", check=75).stderr)
    assert said.startswith(f"store locked for over 0.2s by process {held.pid} (")
    cli.run("status", check=0)
    holder.close()
    assert job_file(cli) == before


def test_what_is_cut_off_is_told_in_a_line(cli: Cli) -> None:
    before = store_with_a_job(cli)
    (cli.store / "jobs.jsonl").write_bytes(before + b'{"id":"torn')
    cli.run("list", check=0)
    said = complaint(cli.run("enqueue", "x", check=0).stderr)
    assert said.startswith("cut an unfinished change, 11 bytes, off")
    assert len(cli.json("list")) == 2
