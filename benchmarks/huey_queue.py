"""The huey queue that is drained; a module of its own, for huey's consumer imports it.

Where it is, the variables tell: `HUEY_SOCKET` that of a Redis server, or `HUEY_FILE` a file, and
`HUEY_FSYNC` whether that is synced.
"""

from __future__ import annotations

import os
import subprocess

from huey import RedisHuey, SqliteHuey

queue = (
    RedisHuey(url=f"unix://{os.environ['HUEY_SOCKET']}")
    if "HUEY_SOCKET" in os.environ
    else SqliteHuey(filename=os.environ["HUEY_FILE"], fsync=os.environ["HUEY_FSYNC"] == "1")
)


@queue.task()  # type: ignore[untyped-decorator]
def shell(command: str) -> None:
    """Run a command as QueueCTL does, but keep nothing of its output."""
    subprocess.run(["sh", "-c", command])


def fill(jobs: int, last: str) -> None:
    """Queue `true` jobs and a last command."""
    for _ in range(jobs - 1):
        shell("true")
    shell(last)
