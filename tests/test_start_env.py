"""Variables of a job: what is stored of the environment, who sees it, and what its command gets."""

from __future__ import annotations

import json
from typing import List

import pytest

import support
from starting import Queue
from support import Cli

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

SHOW = 'printf "%s\\n" "$A" "$B" > "$QUEUECTL_JOB_ID.env"'
SECRET = "s3cr3t-of-the-caller"


def everything_stored(cli: Cli) -> bytes:
    files = [path for path in cli.store.rglob("*") if path.is_file()]
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)


def test_values_are_kept_from_the_enqueueing_and_nothing_else_is(cli: Cli) -> None:
    queue = Queue(cli)
    env = {"B": "value now", "OTHER": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET}
    words = ["--id", "job", "--env", "A=x=y z", "--env", "B"]
    cli.run("enqueue", SHOW, *words, check=0, env=env)
    text = json.dumps({"id": "json", "command": SHOW, "env": {"A": "", "B": "\u00fc\n'"}})
    cli.run("enqueue", text, check=0, env=env)
    start = queue.start("--drain", env={**env, "B": "another", "A": "another"})
    start.finish(0)
    assert queue.read("job.env") == "x=y z\nvalue now\n"
    assert queue.read("json.env") == "\n\u00fc\n'\n"
    stored = everything_stored(cli)
    assert b"value now" in stored
    assert SECRET.encode() not in stored
    assert b"another" not in stored


def test_values_are_hidden_wherever_a_job_is_shown(cli: Cli) -> None:
    queue = Queue(cli)
    words = ["--env", f"A={SECRET}", "--env", "B", "--unique", "k", "--label", "l"]
    env = {"B": SECRET}
    shown = [
        cli.run("enqueue", SHOW, "--id", "job", *words, env=env, check=0),
        cli.run("enqueue", SHOW, *words, env=env, check=0),
        cli.run("--json", "enqueue", SHOW, *words, env=env, check=0),
    ]
    for line in (
        *(["list"], ["--json", "list"], ["list", "--label", "l"], ["show", "job"]),
        *(["--json", "show", "job"], ["edit", "job", "--priority", "1"], ["status"]),
        *(["--json", "edit", "job", "--priority", "2"], ["--json", "cancel", "job"]),
        *(["--json", "retry", "job"], ["doctor"], ["--json", "doctor"]),
    ):
        shown.append(cli.run(*line, check=0))
    start = queue.start("--drain", "--json")
    start.finish(0)
    text = "".join(done.stdout + done.stderr for done in shown) + start.out + start.err
    assert SECRET not in text
    assert json.loads(shown[0].stdout)["env"] == {"A": None, "B": None}
    assert "A (--reveal shows it)" in cli.run("show", "job", check=0).stdout
    assert f"A={SECRET}" in cli.run("show", "job", "--reveal", check=0).stdout
    revealed = cli.json("show", "job", "--reveal")
    assert revealed["env"] == {"A": SECRET, "B": SECRET}
    assert SECRET not in cli.run("--json", "purge", "--all", check=0).stdout


def test_dead_ones_hide_theirs_too(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("exit 1", id="job", env=[f"A={SECRET}"], max_retries=1)
    queue.drain()
    for words in (["dlq", "list"], ["dlq", "retry", "job"]):
        done = cli.run("--json", *words, check=0)
        assert SECRET not in done.stdout
        assert json.loads(done.stdout)[0]["env"] == {"A": None}


def test_an_export_keeps_them(cli: Cli) -> None:
    Queue(cli).add(SHOW, id="job", env=["A=1", f"B={SECRET}"])
    exported = cli.run("export", check=0).stdout
    copy = cli.folder / "copy"
    cli.run("--store", copy, "import", "-", input=exported, check=0)
    found = cli.json("--store", copy, "show", "job", "--reveal")
    assert found["env"] == {"A": "1", "B": SECRET}
    cli.run("--store", copy, "start", "--drain", check=0)
    assert (cli.folder / "job.env").read_text() == f"1\n{SECRET}\n"


def test_the_last_of_a_name_counts(cli: Cli) -> None:
    queue = Queue(cli)
    words = ["--env", "A=1", "--env", "B=2", "--env", "A=3"]
    cli.run("enqueue", SHOW, "--id", "job", *words, check=0)
    queue.drain()
    assert queue.read("job.env") == "3\n2\n"


def test_bytes_that_are_not_utf8_are_kept(cli: Cli) -> None:
    queue = Queue(cli)
    cli.run("enqueue", SHOW, "--id", "job", b"--env", b"A=\xff\xfe", check=0)
    queue.drain()
    assert (queue.folder / "job.env").read_bytes() == b"\xff\xfe\n\n"


def test_a_path_of_its_own_is_that_of_its_commands(cli: Cli) -> None:
    queue = Queue(cli)
    (queue.folder / "bin").mkdir()
    tool = queue.folder / "bin" / "its-own-tool"
    tool.write_text("#!/bin/sh\necho found > found\n")
    tool.chmod(0o755)
    path = f"PATH={queue.folder}/bin:/usr/bin:/bin"
    cli.run("enqueue", "its-own-tool", "--env", path, check=0)
    queue.drain()
    assert queue.read("found") == "found\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--env", "UNSET"], "UNSET is not set in the environment: use UNSET=VALUE"),
        (["--env", "A B"], "bad variable 'A B'"),
        (["--env", ""], "bad variable ''"),
        (["--env", "=x"], "bad variable ''"),
        (["--env", "1A=x"], "bad variable '1A'"),
        (["--env", "A-B=x"], "bad variable 'A-B'"),
        (["--env", "A\n=x"], "bad variable 'A\\n'"),
        (["--env", "QUEUECTL_JOB_ID=x"], "bad variable 'QUEUECTL_JOB_ID': queuectl sets it"),
        (["--env", "QUEUECTL_STORE"], "bad variable 'QUEUECTL_STORE': queuectl sets it"),
    ],
)
def test_what_is_no_variable_is_refused(words: List[str], why: str, cli: Cli) -> None:
    code, line = cli.refusal("enqueue", "true", *words)
    assert code == 2
    assert line.startswith(f"bad value for --env: {why}")
    assert not cli.store.exists()


def test_a_name_in_json_is_no_assignment(cli: Cli) -> None:
    code, line = cli.refusal("enqueue", '{"command": "true", "env": {"A=B": "x"}}')
    assert code == 2
    assert line.startswith("bad JSON job: env: bad variable 'A=B': use letters, digits and '_'")
