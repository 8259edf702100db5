"""`queuectl config`: its two options, its commands, and what it refuses."""

from __future__ import annotations

import json
from typing import Callable, List

import pytest

from queuectl.config import SETTINGS
from support import Cli, Terminal
from test_cli_support import complaint, queue_of, refusal

DEFAULTS = {
    "max_retries": 3, "backoff_base": 2, "backoff_max": 3600, "backoff_jitter": 0,
    "worker_count": 1, "job_timeout": None, "shutdown_grace": 30, "kill_grace": 5,
    "lease": 15, "max_output": 16 << 20, "keep_finished": "30d", "keep_output": 1 << 30,
    "redis_output": 64 << 10, "shell": "/bin/sh",
    "on_complete": None, "on_failed": None, "on_dead": None, "log_level": "INFO",
}  # fmt: skip


def test_without_a_store_there_are_defaults(cli: Cli) -> None:
    assert cli.json("config") == DEFAULTS
    assert cli.json("config", "list") == DEFAULTS
    assert not cli.store.exists()


def test_into_a_pipe_goes_a_row_a_setting(cli: Cli) -> None:
    rows = [row.split("\t") for row in cli.run("config", check=0).stdout.splitlines()]
    assert [row[0] for row in rows] == list(SETTINGS)
    assert ["backoff_max", "1h", "default"] in rows
    assert cli.run("config", "--key", "backoff-max", check=0).stdout == "1h\n"
    assert cli.run("config", "get", "BACKOFF_max", check=0).stdout == "1h\n"
    assert cli.json("config", "get", "shell") == {"shell": "/bin/sh"}


def test_setting_one_makes_a_store(cli: Cli) -> None:
    done = cli.run("config", "--key", "max-retries", "--value", "5", check=0)
    assert done.stdout == "max_retries\t5\tstore\n"
    assert done.stderr == f"queuectl: created store {cli.store}\n"
    assert (
        cli.run("config", "set", "job-timeout", "90", check=0).stdout == "job_timeout\t90s\tstore\n"
    )
    assert cli.json("config") == {**DEFAULTS, "max_retries": 5, "job_timeout": 90}
    assert cli.json("enqueue", "x")["max_retries"] == 5


def test_where_a_value_comes_from(cli: Cli) -> None:
    env = {"QUEUECTL_MAX_RETRIES": "7"}
    done = cli.run("config", "set", "max_retries", "5", env=env, check=0)
    assert done.stderr.splitlines()[-1] == (
        "queuectl: QUEUECTL_MAX_RETRIES is set, and wins over what is stored"
    )
    first = cli.run("config", env=env, check=0).stdout.splitlines()[0]
    assert first == "max_retries\t7\tQUEUECTL_MAX_RETRIES"
    assert cli.json("enqueue", "x", "--max-retries", "9", env=env)["max_retries"] == 9


def test_resetting(cli: Cli) -> None:
    for key, value in (("max_retries", "5"), ("shell", "/bin/bash"), ("kill_grace", "1m")):
        cli.run("config", "set", key, value, check=0)
    assert cli.run("config", "reset", "shell", check=0).stdout == "shell\t/bin/sh\tdefault\n"
    assert cli.json("config") == {**DEFAULTS, "max_retries": 5, "kill_grace": 60}
    assert cli.json("config", "reset", "--all") == DEFAULTS
    assert cli.json("config") == DEFAULTS


def test_a_person_sees_a_table(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    with queue_of(cli) as queue:
        queue.configure("job_timeout", "10m")
    shown = terminal("config")
    assert shown.wait() == 0
    lines = shown.text.splitlines()
    assert lines[0] == "⚙️  Configuration"
    assert lines[2].split() == ["│", "Setting", "│", "Value", "│", "Source", "│"]
    assert "│ job_timeout    │ 10m     │ store   │" in lines
    for words, told in (
        (["get", "max-retries"], "max_retries = 3 (default)\n"),
        (["set", "max-retries", "5"], "✅ max_retries = 5\n"),
        (["--key", "max-retries", "--value", "6"], "✅ max_retries = 6\n"),
        (["reset", "max-retries"], "✅ max_retries = 3\n"),
    ):
        shown = terminal("config", *words)
        assert shown.wait() == 0
        assert shown.text == told


REFUSED = {
    "a value without a key": (["--value", "5"], "--value needs --key; see queuectl config"),
    "a key beside list": (["--key", "shell", "list"], "--key and --value do not go with list"),
    "a value beside get": (["--value", "5", "get", "shell"], "--key and --value do not go with"),
    "reset without a key": (["reset"], "give keys, or --all; see queuectl config reset --help"),
    "reset with both": (["reset", "shell", "--all"], "give keys or --all, not both"),
    "an unknown key": (["get", "max_retry"], "unknown setting 'max_retry': did you mean 'max_"),
    "a key like none": (["--key", "xyz"], "unknown setting 'xyz'"),
    "an unknown key to set": (["set", "xyz", "1"], "unknown setting 'xyz'"),
    "one unknown key of two": (["reset", "shell", "xyz"], "unknown setting 'xyz'"),
    "a negative number": (["set", "max_retries", "-1"], "bad value for max_retries: -1 is not"),
    "many dashes": (["set", "max_retries", "--1"], "bad value for max_retries: '--1' is not"),
    "nan": (["set", "backoff_base", "nan"], "bad value for backoff_base: 'nan' is not a number"),
    "inf": (["--key", "kill_grace", "--value", "inf"], "bad value for kill_grace: 'inf' is not"),
    "nothing": (["--key", "max_retries", "--value", ""], "bad value for max_retries: '' is not"),
    "none where there must be one": (["set", "shutdown_grace", "none"], "bad value for shutdown"),
    "a level": (["set", "log_level", "loud"], "bad value for log_level: 'loud' is not one of"),
    "no value": (["set", "shell"], "missing VALUE; see queuectl config set --help"),
    "an unknown command": (["lst"], "no such command 'lst': did you mean list? see queuectl conf"),
}


@pytest.mark.parametrize(("words", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(words: List[str], why: str, cli: Cli) -> None:
    assert refusal(cli, ["config", *words]).startswith(why)
    assert not cli.store.exists()


def test_a_bad_variable_is_named(cli: Cli) -> None:
    done = cli.run("config", env={"QUEUECTL_KILL_GRACE": "soon"}, check=2)
    said = complaint(done.stderr)
    assert said.startswith(
        "QUEUECTL_KILL_GRACE: bad value for kill_grace: 'soon' is not a duration"
    )
    done = cli.run("enqueue", "x", env={"QUEUECTL_MAX_RETRIES": "x"}, check=2)
    assert "QUEUECTL_MAX_RETRIES: bad value" in done.stderr.splitlines()[-1]
    assert cli.json("config", env={"QUEUECTL_KILL_GRACE": ""}) == DEFAULTS


def test_a_bad_value_in_the_store_can_be_set_right(cli: Cli) -> None:
    with queue_of(cli):
        pass
    (cli.store / "settings.json").write_text(json.dumps({"max_retries": "x"}))
    assert complaint(cli.run("config", check=2).stderr).startswith(
        "stored settings: bad value for max_retries"
    )
    cli.run("config", "set", "max_retries", "4", check=0)
    assert cli.json("config")["max_retries"] == 4
