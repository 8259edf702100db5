"""Verifies an installed QueueCTL from the outside: `python verify_all.py`.

It runs the `queuectl` that PATH finds, against temporary stores, with real workers. Each check has
a store of its own and leans on nothing that another check verifies, so a feature that is broken
fails its own line and no other. Exits 1 if a line says FAIL.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Optional, Tuple

PATIENCE = 30.0
AT_ONCE = 4  # checks mostly wait


class BrokenFeatureError(Exception):
    """A feature does not do what it promises."""


class Queue:
    """The commands of QueueCTL on one store."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        kept = {name: text for name, text in os.environ.items() if not name.startswith("QUEUECTL_")}
        self.environ = {
            **kept,
            "QUEUECTL_STORE": os.path.join(folder, "store"),
            "PYTHONIOENCODING": "utf-8",
        }

    def run(self, *args: str, code: int = 0, text: Optional[str] = None, **environ: str) -> str:
        """Run a command, require its exit code, and return what it printed."""
        done = subprocess.run(
            ["queuectl", *args],
            input=text or "",
            capture_output=True,
            encoding="utf-8",
            env={**self.environ, **environ},
            cwd=self.folder,
            timeout=2 * PATIENCE,
        )
        if done.returncode != code:
            raise BrokenFeatureError(
                f"queuectl {' '.join(args)} exited {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def add(self, *jobs: Dict[str, Any]) -> None:
        """Enqueue jobs without the form of the command that has a check of its own."""
        self.run(
            "enqueue",
            "--file",
            "-",
            "--quiet",
            text="".join(json.dumps(job) + "\n" for job in jobs),
        )

    def drain(self, **environ: str) -> None:
        self.run("start", "--drain", "--quiet", **environ)

    def start(self, *args: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start workers in the background."""
        return subprocess.Popen(
            ["queuectl", "start", "--quiet", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**self.environ, **environ},
            cwd=self.folder,
        )

    def job(self, job_id: str) -> Dict[str, Any]:
        shown: Dict[str, Any] = json.loads(self.run("show", job_id, "--json"))
        return shown

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def read(self, name: str) -> str:
        try:
            with open(self.path(name), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""


def require(condition: object, what: str) -> None:
    if not condition:
        raise BrokenFeatureError(what)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        require(time.monotonic() < deadline, f"waited in vain for {what}")
        time.sleep(0.02)


def job_enqueue(queue: Queue) -> None:
    job = json.loads(queue.run("enqueue", "echo 'hello there'", "--max-retries", "2"))
    require(
        job["state"] == "pending" and job["max_retries"] == 2, "the new job is not as asked for"
    )
    require(queue.job(job["id"])["command"] == "echo 'hello there'", "the job is not in the store")
    queue.run("enqueue", "true", "--id", "one")
    queue.run("enqueue", "true", "--id", "one", code=1)


def status_command(queue: Queue) -> None:
    queue.add({"id": "a", "command": "true"}, {"id": "b", "command": "exit 3", "max_retries": 1})
    queue.drain()
    queue.add({"command": "true"})
    counts = json.loads(queue.run("status", "--json"))
    seen = [counts[state] for state in ("pending", "completed", "dead", "total")]
    require(seen == [1, 1, 1, 3], f"the counts are wrong: {counts}")
    require("Pending: 1" in queue.run("status"), "the text does not say what is pending")


def list_command(queue: Queue) -> None:
    queue.add(*({"id": f"job{number}", "command": f"echo {number}"} for number in range(3)))
    listed = [job["id"] for job in json.loads(queue.run("list", "--json"))]
    require(listed == ["job2", "job1", "job0"], f"the newest is not first: {listed}")
    rows = queue.run("list", "--state", "pending").splitlines()
    require(len(rows) == 3 and rows[0].split("\t")[0] == "job2", "a pipe does not get a row a job")
    require(queue.run("list", "--state", "completed") == "", "a state lists jobs of another")


def configuration(queue: Queue) -> None:
    queue.run("config", "--key", "max-retries", "--value", "7")
    require(json.loads(queue.run("config", "--json"))["max_retries"] == 7, "a setting was not kept")
    queue.add({"id": "a", "command": "true"})
    require(queue.job("a")["max_retries"] == 7, "a setting does not reach a new job")
    queue.run("config", "--key", "max_retries", "--value", "many", code=2)
    queue.run("config", "--key", "max_retires", "--value", "1", code=2)


def dlq_commands(queue: Queue) -> None:
    for name in ("bad", "worse"):
        queue.add({"id": name, "command": "exit 3", "max_retries": 1})
    queue.drain()
    require(len(queue.run("dlq", "list").splitlines()) == 2, "dlq list has not a row a dead job")
    queue.run("dlq", "retry", "bad")
    require(queue.job("bad")["state"] == "pending", "dlq retry did not make the job pending")
    queue.run("dlq", "purge", "worse")
    queue.run("show", "worse", code=1)
    require(queue.run("dlq", "list") == "", "the DLQ is not empty")


def multiple_job_types(queue: Queue) -> None:
    types = {
        "pipe": ("printf 'b\\na\\n' | sort | head -n 1", "a"),
        "quotes": ("printf '%s' \"it's ünïcode ✓\"", "it's ünïcode ✓"),
        "lines": ("x=1\nif [ $x = 1 ]; then echo yes; fi", "yes"),
        "both": ("echo out; echo err >&2", "out\nerr"),
    }
    queue.add(*({"id": name, "command": command} for name, (command, _) in types.items()))
    queue.add({"id": "missing", "command": "no_such_command_at_all", "max_retries": 1})
    queue.drain()
    for name, (_, output) in types.items():
        job, printed = queue.job(name), queue.run("logs", name).strip()
        require(job["state"] == "completed" and printed == output, f"{name} printed {printed!r}")
    require(
        queue.job("missing")["last_error"] == "Command not found", "a missing command is not named"
    )


def worker_pool(queue: Queue) -> None:
    # Each waits until all three run at once, which takes three workers.
    together = (
        "touch here.$QUEUECTL_JOB_ID; while [ $(ls here.* | wc -l) -lt 3 ]; do sleep 0.05; done"
    )
    queue.add(
        *(
            {"id": f"job{number}", "command": together, "timeout": 4, "max_retries": 1}
            for number in range(3)
        )
    )
    queue.run("start", "--count", "3", "--drain", "--quiet")
    states = [queue.job(f"job{number}")["state"] for number in range(3)]
    require(states == ["completed"] * 3, f"three workers did not run three jobs at once: {states}")


def retry_with_backoff(queue: Queue) -> None:
    queue.add(
        {
            "id": "flaky",
            "command": "date +%s%N >> times; test $QUEUECTL_JOB_ATTEMPT = 3",
            "max_retries": 3,
        }
    )
    queue.drain(QUEUECTL_BACKOFF_BASE="1.2")
    job = queue.job("flaky")
    require(
        job["state"] == "completed" and job["attempts"] == 3,
        f"not completed at the third attempt: {job}",
    )
    first, second, third = (int(line) / 1e9 for line in queue.read("times").split())
    delays = second - first, third - second
    require(delays[0] >= 1.2 and delays[1] >= 1.44, f"an attempt came too early: after {delays}")


def crash_recovery(queue: Queue) -> None:
    # The shell's parent is the worker, which the first run waits to be killed with.
    job = "echo $PPID > worker.$QUEUECTL_JOB_RUN; test $QUEUECTL_JOB_RUN = 2 || sleep 60"
    queue.add({"id": "crash", "command": job, "max_retries": 2})
    start = queue.start("--drain", QUEUECTL_BACKOFF_BASE="0")
    try:
        wait_for(lambda: queue.read("worker.1").endswith("\n"), "the first run")
        os.kill(int(queue.read("worker.1")), signal.SIGKILL)
        require(start.wait(PATIENCE) == 0, "start did not drain after a worker died")
    finally:
        end(start)
    state = queue.job("crash")
    require(
        state["state"] == "completed" and state["runs"] == 2, f"the job was not run again: {state}"
    )


def graceful_shutdown(queue: Queue) -> None:
    queue.add(
        {"id": "long", "command": "touch begun; sleep 1; touch ended"},
        {"id": "next", "command": "true"},
    )
    start = queue.start()
    try:
        wait_for(lambda: os.path.exists(queue.path("begun")), "the job to begin")
        start.send_signal(signal.SIGTERM)
        require(start.wait(PATIENCE) == 0, "start did not end with 0 after TERM")
    finally:
        end(start)
    require(queue.job("long")["state"] == "completed", "the running job was not allowed to finish")
    require(queue.job("next")["state"] == "pending", "a job was claimed after TERM")


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


CHECKS: List[Tuple[str, Callable[[Queue], None]]] = [
    ("Job Enqueue", job_enqueue),
    ("Status Command", status_command),
    ("List Command", list_command),
    ("Configuration", configuration),
    ("DLQ Commands", dlq_commands),
    ("Multiple Job Types", multiple_job_types),
    ("Worker Pool", worker_pool),
    ("Retry With Backoff", retry_with_backoff),
    ("Crash Recovery", crash_recovery),
    ("Graceful Shutdown", graceful_shutdown),
]


def verify(check: Callable[[Queue], None]) -> Optional[str]:
    """Run one check in a folder of its own; return what is wrong, if anything is."""
    folder = tempfile.mkdtemp(prefix="queuectl-verify-")
    try:
        check(Queue(folder))
    except (
        BrokenFeatureError,
        OSError,
        ValueError,
        LookupError,
        subprocess.TimeoutExpired,
    ) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def main() -> int:
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    print("🎯 COMPREHENSIVE QUEUECTL VERIFICATION")
    print("=" * 40)
    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (name, _), problem in zip(CHECKS, pool.map(verify, [check for _, check in CHECKS])):
            mark, verdict = ("❌", "FAIL") if problem else ("✅", "PASS")
            print(f"{mark} {name:<18} - {verdict}", flush=True)
            if problem:
                failed += 1
                print(f"   {problem}", flush=True)
    print("=" * 40)
    if failed:
        print(f"❌ {failed} of {len(CHECKS)} CHECKS FAILED")
        return 1
    print("🎉 ALL FEATURES VERIFIED SUCCESSFULLY!")
    return 0


if __name__ == "__main__":
    sys.exit(main())
