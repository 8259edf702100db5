"""The systemd unit that `queuectl service` prints, as systemd itself reads it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

from support import Cli, need

ODD = {
    "plain": "plain",
    "a space": "a b",
    "a percent sign": "100%h",
    "a dollar sign": "$HOME ${PATH} $$x",
    "double quotes": 'say "x"',
    "single quotes": "it's",
    "a backslash": "back\\slash\\",
    "other letters": "\N{LATIN SMALL LETTER E WITH ACUTE}\N{SNOWMAN}",
    "a hash": "# ;=",
    "control characters": "a\nb\tc\x1bd\x9be",
}


def installed(folder: Path) -> Path:
    """A queuectl of the same Python in a folder of its own."""
    program = folder / "queuectl"
    folder.mkdir(exist_ok=True)
    found = shutil.which("queuectl", path=os.path.dirname(sys.executable))
    assert found is not None
    return Path(shutil.copy(found, program))


def print_unit(cli: Cli, program: Path, *args: Any, env: Dict[str, Any]) -> str:
    """What `service` prints when that program is called."""
    done = subprocess.run(
        [program, "service", *args],
        env=cli.environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout.decode("utf-8")


def verified(cli: Cli, unit: str) -> str:
    """What systemd makes of a unit, if it finds nothing wrong with it."""
    need("systemd-analyze")
    path = cli.folder / "queuectl.service"
    path.write_text(unit, encoding="utf-8")
    env = {"HOME": str(cli.folder), "XDG_RUNTIME_DIR": str(cli.folder), "SYSTEMD_COLORS": "0"}
    for level in ("info", "debug"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", path],
            env=cli.environment({**env, "SYSTEMD_LOG_LEVEL": level}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        said = done.stderr.decode("utf-8", "replace")
        assert done.returncode == 0, said
        assert level == "debug" or "queuectl" not in said, said
    return done.stdout.decode("utf-8")


def _meant(escaped: re.Match[str]) -> str:
    text = escaped[1]
    return chr(int(text, 8)) if text.isdigit() else {"n": "\n", "t": "\t"}.get(text, text)


def words_of(shown: str) -> List[str]:
    """The words of the one command that systemd shows, as it would run it."""
    command = shown.partition("Command Line: ")[2].partition("\n\t")[0]
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', command, re.DOTALL)
    words = [re.sub(r"\\(\d{3}|.)", _meant, quoted) or bare for quoted, bare in found]
    assert not any(re.search(r"(?<!\$)\$(?:\$\$)*(?!\$)", word) for word in words[1:])
    return [words[0], *(word.replace("$$", "$") for word in words[1:])]


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_systemd_reads_every_path_as_it_is(name: str, cli: Cli) -> None:
    program = installed(cli.folder / name)
    store = cli.folder / name / f"store {name}"
    path = f"{cli.folder}/{name}:/usr/bin:/bin"
    env = {"PATH": path}
    shown = verified(cli, print_unit(cli, program, "--store", store, env=env))
    assert f"Environment: QUEUECTL_STORE={store}\n" in shown
    assert f"Environment: PATH={path}\n" in shown
    assert not store.exists()

    words = words_of(shown)
    assert words[-2:] == [str(program), "start"]
    env = {**cli.environment(), "PATH": path, "QUEUECTL_STORE": str(store)}
    done = subprocess.run([*words, "--drain"], env=env, cwd="/", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert store.exists()


def settings_of(unit: str) -> Dict[str, str]:
    """What a unit says, by name."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))


def test_what_the_unit_says(cli: Cli) -> None:
    unit = cli.run("service", "--count", "3", env={"PATH": None}, check=0).stdout
    assert verified(cli, unit)
    said = settings_of(unit)
    assert said.pop("TimeoutStopSec").isdigit()
    assert said == {
        "Description": "QueueCTL workers",
        "Environment": f"QUEUECTL_STORE={cli.store}",
        "ExecStart": f"{sys.executable} -m queuectl start --count 3",
        "KillMode": "mixed",
        "OOMPolicy": "continue",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "2 3 4",
        "WantedBy": "default.target",
    }
    head = unit.partition("[Unit]")[0]
    for hint in ("~/.config/systemd/user/queuectl.service", "enable --now", "enable-linger"):
        assert hint in head
    assert not cli.store.exists()


def test_systemd_waits_for_longer_than_both_graces(cli: Cli) -> None:
    def patience(**env: str) -> int:
        return int(settings_of(cli.run("service", env=env, check=0).stdout)["TimeoutStopSec"])

    assert 35 < patience() < 60
    cli.run("config", "set", "shutdown_grace", "1h", check=0)
    cli.run("config", "set", "kill_grace", "90.5s", check=0)
    assert 3691 < patience() < 3720
    # A variable of this shell is none of the service.
    assert 3691 < patience(QUEUECTL_SHUTDOWN_GRACE="1s") < 3720
    cli.run("config", "set", "on_dead", "true", check=0)
    assert 3691 + 30 + 90 < patience() < 3720 + 30 + 90


def test_a_unit_in_json_and_a_path_that_is_not_utf_8_are_refused(cli: Cli) -> None:
    done = cli.run("service", "--json", check=2)
    assert done.stderr.startswith("queuectl: service has no JSON form: it is a systemd unit; see")
    done = cli.run("service", "--store", b"/x\xff", check=1)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert r"/x\xff" in done.stderr
    cli.run("service", "--count", "0", check=2)


def test_a_unit_is_utf_8_whatever_the_locale(cli: Cli) -> None:
    store = f"{cli.folder}/\N{LATIN SMALL LETTER E WITH ACUTE}"
    env = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    unit = cli.run("service", "--store", store, env=env, check=0).stdout
    assert settings_of(unit.replace("Environment=PATH", ""))["Environment"] == (
        f'"QUEUECTL_STORE={store}"'
    )
