"""`doctor`: what a person, a pipe and a program are told, and with which exit code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List

import pytest

from queuectl.store.journal import header_line
from support import Cli
from test_cli_support import complaint, failure, job_file, queue_of


def fill(cli: Cli) -> None:
    with queue_of(cli) as queue:
        for job_id in "abc":
            queue.enqueue("true", id=job_id, cwd="/")


def spoil(cli: Cli) -> int:
    """Spoil the line of the job b; return where its commit begins."""
    data = bytearray(job_file(cli))
    at = data.index(b'{"id":"b"')
    data[at + 60] ^= 0x80
    (cli.store / "jobs.jsonl").write_bytes(data)
    return at


def tree(path: Path) -> Dict[str, Any]:
    """What is in a folder: names, modes and bytes."""
    return {
        str(each): (each.lstat().st_mode, each.read_bytes() if each.is_file() else b"")
        for each in [path, *path.rglob("*")]
    }


def test_a_sound_store(cli: Cli) -> None:
    fill(cli)
    before = tree(cli.store)
    for words in (["doctor"], ["doctor", "--repair"]):
        assert cli.run(*words, check=0).stdout == ""
    assert cli.json("doctor") == {"ok": True, "store": str(cli.store), "findings": []}
    found = cli.json("doctor", "--repair")
    assert (found["ok"], found["copy"], found["lost"]) == (True, None, [])
    terminal = cli.terminal("doctor", "--repair")
    assert terminal.wait() == 0
    assert terminal.text == f"📁 Store: {cli.store}\n✅ The store is sound; nothing was changed\n"
    assert tree(cli.store) == before


def test_damage_is_named_and_left_alone(cli: Cli) -> None:
    fill(cli)
    at = spoil(cli)
    before = tree(cli.store)
    said = complaint(cli.run("list", check=4).stderr)
    assert said.endswith("; see queuectl doctor")
    done = cli.run("doctor", check=4)
    path = f"{cli.store}/jobs.jsonl"
    assert done.stdout == f"damage\t{path}\t{at}\tcommit 2 is damaged (b)\n"
    assert done.stderr == ""
    found = json.loads(cli.run("doctor", "--json", check=4).stdout)
    assert found["ok"] is False
    assert found["findings"] == [
        {
            "level": "damage",
            "file": path,
            "offset": at,
            "message": "commit 2 is damaged",
            "ids": ["b"],
        }
    ]
    terminal = cli.terminal("doctor", columns=200)
    assert terminal.wait() == 4
    assert terminal.text.splitlines() == [
        f"📁 Store: {cli.store}",
        f"🔴 {path} at byte {at}: commit 2 is damaged (b)",
        "💀 The store is damaged: queuectl doctor --repair keeps what is whole",
    ]
    assert tree(cli.store) == before


def test_a_repair_tells_what_was_lost(cli: Cli) -> None:
    fill(cli)
    at = spoil(cli)
    damaged = job_file(cli)
    done = cli.run("doctor", "--repair", check=0)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [each[0] for each in rows] == ["damage", "copy", "lost"]
    assert rows[0][2] == str(at)
    assert rows[2][3] == "b"
    assert (Path(rows[1][1]) / "jobs.jsonl").read_bytes() == damaged
    assert Path(rows[1][1]).parent == cli.store
    assert [job["id"] for job in cli.json("list")] == ["c", "a"]
    assert cli.run("doctor", check=0).stdout.startswith("note\t")
    cli.run("enqueue", "true", "--id", "b", check=0)
    cli.run("start", "--drain", "--quiet", check=0)
    assert cli.json("status")["completed"] == 3


def test_a_repair_at_a_terminal_and_as_json(cli: Cli) -> None:
    fill(cli)
    spoil(cli)
    terminal = cli.terminal("doctor", "--repair", columns=200, env={"PYTHONIOENCODING": "ascii"})
    assert terminal.wait() == 0
    lines = terminal.text.splitlines()
    assert lines[2].startswith(f"Copy of the store as it was: {cli.store}/before-repair-")
    assert lines[3:] == ["1 job lost (b)", "The store is repaired"]
    data = job_file(cli)
    (cli.store / "jobs.jsonl").write_bytes(data.replace(b'"id":"c"', b'"id":"\x00"'))
    found = json.loads(cli.run("doctor", "--repair", "--json", check=0).stdout)
    assert (found["ok"], found["unnamed"], found["left"]) == (True, 1, [])
    assert os.path.isdir(found["copy"])


def test_a_repair_tells_how_many_commits_are_missing(cli: Cli) -> None:
    fill(cli)
    whole = job_file(cli)
    for text, what in (
        ("nothing is left of 1 commit: what it changed is lost", b'{"id":"c"'),
        ("nothing is left of 2 commits: what they changed is lost", b'{"id":"b"'),
    ):
        (cli.store / "jobs.jsonl").write_bytes(whole[: whole.index(what)])
        boot = cli.store / "jobs.boot"
        boot.write_text(f"{boot.read_text().split()[0]} {3:016d}\n")
        done = cli.run("doctor", "--repair", check=0)
        assert [line for line in done.stdout.splitlines() if line[:4] == "lost"] == [
            f"lost\t\t\t{text}"
        ]
    (cli.store / "jobs.jsonl").write_bytes(whole[: whole.index(b'{"id":"b"')])
    assert cli.json("doctor", "--repair")["missing"] > 0
    (cli.store / "jobs.jsonl").write_bytes(whole[: whole.index(b'{"id":"b"')])
    terminal = cli.terminal("doctor", "--repair", columns=200)
    assert terminal.wait() == 0
    assert "💀 nothing is left of " in terminal.text


def test_a_job_that_may_not_be_what_it_was_is_left_to_the_user(cli: Cli) -> None:
    (cli.folder / "jobs").write_text("echo one\necho two\n")
    cli.run("enqueue", "--file", "jobs", check=0)
    (cli.store / "jobs.jsonl").write_bytes(job_file(cli).replace(b"echo two", b"echo tvo"))
    spoilt = job_file(cli)
    done = cli.run("doctor", "--repair", check=0)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    ids = [each[3] for each in rows if each[0] == "held"]
    assert len(ids) == 2
    assert "unchecked" not in {each[0] for each in rows}
    cli.run("start", "--drain", "--quiet", check=0)
    listed = cli.run("dlq", "list", check=0).stdout.splitlines()
    assert sorted(line.split("\t")[0] for line in listed) == sorted(ids)
    assert all("look whether the command is right" in line for line in listed)
    (right,) = [line.split("\t")[0] for line in listed if line.endswith("echo one")]
    cli.run("dlq", "retry", right, check=0)
    cli.run("start", "--drain", "--quiet", check=0)
    assert cli.json("status")["completed"] == 1
    (cli.store / "jobs.jsonl").write_bytes(spoilt)
    terminal = cli.terminal("doctor", "--repair", columns=250)
    assert terminal.wait() == 0
    assert "💀 2 jobs kept from damaged commits, but dead: look whether their" in terminal.text
    (cli.store / "jobs.jsonl").write_bytes(spoilt)
    assert sorted(cli.json("doctor", "--repair")["held"]) == sorted(ids)


def test_it_is_not_repaired_while_start_runs(cli: Cli) -> None:
    fill(cli)
    process = cli.spawn("start", "--json")
    process.expect('"completed"(.|\n)*"completed"(.|\n)*"completed"')
    spoil(cli)
    before = job_file(cli)
    said = failure(cli, ["doctor", "--repair"], 3)
    assert said == f"cannot repair {cli.store} while start runs on it: queuectl stop"
    assert job_file(cli) == before
    cli.end_all()


def test_a_store_in_use_is_sound(cli: Cli) -> None:
    """Examined over and over, while workers write and the file is rewritten."""
    with queue_of(cli) as queue:
        for _ in range(100):
            queue.enqueue("sleep 0.02", cwd="/")
        process = cli.spawn("start", "--count", "2", "--drain", "--quiet")
        looks = 0
        while process.poll() is None:
            cli.run("doctor", check=0)
            queue.store.rewrite()
            looks += 1
        process.finish(0)
        assert looks > 1
        assert queue.counts().completed == 100
    cli.run("doctor", check=0)


REFUSED: List[str] = ["doctor", "doctor --repair"]


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_no_store_or_a_newer_one(words: str, cli: Cli) -> None:
    assert "no store at" in failure(cli, words.split(), 3)
    cli.store.mkdir()
    assert "no store at" in failure(cli, words.split(), 3)
    assert list(cli.store.iterdir()) == []
    cli.store.rmdir()
    fill(cli)
    data = job_file(cli)
    header = json.loads(data.split(b"\n")[0])
    newer = header_line({**header, "requires": ["wings"]})
    (cli.store / "jobs.jsonl").write_bytes(newer + data.partition(b"\n")[2])
    assert "upgrade it" in failure(cli, words.split(), 3)
    said = complaint(cli.run("--store", "redis://h/0", *words.split(), check=2).stderr)
    assert said.startswith("a store at a redis:// URL has no job file")


def test_hostile_names_are_shown_harmless(cli: Cli) -> None:
    fill(cli)
    (cli.store / "workers").mkdir(mode=0o700, exist_ok=True)
    (cli.store / "workers" / "\x1b[2J\n").write_text("")
    done = cli.run("doctor", check=4)
    assert done.stdout.count("\n") == 1
    assert r"\x1b[2J\n" in done.stdout
    terminal = cli.terminal("doctor", columns=200)
    assert terminal.wait() == 4
    assert "\x1b[2J" not in terminal.raw
