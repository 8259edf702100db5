"""`python -m benchmarks.soak`: workers are killed at random under load, for ten minutes.

Jobs that succeed, that print and that fail go through one `start` as fast as it takes them, while
its workers are killed one by one. What must be true at the end:

- every job that was acknowledged is in the store, or was seen dead and purged on the way;
- each has ended: what succeeds is completed, what fails is dead, and only a job whose every attempt
  was spent by dying workers may have come to anything else;
- each that completed has run, and none has run more often than it was claimed;
- the most memory and the longest job file of the second half exceed those of the first by no more
  than a quarter.

The history and the output that is kept grow by design; what is dead stays in the job file, so it is
purged, as a user would.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence

from benchmarks.environment import CHECKOUT
from benchmarks.processes import children, memory, running
from queuectl import QueueManager
from queuectl.filter import DEAD_JOBS
from queuectl.job import Job, JobState
from queuectl.newjob import NewJob

# Without the files that a rescue maps to look through them: the history among them grows by design.
_OWN = ("Pss_Anon:", "Pss_Shmem:")
_RAN = 'echo "$QUEUECTL_JOB_ID" >> "$RAN"'
_SUCCEEDS = (
    f"{_RAN}",
    f"{_RAN}; echo done",
    f"{_RAN}; head -c 50000 /dev/urandom",
    f"{_RAN}; sleep 0.02",
)
_FAILS = f"{_RAN}; echo failing; exit 3"
_WORKERS = 4
_BACKLOG = 400
_SAMPLE = 2.0  # seconds
_KILL = (0.2, 1.5)  # seconds between two kills
_SLACK = 1.25  # how much larger the second half may be than the first
_REWRITES = 1  # as many in each half are needed to compare job files: each follows a peak


class Sample(NamedTuple):
    """What was seen at one moment.

    Attributes:
        memory: of `start` and its workers, without the files that they map, in MB.
        size: of the job file, in bytes.
        inode: of the job file; another one after a rewrite.
    """

    memory: float
    size: int
    inode: int


class Soak:
    """One soak.

    Args:
        store: where its store is made.
        queue: that store.
    """

    def __init__(self, store: Path, queue: QueueManager) -> None:
        self._job_file = store / "jobs.jsonl"
        self._queue = queue
        self.acknowledged: Dict[str, str] = {}
        self.purged: Dict[str, Job] = {}
        self.samples: List[Sample] = []
        self.kills = 0

    def load(self, start: subprocess.Popen[bytes], seconds: float) -> None:
        """Keep `start` busy and kill its workers, for so long or until it ends."""
        now = time.monotonic()
        end, kill_at, sample_at = now + seconds, now + 1.0, now + _SAMPLE
        while now < end and start.poll() is None:
            if self._queue.counts().pending < _BACKLOG:
                self._enqueue()
            if now >= kill_at:
                self._kill(start.pid)
                kill_at = now + random.uniform(*_KILL)
            if now >= sample_at:
                self._sample(start.pid)
                self.purge()
                sample_at = now + _SAMPLE
            time.sleep(0.02)
            now = time.monotonic()

    def purge(self) -> None:
        """Purge what is dead, but keep what it came to."""
        dead = list(self._queue.jobs(DEAD_JOBS))
        if dead:
            self._queue.purge_dead([job.id for job in dead])
            self.purged.update((job.id, job) for job in dead)

    def _enqueue(self) -> None:
        commands = [*random.choices(_SUCCEEDS, k=90), *[_FAILS] * 10]
        random.shuffle(commands)
        jobs = self._queue.enqueue_many([NewJob(command, cwd="/") for command in commands])
        self.acknowledged.update((job.id, job.command) for job in jobs)

    def _kill(self, start: int) -> None:
        workers = [member.pid for member in self._queue.members("worker")]
        # Only children of this very `start`; one may be gone since it was looked up.
        mine = [pid for pid in workers if pid in children(start)]
        if mine:
            try:
                os.kill(random.choice(mine), signal.SIGKILL)
                self.kills += 1
            except ProcessLookupError:
                pass

    def _sample(self, start: int) -> None:
        try:
            used = memory([start, *children(start)], _OWN)
        except (FileNotFoundError, ProcessLookupError):
            return  # One was killed just now.
        status = self._job_file.stat()
        self.samples.append(Sample(used, status.st_size, status.st_ino))


def differences(soak: Soak, queue: QueueManager, ran: Path) -> Iterator[str]:
    """Tell what does not add up."""
    runs = collections.Counter(ran.read_text("ascii").split())
    ended = {job.id: job for job in queue.jobs()}
    ended.update(soak.purged)
    for job_id in soak.acknowledged.keys() - ended.keys():
        yield f"{job_id} was acknowledged and is lost"
    for job_id in ended.keys() - soak.acknowledged.keys():
        yield f"{job_id} is there and was never acknowledged"
    for job in ended.values():
        wanted = JobState.DEAD if job.command == _FAILS else JobState.COMPLETED
        was_spent = job.state == JobState.DEAD and job.last_error == "Worker died"
        if job.state != wanted and not was_spent:
            yield f"{job.id} is {job.state} and not {wanted}: {job.command}"
        least = 1 if job.state == JobState.COMPLETED else 0
        if not least <= runs[job.id] <= job.runs:
            yield f"{job.id} ran {runs[job.id]} times and was claimed {job.runs} times"


def growth(samples: Sequence[Sample]) -> Iterator[str]:
    """Tell what is not flat."""
    half = len(samples) // 2
    if half < 2:
        return
    first, second = samples[:half], samples[half:]
    before, after = (max(sample.memory for sample in part) for part in (first, second))
    if after > before * _SLACK:
        yield f"memory grew from {before:.1f} MB to {after:.1f} MB"
    rewrites = [len({sample.inode for sample in part}) - 1 for part in (first, second)]
    before, after = (max(sample.size for sample in part) / 1e6 for part in (first, second))
    if min(rewrites) < _REWRITES:
        print(f"{rewrites[0]} and {rewrites[1]} rewrites: too few to compare the job file's sizes")
    elif after > before * _SLACK:
        yield f"the job file grew from {before:.1f} MB to {after:.1f} MB"


def main(argv: Sequence[str]) -> int:
    """Soak; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="default: 10")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to work")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="queuectl-soak-", dir=options.folder))
    ran = folder / "ran"
    ran.touch()
    # Jobs of dead workers and failing ones come back at once.
    environ = {**os.environ, "RAN": str(ran), "QUEUECTL_BACKOFF_BASE": "0"}
    start = [sys.executable, "-m", "queuectl", "start", "--quiet", "--count", str(_WORKERS)]
    with QueueManager.open(str(folder / "store")) as queue:
        environ["QUEUECTL_STORE"] = str(folder / "store")
        environ["PYTHONPATH"] = str(CHECKOUT)
        soak = Soak(folder / "store", queue)
        with running(start, environ) as process:
            soak.load(process, options.minutes * 60)
            while process.poll() is None and not queue.is_drained():
                time.sleep(0.1)
        soak.purge()
        found = [*differences(soak, queue, ran), *growth(soak.samples)]
    print(
        f"{len(soak.acknowledged)} jobs acknowledged, {len(soak.purged)} of them purged as dead, "
        f"{soak.kills} workers killed"
    )
    print("\n".join(found[:50]) or "it all adds up")
    if found:
        print(f"{len(found)} differences; see {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
