"""Kinds of stores: which are known, what a plugin may be, and that a broken one harms nobody."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Dict, List

import pytest

from support import Cli
from test_cli_support import complaint

SCHEMES = ["redis", "rediss", "unix", "redis+sentinel"]

# A kind of store whose URLs name a folder; it tells what it was called with.
ECHO = """
from queuectl.store.file import FileStore

def open_echo(url, create, notice):
    notice(f"{url} {create}")
    return FileStore(url[len("echo://") :], create, notice)

class Opener:
    class Inner(FileStore):
        def __init__(self, url, create, notice):
            super().__init__(url[len("inner://") :], create, notice)
"""


def install(cli: Cli, name: str, points: Dict[str, str], code: str = "", version: str = "1") -> str:
    """Install a distribution with entry points and a module of its name for a test's commands."""
    site = cli.folder / f"site-{name}"
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (site / f"{name.replace('-', '_')}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{scheme} = {place}\n" for scheme, place in points.items()]
    (info / "entry_points.txt").write_text("".join(["[queuectl.stores]\n", *lines]))
    others = cli.env.get("PYTHONPATH")
    cli.env["PYTHONPATH"] = os.pathsep.join([str(site), *([others] if others else [])])
    return str(site)


def rows(cli: Cli) -> List[List[str]]:
    """What `queuectl stores` lists."""
    return [line.split("\t") for line in cli.run("stores", check=0).stdout.splitlines()]


def refusal(cli: Cli, url: str, code: int = 3) -> str:
    """What a command says that cannot open a store."""
    return complaint(cli.run("--store", url, "list", check=code).stderr)


@pytest.fixture
def no_redis(cli: Cli) -> None:
    """The commands of the test have no client of Redis."""
    folder = cli.folder / "without"
    folder.mkdir()
    (folder / "redis.py").write_text("raise ImportError('not here')\n")
    cli.env["PYTHONPATH"] = str(folder)


@pytest.mark.usefixtures("no_redis")
def test_what_is_built_in_is_listed_with_what_it_needs(cli: Cli) -> None:
    needs = [f'{scheme}:// stores need pip install "queuectl[redis]"' for scheme in SCHEMES]
    assert rows(cli)[:5] == [
        ["(folder)", "built in", "ready", ""],
        *([scheme, "built in", "not ready", need] for scheme, need in zip(SCHEMES, needs)),
    ]
    found: List[Dict[str, Any]] = cli.json("stores")
    assert [kind["scheme"] for kind in found[:5]] == [None, *SCHEMES]
    assert found[0] == {"scheme": None, "distribution": None, "version": None, "problem": None}
    assert [kind["problem"] for kind in found[1:5]] == needs
    assert [refusal(cli, f"{scheme}://h/0") for scheme in SCHEMES] == needs
    terminal = cli.terminal("stores", columns=120)
    assert terminal.wait() == 0
    assert "Kinds of stores" in terminal.text
    assert re.search(r"│ redis +│ built in +│ not ready", terminal.text)
    assert not cli.store.exists()


def test_a_plugin_may_be_a_function_or_a_class(cli: Cli) -> None:
    points = {"echo": "my_store:open_echo", "inner": "my_store:Opener.Inner [extra]"}
    install(cli, "my-store", points, ECHO, "2.5")
    assert rows(cli)[5:] == [
        ["echo", "my-store 2.5", "ready", ""],
        ["inner", "my-store 2.5", "ready", ""],
    ]
    assert cli.json("stores")[5] == {
        "scheme": "echo", "distribution": "my-store", "version": "2.5", "problem": None
    }  # fmt: skip
    url = f"echo://{cli.folder}/here"
    assert (
        f"queuectl: {url} False\nqueuectl: no store at"
        in cli.run("--store", url, "list", check=3).stderr
    )
    done = cli.run("--store", url, "enqueue", "true", "--id", "a", check=0)
    assert f"queuectl: {url} True\n" in done.stderr
    cli.env["QUEUECTL_STORE"] = f"inner://{cli.folder}/here"
    assert [job["id"] for job in cli.json("list")] == ["a"]


BROKEN = {
    "what is not there": ("absent:x", "", "ModuleNotFoundError: No module named 'absent'"),
    "no such name": ("broken:x", "", "AttributeError: module 'broken' has no attribute 'x'"),
    "no name": ("broken", "", "AttributeError: module 'broken' has no attribute ''"),
    "an error": ("broken:x", "raise RuntimeError('a\\nb\\x1b[2J')", r"RuntimeError: a b\x1b[2J"),
    "bad code": ("broken:x", "def", "SyntaxError: invalid syntax (broken.py, line 1)"),
}


@pytest.mark.parametrize(("place", "code", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_and_breaks_no_other(
    place: str, code: str, why: str, cli: Cli
) -> None:
    install(cli, "broken", {"bad": place}, code, "0.3")
    install(cli, "my-store", {"echo": "my_store:open_echo"}, ECHO)
    said = f"broken 0.3 cannot be loaded: {why}"
    assert rows(cli)[5:] == [
        ["bad", "broken 0.3", "not ready", said],
        ["echo", "my-store 1", "ready", ""],
    ]
    assert refusal(cli, "bad://x") == said
    cli.run("--store", f"echo://{cli.folder}/here", "enqueue", "true", check=0)
    cli.run("enqueue", "true", check=0)


def test_a_plugin_that_opens_no_store_is_named(cli: Cli) -> None:
    code = "number = 7\ndef open_none(url, create, notice): pass\n"
    install(cli, "none", {"number": "none:number", "none": "none:open_none"}, code)
    said = "none 1 cannot open a store: none:number is no function"
    assert rows(cli)[5:] == [
        ["none", "none 1", "ready", ""],
        ["number", "none 1", "not ready", said],
    ]
    assert refusal(cli, "number://x") == said
    assert refusal(cli, "none://x") == "none 1 opened no store, but gave a NoneType"


def test_a_scheme_belongs_to_one(cli: Cli) -> None:
    """Nobody guesses which of two is meant, and nobody takes the place of what is built in."""
    for name in ("one", "two"):
        install(cli, name, {"echo": f"{name}:open_echo"}, ECHO)
    install(cli, "bold", {"redis": "bold:open_echo", "Sql://": "bold:open_echo"}, ECHO)
    both = "echo:// stores come with one 1 and two 1: uninstall one"
    assert [line[:2] + line[3:] for line in rows(cli)[5:]] == [
        ["Sql://", "bold 1", "bold 1 names no scheme of a URL: 'Sql://'"],
        ["echo", "one 1", both],
        ["echo", "two 1", both],
        ["redis", "bold 1", "redis:// stores come with queuectl: bold 1 is not used"],
    ]
    assert refusal(cli, "echo://x") == both
    assert "bold" not in cli.run("--store", "redis://127.0.0.1:1/0", "list").stderr


def test_of_one_distribution_the_first_on_the_path_counts(cli: Cli) -> None:
    older = install(cli, "echoes", {"echo": "echoes:open_echo"}, ECHO)
    os.rename(older, cli.folder / "older")
    install(cli, "echoes", {"echo": "echoes:open_echo"}, ECHO, "2")
    cli.env["PYTHONPATH"] = f"{cli.folder / 'site-echoes'}{os.pathsep}{cli.folder / 'older'}"
    assert rows(cli)[5:] == [["echo", "echoes 2", "ready", ""]]


def test_nobody_else_looks_at_what_is_installed(cli: Cli) -> None:
    """Not whoever uses a folder, nor whoever uses what is built in."""
    run = "from queuectl.cli.app import run; run(sys.argv[1:]);"
    told = f"import sys; {run} print('importlib.metadata' in sys.modules)"
    cli.command = [sys.executable, "-c", told]
    folder = str(cli.folder / "here")
    assert cli.run("--store", folder, "enqueue", "true", "--quiet").stdout == "False\n"
    # The client library of Redis imports it for itself.
    without = f"import sys, importlib.metadata as m; m.distributions = None; {run}"
    cli.command = [sys.executable, "-c", without]
    done = cli.run("--store", "redis://127.0.0.1:1/0", "enqueue", "true", "--quiet")
    assert "Traceback" not in done.stderr
    assert "redis://" in done.stderr
