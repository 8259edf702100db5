"""Help, the version, nearest names, the common options, and what docs/json.md says."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import click
import pytest

from queuectl.cli import app
from queuectl.events import EventKind
from queuectl.fields import KEYS
from queuectl.job import SHOWN_FIELDS, Job
from support import Cli
from test_cli_support import queue_of, refusal, run

JSON_PAGE = (Path(__file__).parent.parent / "docs" / "json.md").read_text(encoding="utf-8")


def commands(group: click.Group, path: str) -> Iterator[Tuple[str, click.Command]]:
    """All commands below a group, hidden ones too, by how they are called."""
    context = click.Context(group)
    names = [*group.list_commands(context), *(["worker"] if path == "queuectl" else [])]
    for name in names:
        command = group.get_command(context, name)
        assert command is not None, name
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


ALL: Dict[str, click.Command] = {
    "queuectl": app.queuectl,
    **dict(commands(app.queuectl, "queuectl")),
}
GROUPS = [path for path, command in ALL.items() if isinstance(command, click.Group)]


def test_every_command_is_there() -> None:
    assert list(ALL) == [
        "queuectl", "queuectl enqueue", "queuectl start", "queuectl stop", "queuectl status",
        "queuectl nodes", "queuectl metrics", "queuectl serve", "queuectl list", "queuectl show",
        "queuectl logs", "queuectl wait", "queuectl cancel",
        "queuectl retry", "queuectl edit", "queuectl purge", "queuectl queue",
        "queuectl queue list", "queuectl queue pause", "queuectl queue resume",
        "queuectl queue set", "queuectl doctor", "queuectl export",
        "queuectl import", "queuectl stores", "queuectl config", "queuectl config get",
        "queuectl config list",
        "queuectl config reset",
        "queuectl config set", "queuectl dlq", "queuectl dlq list", "queuectl dlq purge",
        "queuectl dlq retry", "queuectl completion", "queuectl service", "queuectl worker",
        "queuectl worker start", "queuectl worker stop",
    ]  # fmt: skip


def examples(text: str) -> List[str]:
    """The lines of the section `Example` of a help text."""
    lines = text.partition("Example:\n")[2].partition("\n\n")[0].splitlines()
    return [line.strip() for line in lines]


def help_of(path: str) -> str:
    """The help of a command, as it is printed where there is no terminal."""
    context: Optional[click.Context] = None
    name = ""
    for name in path.split():
        called = "queuectl" if context is None else f"{context.command_path} {name}"
        context = click.Context(ALL[called], info_name=name, parent=context)
    assert context is not None
    return context.get_help() + "\n"


def test_help_is_printed(cli: Cli) -> None:
    for path in ("queuectl", "queuectl dlq retry"):
        done = cli.run(*path.split()[1:], "--help", check=0)
        assert done.stdout == help_of(path)
        assert done.stderr == ""


@pytest.mark.parametrize("path", ALL)
def test_help_is_whole_and_its_example_works(path: str, cli: Cli) -> None:
    text = help_of(path)
    assert text.startswith(f"Usage: {path} [OPTIONS]")
    assert text.isascii()
    for option in ("--store PATH", "--json", "--help"):
        assert f"  {option} " in text
    assert ALL[path].get_short_help_str(100).endswith(".")
    lines = examples(text)
    assert lines
    assert all("queuectl " in line for line in lines)
    for line in lines:
        if "dlq" in line or not cli.store.exists():
            fill(cli)
        if "tonight" in line:
            with queue_of(cli) as queue:
                queue.enqueue("true", id="tonight", unique="tonight", cwd="/")
        shell(cli, line)


def fill(cli: Cli) -> None:
    """Have a dead job of the name that the examples use, which printed something."""
    with queue_of(cli) as queue:
        if queue.store.get("nightly") is not None:
            queue.store.remove([queue.find("nightly")])
        queue.enqueue("exit 1", id="nightly", max_retries=1, cwd="/")
        while queue.find("nightly").state != "dead":
            run(queue, error="Exit code 1", output=b"oh no\n")


def shell(cli: Cli, line: str) -> None:
    """Run a line of a help text in a shell that finds queuectl in its PATH."""
    folder = cli.folder / "bin"
    folder.mkdir(exist_ok=True)
    script = folder / "queuectl"
    script.write_text(f'#!/bin/sh\nexec {" ".join(map(str, cli.command))} "$@"\n')
    script.chmod(0o755)
    env = cli.environment()
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env={**env, "PATH": f"{folder}:{env['PATH']}"},
        cwd=cli.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 0, (line, done.stderr)


@pytest.mark.parametrize("path", [path for path in GROUPS if path != "queuectl config"])
def test_bare_groups_print_their_help(path: str, cli: Cli) -> None:
    assert cli.run(*path.split()[1:], check=0).stdout == help_of(path)


def test_what_help_must_say() -> None:
    for command in ("enqueue", "start"):
        text = " ".join(help_of(f"queuectl {command}").split())
        for words in ("PATH, virtual environment and exports", "dash", '"pg_dump | gzip"'):
            assert words in text
    assert "not a limit on jobs" in text
    text = help_of("queuectl")
    for heading in ("Core commands:", "Configuration:", "Dead letter queue:"):
        assert f"\n{heading}\n" in text
    assert "worker" not in re.findall(r"^  (\w+)  ", text, re.MULTILINE)


def test_the_version(cli: Cli) -> None:
    assert cli.run("--version", check=0).stdout == "queuectl 0.1.0\n"


def test_the_shell_can_complete_commands_and_options(cli: Cli) -> None:
    for words, found in (("enq", "enqueue"), ("list --sta", "--state"), ("dlq re", "retry")):
        env = {
            "_QUEUECTL_COMPLETE": "bash_complete",
            "COMP_WORDS": f"queuectl {words}",
            "COMP_CWORD": str(len(words.split())),
        }
        assert cli.run(env=env).stdout == f"plain,{found}\n"


NEAREST = {
    "a command": (
        ["enque", "x"],
        "no such command 'enque': did you mean enqueue? see queuectl --h",
    ),
    "a command in capitals": (["LIST"], "no such command 'LIST': did you mean list? see queuectl"),
    "an option in capitals": (
        ["list", "--ALL"],
        "no such option --ALL: did you mean --all? see qu",
    ),
    "a command like none": (["xyz"], "no such command 'xyz'; see queuectl --help"),
    "a hostile command": (["\x1b[2J"], r"no such command '\x1b[2J'; see queuectl --help"),
    "a command of a group": (["dlq", "retyr"], "no such command 'retyr': did you mean retry? see"),
    "an option": (["list", "--sate", "x"], "no such option --sate: did you mean --state? see queu"),
    "an option before": (["--jsn", "list"], "no such option --jsn: did you mean --json? see queue"),
    "a short option": (["list", "-h"], "no such option -h; see queuectl list --help"),
    "a value for a flag": (["list", "--all=x"], "option '--all' does not take a value; see queuec"),
}


@pytest.mark.parametrize(("words", "why"), NEAREST.values(), ids=NEAREST)
def test_nearest_names(words: List[str], why: str, cli: Cli) -> None:
    assert refusal(cli, words).startswith(why)


@pytest.mark.parametrize("path", ALL)
def test_every_command_takes_the_common_options(path: str) -> None:
    names = [name for option in ALL[path].params for name in option.opts]
    assert {"--store", "--json"} <= set(names)


@pytest.mark.parametrize(
    "words",
    [["enqueue", "x"], ["list"], ["config", "get", "shell"], ["start", "--drain"]],
    ids=" ".join,
)
def test_common_options_are_taken_before_and_after_the_command(words: List[str], cli: Cli) -> None:
    with queue_of(cli):
        pass
    options = ["--store", str(cli.store), "--json"]
    cli.env["QUEUECTL_STORE"] = str(cli.folder / "another")
    for line in ([*options, *words], [words[0], *options, *words[1:]], [*words, *options]):
        done = cli.run(*line, check=0)
        for value in done.stdout.splitlines() if "start" in words else [done.stdout]:
            json.loads(value)
    assert not (cli.folder / "another").exists()


def test_the_last_store_counts_and_an_empty_one_is_none(cli: Cli) -> None:
    cli.run("enqueue", "x", "--id", "here", check=0)
    cli.run("--store", "other", "enqueue", "x", "--id", "there", "--store", cli.store, check=0)
    assert [job["id"] for job in cli.json("list", "--store", "")] == ["there", "here"]


# What docs/json.md says


def rows(heading: str) -> Dict[str, str]:
    """The first cells of the tables below a heading, each name with its type."""
    section = re.split(rf"^##+ {re.escape(heading)}$", JSON_PAGE, flags=re.MULTILINE)[1]
    section = re.split(r"^##+ ", section, flags=re.MULTILINE)[0]
    found = {}
    for cells, kind in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", cells):
            found[name] = kind
    return found


def test_every_field_of_a_job_is_documented_with_its_type() -> None:
    documented = rows("The job")
    assert list(documented) == list(SHOWN_FIELDS)
    types = {field.name: str(field.type) for field in fields(Job)}
    for name, said in documented.items():
        kind = {"string": "str", "time": "str", "integer": "int", "number": "float"}
        first = said.split(" or ")[0]
        if first in ("array", "object"):
            assert types[name].startswith("Tuple["), name
            continue
        expected = {"boolean": "bool"}.get(first) or kind[first]
        wanted = f"Optional[{expected}]" if said.endswith(" or null") else expected
        assert types[name] == wanted, name


def test_every_key_of_a_json_job_is_documented() -> None:
    assert set(rows("A job to enqueue")) == set(KEYS)


def test_every_field_of_doctor_is_documented(cli: Cli) -> None:
    with queue_of(cli):
        pass
    cli.store.chmod(0o722)
    found = cli.json("doctor", "--repair")
    assert set(found) | set(found["findings"][0]) == set(rows("doctor"))


def test_every_command_has_its_shape_documented() -> None:
    documented = " ".join(rows("What the commands give"))
    for path, command in ALL.items():
        name = path[len("queuectl ") :]
        if not isinstance(command, click.Group) and not name.startswith("worker"):
            assert name in documented, name


def test_every_field_of_status_is_documented(cli: Cli) -> None:
    with queue_of(cli):
        pass
    process = cli.spawn("start", "--json")
    process.expect('"started"')
    status = cli.json("status")
    assert set(status) | set(status["workers"][0]) == set(rows("status"))
    assert cli.json("stop")[0].keys() <= set(rows("status"))
    process.finish(0)


def test_every_field_of_an_event_is_documented(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("kill -9 $PPID", max_retries=1, cwd="/")
        queue.enqueue("sleep 0.2", cwd="/")
    out = cli.run("start", "--json", "--drain", "--count", "2", check=0).stdout
    events = [json.loads(line) for line in out.splitlines()]
    documented = rows("start")
    assert {name for event in events for name in event} == set(documented)
    silent = {"CLAIMED", "SPAWNED", "COMMITTED", "WARNING", "BACK"}
    kinds = {getattr(EventKind, name) for name in vars(EventKind) if name.isupper()} - {
        getattr(EventKind, name) for name in silent
    }
    section = JSON_PAGE.partition("### start")[2]
    said = re.search(r"^\| `event` \| string \| (.*) \|$", section, re.MULTILINE)
    assert said is not None
    assert set(re.findall(r"`(\w+)`", said[1])) == kinds | {"starting"}
