"""The README is true: what its fenced blocks say is run, and what they show is what is printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, List, NamedTuple, Tuple

import pytest

from support import Cli, Terminal

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block: the comment above it, its language, its text."""

    marker: str
    language: str
    text: str


BLOCKS = [
    Block(*found)
    for found in re.findall(
        r"(?:<!-- (\S+) -->\n)?^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
    )
]


def blocks(language: str, marker: str = "") -> List[Block]:
    found = [block for block in BLOCKS if (block.language, block.marker) == (language, marker)]
    assert found, f"the README has no {language} block {marker}"
    return found


def examples() -> List[Tuple[str, str]]:
    """The commands of all console blocks in order, each with what the README says it prints."""
    found: List[Tuple[str, str]] = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


def same_every_time(text: str, folder: str) -> List[str]:
    """Put a name in the place of what differs from run to run.

    Lines of workers come in any order.
    """
    text = text.replace(os.path.realpath(folder), "/home/you").replace(folder, "/home/you")
    for pattern, name in (
        (r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "<uuid>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "<time>"),
        (r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]", "<time>"),
        (r"\b\d+\.\d+s\b", "<duration>"),
        (r"\b[0-9a-f]{8}\b", "<id>"),
        (r"Worker-\d", "<worker>"),
    ):
        text = re.sub(pattern, name, text)
    lines = [line.rstrip() for line in text.strip().splitlines()]
    at = next((n for n, line in enumerate(lines) if line.startswith("<time>")), len(lines))
    return lines[:at] + sorted(lines[at:])


@pytest.mark.slow
def test_examples_print_what_the_readme_shows(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    script = cli.folder / "examples.sh"
    lines = []
    for number, (command, _) in enumerate(examples()):
        lines += [f"echo @{number}@", command]
    script.write_text("\n".join([*lines, "echo @end@", ""]), encoding="utf-8")
    session = terminal(program=["bash", str(script)], env={"QUEUECTL_STORE": None}, columns=120)
    assert session.wait(timeout=50) == 0
    printed = re.split(r"^@\w+@\n", session.text, flags=re.MULTILINE)[1:-1]
    shown = [same_every_time(text, str(cli.folder)) for text in printed]
    told = [same_every_time(text, "/home/you") for _, text in examples()]
    for (command, _), seen, said in zip(examples(), shown, told):
        assert seen == said, f"$ {command}"
    assert len(shown) == len(told) > 8


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_first_command_sets_up_and_runs_a_job(cli: Cli) -> None:
    checkout = cli.folder / "checkout"
    files = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    (block,) = blocks("bash", "ci:demo")
    environ = cli.environment({"QUEUECTL_STORE": None, "PYTHONPATH": None})
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=checkout,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "Hello World"


def test_second_command_installs_the_dev_extra_and_runs_the_tests() -> None:
    (block,) = blocks("bash", "ci:test")
    assert '".[dev]"' in block.text
    assert "pytest -n auto tests/" in block.text


def test_lines_of_daily_use(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    (block,) = blocks("bash")
    start, watch, count = block.text.strip().splitlines()
    cli.run("enqueue", "exit 1", "--max-retries", "1", check=0)

    session = terminal(program=["bash", "-c", start])
    session.expect(f"Starting {os.cpu_count()} workers? for 1 hour")
    session.expect("Job moved to DLQ")
    session.send("\x03")
    assert session.wait() == 130

    done = subprocess.run(
        ["bash", "-c", count], env=cli.environment(), stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert done.stdout.strip() == "1"

    if shutil.which("watch") is None:
        pytest.skip("watch is not installed, so its line was not tried")
    session = terminal(program=["bash", "-c", watch])
    session.expect("DLQ: 1")
    session.send("\x03")
    session.wait()


def test_python_examples(cli: Cli) -> None:
    for block in blocks("python"):
        program = block.text + "\nprint(job if isinstance(job, dict) else job.to_dict())\n"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=cli.environment(),
            cwd=cli.folder,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert done.returncode == 0
        assert "'command': 'make backup'" in done.stdout
    assert [job["max_retries"] for job in cli.json("list")] == [3, 3]


def test_cron_lines_work_in_the_bare_environment_of_cron(cli: Cli) -> None:
    (block,) = [block for block in blocks("") if "MAILTO" in block.text]
    queuectl = shutil.which("queuectl", path=cli.environment()["PATH"])
    assert queuectl is not None
    entries = re.findall(r"^(?:\S+ +){5}(/.*|flock.*)$", block.text, re.MULTILINE)
    environ = {
        "HOME": str(cli.folder),
        "SHELL": "/bin/sh",
        "PATH": "/usr/bin:/bin",
        "LOGNAME": "you",
        "QUEUECTL_STORE": str(cli.store),
    }
    for entry in entries:
        assert "%" not in entry.replace(r"\%", ""), "cron takes it for a newline"
        command = entry.replace(r"\%", "%")
        command = command.replace("/home/you/.local/bin/queuectl", queuectl)
        command = command.replace("/home/you/.queuectl.lock", f"{cli.folder}/lock")
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env=environ,
            cwd=cli.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=40,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        # Mail means trouble.
        assert all("failed" in line or "DLQ" in line for line in done.stdout.splitlines())
    (job,) = cli.json("list")
    assert re.search(r"backup-\d{4}-\d\d-\d\d$", job["command"])
    # There is no such folder here, so make fails; but it was run, three times.
    assert (job["state"], job["attempts"]) == ("dead", 3)
    assert len(entries) == 2


def test_lines_for_systemd_save_a_unit(cli: Cli) -> None:
    (block,) = [block for block in blocks("sh") if "systemctl" in block.text]
    script = re.sub(r"^(?:systemctl|loginctl) ", r"echo \g<0>", block.text, flags=re.MULTILINE)
    environ = cli.environment({"HOME": str(cli.folder)})
    subprocess.run(["bash", "-euc", script], env=environ, stdout=subprocess.DEVNULL, check=True)
    unit = (cli.folder / ".config/systemd/user/queuectl.service").read_text(encoding="utf-8")
    assert f"Environment=QUEUECTL_STORE={cli.store}\n" in unit
    assert re.search(r"^ExecStart=/.*/queuectl start --count 2$", unit, re.MULTILINE)


def test_json_example_is_json() -> None:
    (line,) = [printed for command, printed in examples() if "job1" in command]
    assert json.loads(line)["id"] == "job1"
