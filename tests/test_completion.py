"""TAB in a real bash, zsh and fish; and what is offered, which never harms, waits or complains."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import click
import pytest

from queuectl.cli import app
from queuectl.cli.command import Session
from queuectl.cli.completers import complete
from queuectl.config import SETTINGS
from queuectl.job import JobState
from queuectl.store.folder import StoreFolder
from queuectl.store.glance import glance
from support import Cli, Terminal, need, wait_until
from test_cli_support import queue_of, run

# How each shell is started, and what it reads then; S is the script, put where its users put it.
SHELLS: Dict[str, Tuple[List[str], Dict[str, str]]] = {
    "bash": (
        ["bash", "-i"],
        {".bashrc": "PS1='ready> '; unset HISTFILE; eval \"$(queuectl completion bash)\""},
    ),
    "zsh": (
        ["zsh", "-i"],
        {
            "zfunc/_queuectl": "S",
            ".zshrc": "PS1='ready> '; fpath=(~/zfunc $fpath); autoload -Uz compinit; compinit -u",
        },
    ),
    "zsh by eval": (
        ["zsh", "-i"],
        {
            ".zshrc": "PS1='ready> '; autoload -Uz compinit; compinit -u; "
            'eval "$(queuectl completion zsh)"'
        },
    ),
    "fish": (
        ["fish", "-i"],
        {
            ".config/fish/completions/queuectl.fish": "S",
            ".config/fish/config.fish": "set fish_greeting\n"
            "function fish_prompt; echo 'ready> '; end",
            # Else fish reads all manual pages at its first start.
            ".local/share/fish/generated_completions/none": "",
        },
    ),
}

HELP = {
    "bash": r"list\s+purge\s+retry",
    "zsh": r"purge\s+-- Delete dead jobs and what they printed",
    "zsh by eval": r"purge\s+-- Delete dead jobs and what they printed",
    "fish": r"purge\s+\(Delete dead jobs and what they printed\.\)",
}

# What is typed, with | for the cursor where it is not at the end; and what TAB makes of it.
LINES = {
    "enq": "enqueue",
    "dlq ret": "dlq retry",
    "list --sta": "list --state",
    "logs ni": "logs nightly",
    "logs ni| --json": "logs nightly --json",
    "logs --store other | --json": "logs --store other alone --json",
    "dlq retry de": "dlq retry dead",
    "logs --store other al": "logs --store other alone",
    "--store=other logs al": "--store=other logs alone",
    "logs --store ~/another ": "logs --store ~/another far",
    "list --state pend": "list --state pending",
    "list --state dead,pend": "list --state dead,pending",
    "list --state=pend": "list --state=pending",
    "config get backoff-j": "config get backoff-jitter",
    "config --key she": "config --key shell",
    "completion zs": "completion zsh",
    "import some": "import some.jsonl",
    "list --store oth": "list --store other",
    "list --store=oth": "list --store=other",
    "logs none-of-them": "logs none-of-them",
}


def start_shell(cli: Cli, name: str) -> Terminal:
    """A shell at a terminal that has read the script; `asked` counts how often it asked."""
    argv, files = SHELLS[name]
    need(argv[0])
    home = cli.folder / "home"
    script = cli.run("completion", argv[0], check=0).stdout
    for path, text in files.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(script if text == "S" else text)
    program = cli.folder / "bin" / "queuectl"
    program.parent.mkdir()
    called = " ".join(map(str, cli.command))
    program.write_text(
        f'#!/bin/sh\n{called} "$@" 2>>"{cli.folder}/errors"\necho >>"{cli.folder}/asked"\n'
    )
    program.chmod(0o755)
    env = {
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "XDG_CONFIG_HOME": None,
        "XDG_DATA_HOME": None,
        "PATH": f"{program.parent}:{cli.environment()['PATH']}",
    }
    session = cli.terminal(program=argv, env=env, columns=200)
    session.expect("ready> ", timeout=30)
    return session


def press_tab(cli: Cli, session: Terminal) -> None:
    """Press TAB, and wait until the shell has asked."""
    asked = cli.folder / "asked"
    before = asked.stat().st_size if asked.exists() else 0
    session.send("\t")
    wait_until(lambda: asked.exists() and asked.stat().st_size > before, what="the question")


def press_tab_behind(typed: str, cli: Cli, session: Terminal) -> None:
    """Type a line of queuectl, go back to the cursor, and press TAB."""
    head, _, rest = typed.partition("|")
    session.send(f"queuectl {head}{rest}")
    session.send("\x02" * len(rest))  # Ctrl-B
    press_tab(cli, session)


def line_of(session: Terminal) -> str:
    """The line that was typed, without the spaces and slashes that shells add or not."""
    # Ctrl-A goes to its beginning, Ctrl-E to its end.
    session.send("\x01echo '@\x05@'\r")
    line = session.expect(r"@queuectl (.*)@\r?\n")[1]
    # What is typed before the shell reads again need not reach it key by key.
    session.expect("ready> ")
    return " ".join(line.split()).rstrip("/")


@pytest.mark.parametrize("name", SHELLS)
def test_tab(name: str, cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="dead", max_retries=1, cwd="/")
        run(queue, error="Exit code 1")
        queue.enqueue("x", id="nightly", cwd="/")
    for store, job_id in (("other", "alone"), ("home/another", "far")):
        cli.run("enqueue", "x", "--id", job_id, "--store", store, check=0)
    (cli.folder / "some.jsonl").touch()
    session = start_shell(cli, name)
    for typed, line in LINES.items():
        press_tab_behind(typed, cli, session)
        assert line_of(session) == line
    # Where several fit, bash shows them at the second TAB; the newest comes first.
    for typed, shown in (("logs ", r"nightly\s+dead"), ("dlq ", HELP[name])):
        press_tab_behind(typed, cli, session)
        if name == "bash":
            press_tab(cli, session)
        session.expect(shown)
        assert line_of(session) == typed.strip()
    assert (cli.folder / "errors").read_text() == ""


# What is offered


def offered(cli: Cli, line: str, **options: Any) -> List[str]:
    """What is offered for the last word of a line, which may be empty."""
    words = line.split(" ")
    env = {
        "_QUEUECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["queuectl", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = cli.run(env=env, check=0, **options)
    assert done.stderr == ""
    items = [item.partition(",") for item in done.stdout.splitlines() if item]
    assert {kind for kind, _, _ in items} <= {"plain"}
    return [value for _, _, value in items]


def files_of(folder: Path) -> Dict[Path, Tuple[int, int]]:
    """All files in a folder, with what a change of any would change."""
    status = {path: path.stat() for path in folder.rglob("*")}
    return {path: (seen.st_size, seen.st_mtime_ns) for path, seen in status.items()}


def test_jobs_are_offered_the_newest_first(cli: Cli) -> None:
    with queue_of(cli) as queue:
        for number in range(70):
            queue.enqueue("x", id=f"a{number:02d}", cwd="/")
        for name in ("b.1", "b_2", "-b"):
            queue.enqueue("x", id=name, max_retries=1, cwd="/")
        while queue.find("-b").state != "dead":
            run(queue, error="Exit code 1" if queue.counts().pending < 4 else None)
    before = files_of(cli.store)
    assert offered(cli, "logs ") == ["b_2", "b.1", *(f"a{n:02d}" for n in range(69, 21, -1))]
    assert offered(cli, "show a0") == [f"a{number:02d}" for number in range(9, -1, -1)]
    assert offered(cli, "show none") == offered(cli, "show \N{GREEK SMALL LETTER ALPHA}") == []
    assert offered(cli, "show a05 ") == []
    assert offered(cli, "dlq retry ") == offered(cli, "dlq purge b") == ["b_2", "b.1"]
    assert offered(cli, "dlq retry b.1 ") == ["b_2"]
    assert offered(cli, "list --state pending b") == []
    assert files_of(cli.store) == before


def test_purged_jobs_are_not_offered_and_finished_ones_are_also_behind_a_rewrite(cli: Cli) -> None:
    with queue_of(cli) as queue:
        for number in range(4):
            queue.enqueue("x", id=f"done{number}", cwd="/")
        queue.enqueue("x", id="waits", cwd="/")
        for _ in range(4):
            run(queue)
        queue.store.rewrite()
        queue.store.remove([queue.find("done1")])
        queue.enqueue("x", id="new", cwd="/")
    seen = glance(StoreFolder(str(cli.store)), lambda job: True, 9)
    assert [job.job_id for job in seen] == [b"new", b"waits", b"done3", b"done2", b"done0"]
    assert "done3" not in (cli.store / "jobs.jsonl").read_text()
    assert offered(cli, "logs ") == ["new", "waits", "done3", "done2", "done0"]


def test_what_is_rare_is_looked_for_farther_back(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="rare", cwd="/")
        for number in range(4):
            queue.enqueue("x" * 100_000, id=f"large{number}", cwd="/")
    assert offered(cli, "logs ra") == ["rare"]


def test_the_store_is_the_one_that_the_line_names(cli: Cli) -> None:
    home = cli.folder / "home"
    for path in ("home/q", "other", "queuectl_data"):
        cli.run("enqueue", "x", "--id", os.path.basename(path), "--store", path, check=0)
    cli.env.update(HOME=str(home), PLACE=str(cli.folder))
    for line in ("--store other logs ", "logs --store other ", "--store=q logs --store=other "):
        assert offered(cli, line) == ["other"]
    assert offered(cli, "logs --store ~/q ") == ["q"]
    assert offered(cli, 'logs --store "$PLACE/other" ') == ["other"]
    assert offered(cli, "logs ") == []
    cli.env["QUEUECTL_STORE"] = "other"
    assert offered(cli, "logs ") == ["other"]
    cli.env["QUEUECTL_STORE"] = None
    assert offered(cli, "logs ") == ["queuectl_data"]
    assert not cli.store.exists()


def spoil(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


HARM: Dict[str, Callable[[Path], object]] = {
    "no job file": lambda store: (store / "jobs.jsonl").unlink(),
    "an empty job file": lambda store: (store / "jobs.jsonl").write_bytes(b""),
    "a damaged header": lambda store: spoil(store / "jobs.jsonl", b'"requires"', b'"Requires"'),
    "a damaged commit": lambda store: spoil(store / "jobs.jsonl", b'{"commit":1', b'{"commit":2'),
    "no commit": lambda store: spoil(store / "jobs.jsonl", b'{"commit"', b'{"Commit"'),
    "an id of no job": lambda store: spoil(store / "jobs.jsonl", b'"hurt"', b'"$(x)"'),
    "an id of no text": lambda store: spoil(store / "jobs.jsonl", b'"hurt"', b'"\xff\n,x"'),
    "a pipe": lambda store: ((store / "jobs.jsonl").unlink(), os.mkfifo(store / "jobs.jsonl")),
    "a folder": lambda store: ((store / "jobs.jsonl").unlink(), (store / "jobs.jsonl").mkdir()),
    "open to all": lambda store: store.chmod(0o777),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_store_that_is_not_right_offers_nothing(harm: Callable[[Path], object], cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="hurt", cwd="/")
    assert offered(cli, "logs ") == ["hurt"]
    harm(cli.store)
    before = files_of(cli.store)
    assert offered(cli, "logs ") == []
    assert files_of(cli.store) == before


@pytest.mark.parametrize("path", ["missing", "file", "file/below", "redis://localhost/0"])
def test_what_is_no_store_offers_nothing_and_becomes_none(path: str, cli: Cli) -> None:
    (cli.folder / "file").touch()
    before = files_of(cli.folder)
    assert offered(cli, f"--store {path} logs ") == []
    assert files_of(cli.folder) == before


def test_a_current_folder_that_was_deleted_offers_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = cli.folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    cli.env["QUEUECTL_STORE"] = None
    # A process that is started in the current folder needs none that exists.
    assert offered(cli, "logs ", cwd=".") == []


def test_it_does_not_wait_for_the_lock(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="here", cwd="/")
    with open(cli.store / "jobs.lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert offered(cli, "logs ", timeout=10) == ["here"]


def test_states_settings_and_shells_are_offered_without_a_store(cli: Cli) -> None:
    states = [*JobState.ALL, "dlq"]
    assert offered(cli, "list --state ") == states
    assert offered(cli, "list --state dead,") == [f"dead,{s}" for s in states if s != "dead"]
    assert offered(cli, "list --state p") == ["pending", "processing"]
    for line in ("config get ", "config set ", "config reset ", "config --key "):
        assert offered(cli, line) == list(SETTINGS)
    assert offered(cli, "config get max-") == ["max-retries", "max-output"]
    assert offered(cli, "config set shell ") == []
    assert offered(cli, "completion ") == ["bash", "zsh", "fish"]
    assert not cli.store.exists()


def test_what_jobs_have_is_offered(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="here", cwd="/", queue="email", labels=["nightly", "größe"])
    monkeypatch.setenv("QUEUECTL_STORE", str(cli.store))
    context = click.Context(app.queuectl, obj=Session())
    for option, prefix, values in (
        ("--queue", "", ["default", "email"]),
        ("--queue", "e", ["email"]),
        ("--queue", "x", []),
        # Those that a shell could take for more than a word are left out.
        ("--label", "", ["nightly"]),
        ("--after", "", ["here"]),
        ("--priority", "", ["high", "medium", "low"]),
    ):
        found = complete(context, click.Option([option]), prefix)
        assert [item.value for item in found] == values


def test_a_script_in_json_is_refused(cli: Cli) -> None:
    done = cli.run("completion", "bash", "--json", check=2)
    assert done.stderr.startswith("queuectl: completion has no JSON form; see")
