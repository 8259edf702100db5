"""`start` on a store as machines share it: with a time of its own, and claims that must be renewed.

It is the file store with that added. Run as a program, with a JSON object of the attributes of
`SharedStore` to change and then the folder of the store, it is `start --drain` there. Files in the
current folder tell what shall fail: `cut`, every renewal; `once`, the next one; `away`, also what
saves and claims. What happens is written to standard error, a line each. With more words, it is
`queuectl WORDS` there.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
from typing import Any, Optional, Sequence

from queuectl import clock
from queuectl.cli.app import run
from queuectl.cli.command import Session
from queuectl.errors import StoreError
from queuectl.events import Event
from queuectl.job import Job
from queuectl.manager import QueueManager
from queuectl.store.base import SharedOutput
from queuectl.store.file import FileStore
from queuectl.supervisor import Supervisor


class SharedStore(FileStore):
    """A store that may be away.

    Attributes:
        ahead: how many seconds its clock is ahead of that of this machine.
        lasts: for how many seconds a claim holds.
        longest_rest: as in the contract.
        is_afar: whether this is another machine than the one that runs the jobs.
    """

    ahead = 0.0
    drain = True
    lasts: Optional[float] = None
    is_afar = False
    # Where the files are: a worker changes its folder with each job.
    home = os.getcwd()

    def now(self) -> float:
        return clock.now() + self.ahead

    @property
    def claim_lasts(self) -> Optional[float]:
        return self.lasts

    def current(self, claimed: Job) -> Optional[Job]:
        self._fail_if("cut", "away")
        once = os.path.join(self.home, "once")
        if os.path.exists(once):
            os.unlink(once)
            raise StoreError("no answer")
        return super().current(claimed)

    def claim(self, *args: Any, **options: Any) -> Optional[Job]:
        self._fail_if("away")
        with open(os.path.join(self.home, "claims"), "a", encoding="ascii") as file:
            file.write("x")
        return super().claim(*args, **options)

    def save(self, jobs: Sequence[Job], durable: bool = True) -> None:
        self._fail_if("away")
        super().save(jobs, durable)

    def spool(self, worker: str) -> str:
        return "/nowhere/spool" if self.is_afar else super().spool(worker)

    def kept_output(self, job_id: str, run: int) -> str:
        return "/nowhere/kept" if self.is_afar else super().kept_output(job_id, run)

    def share_output(self, job: Job, output: SharedOutput) -> None:
        self._fail_if("away")
        path = self._shared_path(job.id, job.runs)
        with open(f"{path}.new", "wb") as file:
            pickle.dump(output, file)
        os.replace(f"{path}.new", path)

    def shared_output(self, job_id: str, run: int) -> Optional[SharedOutput]:
        try:
            with open(self._shared_path(job_id, run), "rb") as file:
                found = pickle.load(file)
        except FileNotFoundError:
            return None
        assert isinstance(found, SharedOutput)
        return found

    def _shared_path(self, job_id: str, run: int) -> str:
        return os.path.join(self.home, f"{job_id}.{run}.shared")

    def _fail_if(self, *names: str) -> None:
        if any(os.path.exists(os.path.join(self.home, name)) for name in names):
            raise StoreError("no answer")


def report(event: Event) -> None:
    """Write an event down."""
    job = "" if event.job is None else f" {event.job.id}"
    sys.stderr.write(f"{event.kind}{job} {event.detail}\n")
    sys.stderr.flush()


def main(changes: str, folder: str, *words: str) -> int:
    """Run what there is to run, or a command."""
    for name, value in json.loads(changes).items():
        assert hasattr(SharedStore, name)
        setattr(SharedStore, name, value)
    with contextlib.closing(SharedStore(folder)) as store:
        manager = QueueManager(store)
        if words:
            Session.open = lambda self, create=False: manager  # type: ignore[method-assign]
            return run(list(words))
        return Supervisor(
            manager, count=1, timeout=None, drain=SharedStore.drain, report=report
        ).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
