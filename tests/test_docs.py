"""Nothing is undocumented: commands, options, settings and exit codes, all in the README."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Iterator, Tuple

import click
import pytest

import queuectl
from queuectl import errors
from queuectl.cli import app
from queuectl.config import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODES = {int(code) for code in re.findall(r"^\| (\d+) \| ", README, re.MULTILINE)}
GLOBAL = {"--store", "--json", "--help", "--version"}


def commands(group: click.Command, path: str) -> Iterator[Tuple[str, click.Command]]:
    """All commands that the help shows, with how they are called."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if not command.hidden:
            yield from commands(command, f"{path} {name}")


COMMANDS = dict(commands(app.queuectl, "queuectl"))


def test_there_are_commands_to_document() -> None:
    assert {"queuectl enqueue", "queuectl dlq retry", "queuectl config reset"} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_in_the_readme(path: str) -> None:
    # `queuectl config get` stands there as `config get`, beside the option that does the same.
    words = path.split()
    short = " ".join(words[1:]) if len(words) > 2 else path
    assert re.search(rf"^\| `(?:queuectl )?{short}|`{short}[ `]", README, re.MULTILINE), path


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_in_the_readme(path: str) -> None:
    table = "\n".join(line for line in README.splitlines() if line.startswith("| `"))
    for parameter in COMMANDS[path].params:
        names = [name for name in parameter.opts if name.startswith("--")]
        if names and names[0] not in GLOBAL:
            assert names[0] in table, f"{path} {names[0]}"


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\S+)` \|", README, re.MULTILINE))
    assert rows == {name: setting.write(setting.default) for name, setting in SETTINGS.items()}


def test_every_exit_code_is_in_the_readme() -> None:
    raised = {
        kind.exit_code
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.QueueError)
    }
    assert raised | {0, app.BUG, app.INTERRUPTED, app.PIPE_CLOSED} == CODES


def test_every_error_is_drawn_in_the_tree_with_its_exit_code() -> None:
    assert errors.__doc__ is not None
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.QueueError) and kind is not errors.QueueError:
            assert re.search(rf"── {name} ", errors.__doc__), name
            drawn = re.search(rf"── {name} +(\d+)  ", errors.__doc__)
            assert drawn is None or int(drawn[1]) == kind.exit_code


def test_the_changelog_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{queuectl.__version__}]" in text


def test_everything_that_the_package_offers_exists() -> None:
    for name in queuectl.__all__:
        assert getattr(queuectl, name) is not None
    with pytest.raises(AttributeError):
        queuectl.no_such_thing  # noqa: B018  # looked up on purpose
