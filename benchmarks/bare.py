"""The bare loops that QueueCTL is compared with; each prints the seconds that it took.

    python bare.py read JOBFILE
    python bare.py write COMMANDS JOBFILE NEWFILE
    python bare.py copy FILE NEWFILE

It imports nothing of QueueCTL, and is a process of its own so that all begin alike.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from time import perf_counter
from typing import Callable, Dict


def read(path: str) -> None:
    """Read each line of a file as JSON."""
    with open(path, "rb") as lines:
        for line in lines:
            json.loads(line)


def write(commands: str, template: str, path: str) -> None:
    """For each command make a job with a UUID, and write it as a line like that of the template."""
    with open(template, "rb") as lines:
        job = next(job for job in map(json.loads, lines) if "command" in job)
    with open(commands, encoding="utf-8") as lines, open(path, "w", encoding="ascii") as file:
        for number, command in enumerate(lines, 1):
            job["id"] = str(uuid.uuid4())
            job["seq"] = number
            job["command"] = command.rstrip("\n")
            file.write(json.dumps(job, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())


def copy(source: str, path: str) -> None:
    """Copy a file and wait until the disk holds it."""
    with open(source, "rb") as old, open(path, "wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


if __name__ == "__main__":
    loops: Dict[str, Callable[..., None]] = {"read": read, "write": write, "copy": copy}
    began = perf_counter()
    loops[sys.argv[1]](*sys.argv[2:])
    print(perf_counter() - began)
