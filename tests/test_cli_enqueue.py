"""`queuectl enqueue` with one job: the grammar of its words, its options, and what it prints."""

from __future__ import annotations

import json
import os
import sys
import uuid
from typing import Callable, List

import pytest

from queuectl.cli import app
from queuectl.cli.intake import parse_json_job
from queuectl.errors import InvalidValueError
from queuectl.job import SHOWN_FIELDS
from support import Cli, Terminal
from test_cli_support import HOSTILE, HOSTILE_SHOWN, complaint, job_file, queue_of, refusal

QUOTE = "quote the command, or put -- before it; see queuectl enqueue --help"


def test_cli_enqueue(cli: Cli) -> None:
    done = cli.run("enqueue", "echo 'Hello World'", "--max-retries", "3", check=0)
    job = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert list(job) == list(SHOWN_FIELDS)
    assert str(uuid.UUID(job["id"], version=4)) == job["id"]
    assert (job["command"], job["state"], job["attempts"]) == ("echo 'Hello World'", "pending", 0)
    assert (job["max_retries"], job["cwd"]) == (3, str(cli.folder))
    assert done.stderr == f"queuectl: created store {cli.store}\n"
    assert cli.json("list") == [job]


def test_a_person_is_told_what_was_enqueued(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    shown = terminal("enqueue", "echo 'Processing data...'")
    assert shown.wait() == 0
    told, found, lines = shown.text.partition("📦 Job enqueued successfully!\n")
    assert told == f"queuectl: created store {cli.store}\n"
    assert found
    job = cli.json("list")[0]
    assert lines == f"🆔 ID: {job['id']}\n📝 Command: echo 'Processing data...'\n"


def test_a_long_command_is_cut_at_a_terminal(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    shown = terminal("enqueue", "echo " + "x" * 200, columns=60)
    assert shown.wait() == 0
    assert shown.text.splitlines()[-1] == "📝 Command: echo " + "x" * 42 + "…"


def test_nothing_of_a_command_is_obeyed_by_a_terminal(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal("enqueue", HOSTILE.encode("utf-8", "surrogateescape"), columns=200)
    assert shown.wait() == 0
    assert "\x1b[2J" not in shown.raw
    assert shown.text.endswith(f"📝 Command: {HOSTILE_SHOWN}\n")
    assert cli.json("list")[0]["command"] == HOSTILE


WORDS = {
    "one word": (["echo hi"], "echo hi"),
    "options before": (["--max-retries", "2", "echo hi"], "echo hi"),
    "options after": (["echo hi", "--max-retries=2", "--id", "x"], "echo hi"),
    "one after --": (["--", "echo  $HOME"], "echo  $HOME"),
    "one after -- that looks like an option": (["--", "--help"], "--help"),
    "a shell group after --": (["--", "{ echo a; echo b; }"], "{ echo a; echo b; }"),
    "several after --": (["--", "mkdir", "-p", "a b", "c"], "mkdir -p 'a b' c"),
    "a second -- after --": (["--", "git", "log", "--", "x"], "git log -- x"),
    "an option, then --": (["--timeout", "5m", "--", "mkdir", "-p", "10"], "mkdir -p 10"),
    "-- with nothing behind": (["echo hi", "--"], "echo hi"),
    "-- as a value": (["--", "--", "--id"], "-- --id"),
    "spaces around": (["  echo hi "], "  echo hi "),
    "JSON not at the beginning": ([' {"command": "x"}'], ' {"command": "x"}'),
}


@pytest.mark.parametrize(("words", "command"), WORDS.values(), ids=WORDS)
def test_words_that_are_a_command(words: List[str], command: str, cli: Cli) -> None:
    assert app.call(["--store", str(cli.store), "enqueue", "--quiet", *words]) == 0
    with queue_of(cli) as queue:
        assert [job.command for job in queue.jobs()] == [command]


REFUSED_WORDS = {
    "several": (["mkdir", "a", "b"], QUOTE),
    "an option of the command": (["mkdir", "-p", "10"], QUOTE),
    "a long option of the command": (["mkdir", "--parents"], QUOTE),
    "an option between ours": (["mkdir", "--timeout", "3", "-p"], QUOTE),
    "words on both sides of --": (["echo", "--", "a"], QUOTE),
    "none": ([], "give a command, or --file; see queuectl enqueue --help"),
    "none after --": (["--"], "give a command, or --file; see queuectl enqueue --help"),
    "an option only": (["-p"], "no such option -p; see queuectl enqueue --help"),
    "an option that is nearly ours": (
        ["make", "--max-retry", "3"],
        "no such option --max-retry: did you mean --max-retries? see queuectl enqueue --help",
    ),
    "an option that is ours in capitals": (
        ["--ID", "x", "true"],
        "no such option --ID: did you mean --id? see queuectl enqueue --help",
    ),
    "an option without its value": (
        ["make", "--max-retries"],
        "option '--max-retries' requires an argument; see queuectl enqueue --help",
    ),
}


@pytest.mark.parametrize(("words", "why"), REFUSED_WORDS.values(), ids=REFUSED_WORDS)
def test_words_that_are_refused(words: List[str], why: str, cli: Cli) -> None:
    assert refusal(cli, ["enqueue", *words]) == why
    assert not cli.store.exists()


def test_what_is_refused_is_said_in_one_line(cli: Cli) -> None:
    done = cli.run("enqueue", "mkdir", "-p", "10", check=2)
    assert done.stderr == f"queuectl: {QUOTE}\n"
    assert done.stdout == ""
    assert not cli.store.exists()


def test_a_json_job_sets_what_options_can_set(cli: Cli) -> None:
    text = '{"id": "job1", "command": "sleep 2", "max_retries": 2, "timeout": 1.5}'
    job = cli.json("enqueue", text)
    assert [job[key] for key in ("id", "command", "max_retries", "timeout")] == [
        "job1", "sleep 2", 2, 1.5,
    ]  # fmt: skip
    job = cli.json("enqueue", '{"command": "\\u00e9 \\ud83d\\ude00 \\udcff"}', "--id", "job2")
    assert (job["id"], job["command"]) == ("job2", "é 😀 \udcff")


REFUSED_JSON = {
    "{ echo a; echo b; }": "expecting property name enclosed in double quotes at character 3; "
    "for a shell group put -- before it",
    '{"command": "x"} y': "extra data at character 18; for a shell group put -- before it",
    '{"command": "x", "state": "dead"}': "the key 'state' is set by queuectl",
    '{"command": "x", "runs": 1}': "the key 'runs' is set by queuectl",
    '{"command": "x", "worker": "w"}': "the key 'worker' is set by queuectl",
    '{"command": "x", "seq": 1}': "the key 'seq' is unknown: use id, command, max_retries, timeout",
    '{"comand": "x"}': "the key 'comand' is unknown: did you mean 'command'?",
    '{"COMMAND": "x"}': "the key 'COMMAND' is unknown: did you mean 'command'?",
    '{"command": "x", "command": "y"}': "the key 'command' is there twice",
    '{"command": "x", "timeout": NaN}': "NaN is not a number",
    '{"command": "x", "timeout": -Infinity}': "-Infinity is not a number",
    '{"command": "x", "timeout": 1e999}': "timeout is not between 0.001 and a century",
    '{"command": "x", "timeout": 0}': "timeout is not between 0.001 and a century",
    '{"command": "x", "timeout": "5m"}': "timeout must be a number of seconds, or null",
    '{"command": "x", "timeout": true}': "timeout must be a number of seconds, or null",
    '{"command": "x", "max_retries": "3"}': "max_retries must be a whole number",
    '{"command": "x", "max_retries": 3.0}': "max_retries must be a whole number",
    '{"command": "x", "max_retries": true}': "max_retries must be a whole number",
    '{"command": "x", "max_retries": null}': "max_retries must be a whole number",
    '{"command": "x", "max_retries": -1}': "max_retries is not between 0 and 1000000",
    '{"command": "x", "id": 7}': "id must be a string",
    '{"command": ["x"]}': "command must be a string",
    "{}": 'the key "command" is missing',
    '{"command": "x", "max_retries": ' + "1" * 5000 + "}": "",
    '{"command": ' + "[" * 100000: "",
}


@pytest.mark.parametrize(("text", "why"), REFUSED_JSON.items(), ids=range(len(REFUSED_JSON)))
def test_json_that_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        parse_json_job(text, {})
    assert str(refused.value).startswith(f"bad JSON job: {why}")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", [*list(REFUSED_JSON)[:3], list(REFUSED_JSON)[-1]], ids=range(4))
def test_json_that_is_refused_changes_nothing(text: str, cli: Cli) -> None:
    said = complaint(cli.run("enqueue", text, check=2).stderr)
    assert said.startswith("bad JSON job: ")
    assert said.endswith("; see queuectl enqueue --help")
    assert not cli.store.exists()


@pytest.mark.parametrize(
    "words",
    [
        ['{"command": "x", "id": "a"}', "--id", "a"],
        ['{"command": "x", "max_retries": 2}', "--max-retries", "2"],
        ['{"command": "x", "timeout": null}', "--timeout", "5"],
    ],
    ids=["id", "max_retries", "timeout"],
)
def test_a_key_and_an_option_for_the_same_thing(words: List[str], cli: Cli) -> None:
    key = words[1].lstrip("-").replace("-", "_")
    said = refusal(cli, ["enqueue", *words])
    assert said.startswith(f"{key} is given twice: in the JSON job and as an option")


def test_no_timeout_can_be_asked_for_whatever_the_setting_says(cli: Cli) -> None:
    cli.run("config", "set", "job_timeout", "9", check=0)
    assert cli.json("enqueue", "x")["timeout"] == 9
    assert cli.json("enqueue", "x", "--timeout", "2h")["timeout"] == 7200
    assert cli.json("enqueue", "x", "--timeout", "none")["timeout"] is None
    assert cli.json("enqueue", '{"command": "x", "timeout": null}')["timeout"] is None


REFUSED_VALUES = {
    "an empty command": ([""], "the command is empty"),
    "a blank command": ([" \t"], "the command is empty"),
    "a NUL": (['{"command": "a\\u0000b"}'], "the command holds a NUL byte"),
    "a surrogate": (['{"command": "\\ud800"}'], "the command holds a lone surrogate"),
    "negative attempts": (["x", "--max-retries", "-1"], "bad value for --max-retries: -1 is not"),
    "attempts in words": (["x", "--max-retries", "two"], "bad value for --max-retries: 'two' is"),
    "many dashes": (["x", "--max-retries=--5"], "bad value for --max-retries: '--5' is not"),
    "attempts nan": (["x", "--max-retries", "nan"], "bad value for --max-retries: 'nan' is not"),
    "timeout inf": (["x", "--timeout", "inf"], "bad value for --timeout: 'inf' is not a duration"),
    "timeout nan": (["x", "--timeout", "nan"], "bad value for --timeout: 'nan' is not a duration"),
    "timeout 0": (["x", "--timeout", "0"], "bad value for --timeout: '0' is not a duration"),
    "negative timeout": (["x", "--timeout=-5"], "bad value for --timeout: '-5' is not a duration"),
    "a bad id": (["x", "--id", "a b"], "bad value for --id: bad id 'a b'"),
    "a long id": (["x", "--id", "a" * 65], "bad value for --id: bad id 'aaa"),
    "a hostile id": (["x", "--id", "\x1b[2J"], r"bad value for --id: bad id '\x1b[2J'"),
    "quiet and id": (["x", "--quiet", "--print-id"], "choose one of --quiet, --print-id and"),
    "quiet and JSON": (["x", "--quiet", "--json"], "choose one of --quiet, --print-id and"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "why"), REFUSED_VALUES.values(), ids=REFUSED_VALUES)
def test_values_that_are_refused(words: List[str], why: str, cli: Cli) -> None:
    said = refusal(cli, ["enqueue", *words])
    assert said.startswith(why)
    assert said.endswith("; see queuectl enqueue --help")
    assert not cli.store.exists()


def test_an_id_is_taken_for_good(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="nightly")
    before = job_file(cli)
    said = complaint(cli.run("enqueue", "y", "--id", "nightly", check=1).stderr)
    assert said == "job 'nightly' exists already: choose another --id"
    assert job_file(cli) == before


def test_a_long_command_is_kept_whole(cli: Cli) -> None:
    command = "x" * 131071
    assert cli.json("enqueue", "--", command)["command"] == command


def test_what_is_printed_can_be_chosen(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    assert cli.run("enqueue", "x", "--quiet", check=0).stdout == ""
    assert cli.run("enqueue", "x", "--id", "a", "--print-id", check=0).stdout == "a\n"
    shown = terminal("--json", "enqueue", "x", "--id", "b")
    assert shown.wait() == 0
    assert json.loads(shown.text)["id"] == "b"
    shown = terminal("enqueue", "x", "--id", "c", "--print-id")
    assert shown.wait() == 0
    assert shown.text == "c\n"


def test_bytes_that_are_not_utf8_are_kept_whatever_the_locale(cli: Cli) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for env in ({}, ascii_only):
        done = cli.run_bytes("enqueue", b"echo \xc3\xa9 \xff \x1b", env=env, check=0)
        assert json.loads(done.stdout)["command"] == "echo é \udcff \x1b"
        assert rb"\udcff \u001b" in done.stdout


def test_the_folder_is_the_one_that_the_shell_calls_so(cli: Cli) -> None:
    link = cli.folder / "link"
    link.symlink_to(cli.folder)
    job = cli.json("enqueue", "x", cwd=link, env={"PWD": str(link)})
    assert job["cwd"] == str(link)
    job = cli.json("enqueue", "x", cwd=cli.folder, env={"PWD": "/"})
    assert job["cwd"] == str(cli.folder)


def test_a_folder_that_was_deleted(cli: Cli) -> None:
    command = " ".join(str(word) for word in cli.command)
    cli.command = ["sh", "-c", f"mkdir gone; cd gone; rmdir ../gone; {command} enqueue x"]
    done = cli.run(check=1)
    said = done.stderr.splitlines()[-1]
    assert said == "queuectl: the current folder was deleted: change to one that exists"


def test_enqueue_imports_nothing_that_it_does_not_need(cli: Cli) -> None:
    code = (
        "import sys; sys.argv = ['queuectl', 'enqueue', 'x', '--quiet']\n"
        "from queuectl.cli.app import run; run(sys.argv[1:]); print(*sys.modules)"
    )
    cli.command = [sys.executable, "-c", code]
    modules = cli.run(env={"PYTHONPATH": os.pathsep.join(sys.path)}, check=0).stdout.split()
    assert "queuectl.store.file" in modules
    unneeded = {
        "tabulate", "importlib.metadata", "multiprocessing", "shutil", "unicodedata",
        "queuectl.supervisor", "queuectl.worker", "queuectl.runner", "queuectl.cli.workers",
        "queuectl.cli.jobs", "queuectl.cli.config", "queuectl.store.registry",
    }  # fmt: skip
    assert unneeded.isdisjoint(modules)
