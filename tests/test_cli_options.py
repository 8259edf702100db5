"""What can be said of a new job, in every form; and lists that answer questions."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest

import support
from starting import HOLD, Queue
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

DAY = "2099-01-01T00:00Z"


@pytest.mark.parametrize(
    ("words", "line", "field", "value"),
    [
        (["--priority", "HIGH"], {"priority": "high"}, "priority", 10),
        (["--priority", "+7"], {"priority": 7}, "priority", 7),
        (["--priority=-7"], {"priority": "-7"}, "priority", -7),
        (["--queue", "mail"], {"queue": "mail"}, "queue", "mail"),
        (["--unique", "a key"], {"unique": "a key"}, "unique", "a key"),
        (["--label", "a", "--label", "b"], {"labels": ["a", "b", "a"]}, "labels", ["a", "b"]),
        (["--label", "\u00fc"], {"labels": "\u00fc"}, "labels", ["\u00fc"]),
        (["--shell", "/bin/bash"], {"shell": "/bin/bash"}, "shell", "/bin/bash"),
        (["--cwd", "/usr/../tmp/"], {"cwd": "/tmp"}, "cwd", "/tmp"),
        (["--backoff-base", "1.5"], {"backoff_base": 1.5}, "backoff_base", 1.5),
        (["--backoff-max", "2m"], {"backoff_max": 120}, "backoff_max", 120.0),
        (["--success-codes", "1, 0,1"], {"success_codes": [1, 0, 1]}, "success_codes", [0, 1]),
        (["--no-retry-on", "64"], {"no_retry_on": [64]}, "no_retry_on", [64]),
        (["--timeout", "1m"], {"timeout": 60}, "timeout", 60.0),
        (["--max-retries", "0"], {"max_retries": 0}, "max_retries", 0),
        (["--run-at", DAY], {"run_at": DAY}, "run_at", "2099-01-01T00:00:00.000Z"),
    ],
)
def test_an_option_a_key_and_a_default_of_a_file_say_the_same(
    words: List[str], line: Dict[str, Any], field: str, value: Any, cli: Cli
) -> None:
    Queue(cli)
    free = ["--on-conflict", "replace"] if field == "unique" else []
    text = json.dumps({"command": "true", **line})
    told = [
        cli.run("enqueue", "true", *words, check=0),
        cli.run("enqueue", text, *free, check=0),
        cli.run("enqueue", "--file", "-", *words, *free, input="true\n", check=0),
        cli.run("enqueue", "--file", "-", *free, input=text, check=0),
    ]
    assert [json.loads(done.stdout)[field] for done in told] == [value] * 4


def test_a_line_of_a_file_says_otherwise_than_the_options(cli: Cli) -> None:
    Queue(cli)
    words = ["--priority", "5", "--queue", "q", "--label", "l", "--delay", "1h", "--env", "A=1"]
    own = {"priority": -1, "labels": ["m"], "run_at": "2001-01-01T00:00Z", "env": {"B": "2"}}
    text = "true\n" + json.dumps({"command": "true", **own})
    done = cli.run("enqueue", "--file", "-", *words, input=text, check=0)
    first, second = map(json.loads, done.stdout.splitlines())
    keys = ("priority", "queue", "labels", "env")
    assert [first[key] for key in keys] == [5, "q", ["l"], {"A": None}]
    assert [second[key] for key in keys] == [-1, "q", ["m"], {"B": None}]
    assert first["run_at"] is not None
    assert second["run_at"] is None


def test_what_to_do_with_a_taken_key_may_be_a_default_of_a_file(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="old", unique="k")
    text = 'true\n{"command": "true", "id": "new", "unique": "k"}\n'
    cli.run("enqueue", "--file", "-", "--on-conflict", "replace", input=text, check=0)
    assert queue.job("old").last_error == "Replaced by job 'new'"
    text = '{"command": "true", "unique": "k"}'
    assert (
        "line 1: "
        in cli.run("enqueue", "--file", "-", "--on-conflict", "error", input=text, check=1).stderr
    )
    assert cli.run("enqueue", text, "--on-conflict", "error", check=1).stdout == ""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["true", "--run-at", "12:00", "--delay", "5"], "choose one of --run-at and --delay"),
        (
            ['{"command": "true", "run_at": "12:00", "delay": 5}'],
            "bad JSON job: choose one of run_at and delay",
        ),
        (
            ['{"command": "true", "run_at": "12:00"}', "--delay", "5"],
            "choose one of run_at in the JSON job and delay as an option",
        ),
        (
            ['{"command": "true", "delay": 5}', "--run-at", "12:00"],
            "choose one of delay in the JSON job and run_at as an option",
        ),
        (["true", "--on-conflict", "error"], "--on-conflict needs --unique"),
        (['{"command": "true"}', "--on-conflict", "error"], "--on-conflict needs --unique"),
        (
            ['{"command": "true", "on_conflict": "error"}'],
            "bad JSON job: on_conflict needs unique",
        ),
        (
            ['{"command": "true", "priority": 5}', "--priority", "5"],
            "priority is given twice: in the JSON job and as an option",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(words: List[str], why: str, cli: Cli) -> None:
    done = cli.run("enqueue", *words, check=2)
    assert (done.stdout, done.stderr) == ("", f"queuectl: {why}; see queuectl enqueue --help\n")
    assert not cli.store.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--run-at", ""],
        ["--run-at", "25:00"],
        ["--run-at", "2026-02-30"],
        ["--run-at", "2026-13-01T00:00"],
        ["--run-at", "-5m"],
        ["--delay", ""],
        ["--delay", "5 parsecs"],
        ["--delay", "nan"],
        ["--delay", "1e99"],
        ["--priority", ""],
        ["--priority", "++1"],
        ["--priority", "+-1"],
        ["--priority", "+"],
        ["--priority", "1e3"],
        ["--priority", "9999999"],
        ["--label", ""],
        ["--label", "a b"],
        ["--label", "a\tb"],
        ["--label", "x" * 65],
        ["--shell", "bash"],
        ["--shell", ""],
        ["--cwd", ""],
    ],
)
def test_bad_values_make_no_job(words: List[str], cli: Cli) -> None:
    done = cli.run("enqueue", "true", *words, check=2)
    assert done.stdout == ""
    assert done.stderr.startswith(f"queuectl: bad value for {words[0]}: ")
    assert done.stderr.count("\n") == 1
    assert not cli.store.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"run_at": 5},
        {"run_at": None},
        {"delay": -1},
        {"delay": None},
        {"delay": True},
        {"delay": [1]},
        {"priority": 1.0},
        {"priority": True},
        {"priority": None},
        {"priority": 10**30},
        {"queue": None},
        {"queue": "a b"},
        {"labels": {"a": 1}},
        {"labels": ["a", None]},
        {"label": "a"},
        {"unique": 5},
        {"unique": "a\u0000b"},
        {"env": ["A=1"]},
        {"env": {"A": 1}},
        {"env": {"A B": "1"}},
        {"env": {"": "1"}},
        {"cwd": 1},
        {"shell": None},
        {"after_any": None},
        {"state": "dead"},
        {"seq": 4},
        {"parents": [1]},
        {"dependents": 5},
    ],
)
def test_bad_keys_make_no_job(values: Dict[str, Any], cli: Cli) -> None:
    done = cli.run("enqueue", json.dumps({"command": "true", **values}), check=2)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert next(iter(values)) in done.stderr
    assert not cli.store.exists()


def test_a_job_runs_in_its_folder_and_by_its_shell(cli: Cli) -> None:
    queue = Queue(cli)
    (queue.folder / "sub" / "deep").mkdir(parents=True)
    words = ["--cwd", "deep", "--shell", "/bin/bash"]
    command = 'pwd > "$QUEUECTL_JOB_ID.out"; echo ${BASH_VERSION:+bash} >> "$QUEUECTL_JOB_ID.out"'
    job = cli.json("enqueue", command, "--id", "job", *words, cwd=queue.folder / "sub")
    assert job["cwd"] == str(queue.folder / "sub" / "deep")
    queue.drain()
    assert queue.read("sub/deep/job.out").split() == [job["cwd"], "bash"]


def test_a_folder_or_a_shell_that_is_not_there_is_told_by_the_job(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("enqueue", "true", "--id", "a", "--cwd", "gone", "--max-retries", "1", check=0)
    cli.run("enqueue", "true", "--id", "b", "--shell", "/gone", "--max-retries", "1", check=0)
    queue.drain()
    for job in queue.jobs():
        assert job.state == "dead"
        assert "gone" in str(job.last_error)


def rows(cli: Cli, *words: str) -> List[str]:
    listed = cli.run("list", *words, check=0).stdout.splitlines()
    return [row.split("\t")[0] for row in listed]


def test_list_answers_questions(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("sleep 0.3", id="slow", labels=["l", "m"])
    queue.add("sleep 0.05", id="quick", queue="q", labels=["l"])
    queue.add("exit 1", id="dead", max_retries=1)
    queue.drain()
    queue.add("echo 100% [x] A\\nb", id="odd", queue="q", labels=["m"])
    assert rows(cli) == ["odd", "dead", "quick", "slow"]
    assert rows(cli, "--state", "pending,dlq") == ["odd", "dead"]
    assert rows(cli, "--queue", "q") == ["odd", "quick"]
    assert rows(cli, "--label", "l") == ["quick", "slow"]
    assert rows(cli, "--label", "l", "--queue", "q", "--state", "completed") == ["quick"]
    assert rows(cli, "--grep", "sleep 0.") == ["quick", "slow"]
    assert rows(cli, "--grep", "100% [x] A\\n") == ["odd"]
    assert rows(cli, "--grep", "SLEEP") == []
    assert rows(cli, "--sort", "finished") == ["dead", "quick", "slow", "odd"]
    assert rows(cli, "--sort", "duration")[:2] == ["slow", "quick"]
    assert rows(cli, "--sort", "duration")[-1] == "odd"
    assert rows(cli, "--sort", "duration", "--limit", "1") == ["slow"]
    assert rows(cli, "--sort", "created", "--limit", "2") == ["odd", "dead"]
    assert rows(cli, "--label", "l", "--limit", "1") == ["quick"]
    assert rows(cli, "--since", "1h") == rows(cli, "--all") == rows(cli)
    found = cli.json("list", "--label", "m", "--sort", "finished")
    assert [job["id"] for job in found] == ["slow", "odd"]
    screen = cli.terminal("list", "--label", "l", "--limit", "1")
    assert screen.wait() == 0
    assert "Jobs (2)" in screen.text
    assert "newest 1 of 2 (--all shows all)" in screen.text


def test_since_is_by_creation(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="old")
    made = queue.job("old").created_at
    support.wait_until(lambda: rows(cli, "--since", "0.3") == [], what="it to be old")
    queue.drain()
    queue.add("true", id="new")
    assert rows(cli, "--since", "0.3") in (["new"], [])
    assert rows(cli, "--since", "1h") == ["new", "old"]
    assert queue.job("old").created_at == made


def test_the_longest_of_the_running_ones_comes_first(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("sleep 0.1", id="over")
    queue.add(HOLD, id="first")
    start = queue.start("--count", "2")
    queue.wait_for("over", "completed")
    queue.wait_for_runner("first")
    support.wait_until(lambda: rows(cli, "--sort", "duration") == ["first", "over"])
    queue.let_go()
    start.terminate()
    start.finish(0)


@pytest.mark.parametrize(
    "words",
    [
        ["--state", "gone"],
        ["--state", ""],
        ["--state", "pending,"],
        ["--queue", "a b"],
        ["--label", "a b"],
        ["--since", "-1h"],
        ["--since", "yesterday"],
        ["--sort", "id"],
        ["--limit", "0"],
        ["--limit", "-1"],
        ["--limit", "x"],
        ["--limit", "1", "--all"],
    ],
)
def test_bad_questions_are_refused(words: List[str], cli: Cli) -> None:
    Queue(cli).add("true")
    done = cli.run("list", *words, check=2)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
