"""Notifications: what `start` runs once a job has completed, failed or died, and tells it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

import pytest

import support
from queuectl.hook import LIMIT
from queuectl.job import JobState
from starting import SLACK, STUBBORN, Queue, kill, wait_until_gone
from support import Cli, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")

TELL = 'env -0 > "$QUEUECTL_EVENT.$QUEUECTL_JOB_ID.$QUEUECTL_JOB_RUN"'
"""A hook that writes down its environment."""

EVERY = {"on_complete": TELL, "on_failed": TELL, "on_dead": TELL}


def variables(queue: Queue, name: str) -> Dict[str, str]:
    """What a hook was told, without the beginning of the names; empty while it was not told."""
    path = queue.folder / name
    data = path.read_bytes().decode("utf-8") if path.exists() else ""
    found = dict(entry.split("=", 1) for entry in data.split("\0") if "=" in entry)
    begin = "QUEUECTL_"
    return {key[len(begin) :]: value for key, value in found.items() if key.startswith(begin)}


def told(queue: Queue) -> List[str]:
    """Which hooks were run, of which jobs and runs."""
    return sorted(path.name for path in queue.folder.iterdir() if path.name.count(".") == 2)


def test_a_hook_is_told_of_each_event_and_its_job(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0", **EVERY)
    queue.add("echo why; exit 7", id="bad", max_retries=2)
    queue.add("true", id="good")
    queue.drain()
    assert told(queue) == ["complete.good.1", "dead.bad.2", "failed.bad.1"]
    logs = {run: str(next((cli.store / "logs").glob(f"*/bad.{run}.log"))) for run in (1, 2)}
    common = {
        "STORE": str(cli.store),
        "JOB_ID": "bad",
        "JOB_COMMAND": "echo why; exit 7",
        "JOB_EXIT_CODE": "7",
        "JOB_MAX_RETRIES": "2",
        "JOB_ERROR": "Exit code 7: why",
    }
    failed = {"EVENT": "failed", "JOB_STATE": "failed", "JOB_ATTEMPT": "1", "JOB_RUN": "1"}
    assert variables(queue, "failed.bad.1") == {**common, **failed, "JOB_LOG": logs[1]}
    dead = {"EVENT": "dead", "JOB_STATE": "dead", "JOB_ATTEMPT": "2", "JOB_RUN": "2"}
    assert variables(queue, "dead.bad.2") == {**common, **dead, "JOB_LOG": logs[2]}
    assert variables(queue, "complete.good.1") == {
        "STORE": str(cli.store),
        "EVENT": "complete",
        "JOB_ID": "good",
        "JOB_COMMAND": "true",
        "JOB_STATE": "completed",
        "JOB_EXIT_CODE": "0",
        "JOB_ATTEMPT": "1",
        "JOB_MAX_RETRIES": "3",
        "JOB_RUN": "1",
        "JOB_ERROR": "",
        "JOB_LOG": "",
    }


def test_the_readme_says_what_a_hook_is_told(cli: Cli) -> None:
    queue = Queue(cli, on_dead=TELL)
    queue.add("false", id="job", max_retries=1)
    queue.drain()
    _, _, section = README.partition("\n## Notifications\n")
    section = section.partition("\n## ")[0]
    documented = re.findall(r"`QUEUECTL_(\w+)`", section)
    assert sorted(documented) == sorted(variables(queue, "dead.job.1"))
    assert f"each has {LIMIT:g} seconds" in section


def test_the_example_of_the_readme_sends_mail(cli: Cli) -> None:
    (example,) = re.findall(r"^queuectl config set on_dead .*$", README, re.MULTILINE)
    tools = cli.folder / "tools"
    tools.mkdir()
    (tools / "mail").write_text('#!/bin/sh\n(printf "%s\\n" "$@"; cat) > mail\n')
    (tools / "mail").chmod(0o755)
    queue = Queue(cli)
    environ = cli.environment()
    environ["PATH"] = f"{tools}{os.pathsep}{environ['PATH']}"
    subprocess.run(["bash", "-c", example], env=environ, check=True, stdout=subprocess.DEVNULL)
    queue.add("echo \"it's `odd`\" '$HOME'; exit 3", id="job", max_retries=1)
    queue.start("--drain", env={"PATH": environ["PATH"]}).finish(0)
    lines = queue.read("mail").splitlines()
    assert lines[:2] == ["-s", "job job: Exit code 3: it's  $HOME"]
    assert lines[2] == "you@example.org"
    assert lines[-1] == "it's  $HOME"


def test_a_job_that_a_rescue_gave_up_is_told_of(cli: Cli) -> None:
    queue = Queue(cli, on_dead=f'{TELL}; cat "$QUEUECTL_JOB_LOG" > printed')
    queue.add("echo before; sleep 1000", id="job", max_retries=1)
    start = queue.start()
    worker = queue.wait_for_runner("job")
    wait_until(lambda: queue.logs("job") == "before\n", what="its output")
    kill(worker.pid)
    queue.wait_for("job", JobState.DEAD)
    wait_until(lambda: (queue.folder / "printed").exists(), what="the hook")
    start.terminate()
    start.finish(0)
    found = variables(queue, "dead.job.1")
    assert (found["JOB_ERROR"], found["JOB_EXIT_CODE"]) == ("Worker died", "")
    assert queue.read("printed") == "before\n"


def test_a_shutdown_is_no_failure_to_tell_of(cli: Cli) -> None:
    queue = Queue(cli, **EVERY)
    queue.add("sleep 1000", id="job")
    start = queue.start()
    queue.wait_for_runner("job")
    start.terminate()
    start.expect("Stopping")
    start.terminate()
    start.finish(128 + signal.SIGTERM)
    assert queue.job("job").state == JobState.PENDING
    assert told(queue) == []


def test_a_changed_hook_reaches_a_start_that_runs(cli: Cli) -> None:
    queue = Queue(cli)
    start = queue.start()
    queue.add("true", id="before")
    queue.wait_for("before", JobState.COMPLETED)
    queue.configure(on_complete=TELL)
    queue.add("true", id="then")
    wait_until(lambda: told(queue) == ["complete.then.1"], what="the hook")
    with queue.opened() as manager:
        manager.configure("on_complete", None)
    queue.add("true", id="after")
    queue.wait_for("after", JobState.COMPLETED)
    # The last result of a worker is saved without a claim, which would read the settings.
    queue.add("until [ -e go ]; do sleep 0.01; done", id="last")
    queue.wait_for_runner("last")
    start.terminate()
    start.expect("Stopping")
    queue.configure(on_complete=TELL)
    queue.let_go()
    start.finish(0)
    assert told(queue) == ["complete.last.1", "complete.then.1"]


def test_what_is_long_or_odd_is_cut_and_never_in_the_way(cli: Cli) -> None:
    queue = Queue(cli, on_dead=TELL)
    command = "printf 'a\\0b\\n'; exit 1 # " + "ä" * 60_000
    queue.add(command, id="job", max_retries=1)
    queue.drain()
    found = variables(queue, "dead.job.1")
    assert found["JOB_ERROR"] == "Exit code 1: a\\x00b"
    assert found["JOB_COMMAND"].endswith("ä…")
    assert command.startswith(found["JOB_COMMAND"][:-1])
    assert len(found["JOB_COMMAND"].encode()) > 2000


def test_an_environment_that_leaves_no_room_is_left_as_it_is(cli: Cli) -> None:
    queue = Queue(cli, on_dead=f"{TELL} #{'y' * 3000}")
    queue.add("exit 1 # " + "x" * 4000, id="job", max_retries=1)
    # With this limit the system gives arguments and environment 128 KiB together.
    script = 'ulimit -s 512; exec "$@"'
    argv = [str(word) for word in cli.command] + ["start", "--drain"]
    environ = cli.environment()
    taken = sum(len(f"{name}={value}") + 9 for name, value in environ.items())
    environ["FILLER"] = "x" * (131072 - taken - 5500)
    done = subprocess.run(
        ["sh", "-c", script, "sh", *argv], env=environ, cwd=cli.folder, timeout=30
    )
    assert done.returncode == 0
    found = variables(queue, "dead.job.1")
    assert (found["JOB_ID"], found["JOB_COMMAND"], found["JOB_ERROR"]) == ("job", "", "")


def test_a_hook_that_fails_ends_nothing_and_sets_off_no_hook(cli: Cli) -> None:
    failing = 'echo "$QUEUECTL_JOB_ID" >> told; echo no server >&2; exit 3'
    queue = Queue(cli, on_complete=failing, on_failed=failing, on_dead=failing)
    queue.add("true", id="good")
    queue.add("false", id="bad", max_retries=1)
    start = queue.start("--drain", "--quiet")
    start.finish(0)
    assert sorted(queue.read("told").split()) == ["bad", "good"]
    assert "hook on_complete of job good failed: Exit code 3: no server\n" in start.err
    assert "hook on_dead of job bad failed: Exit code 3: no server\n" in start.err


def test_hooks_that_hang_delay_no_job_and_end_at_the_second_signal(cli: Cli) -> None:
    queue = Queue(cli, on_complete=f'echo "$$" >> hooks; {STUBBORN}', kill_grace="0.3")
    start = queue.start("--count", "2")
    queue.wait_for_workers(2)
    began = time.monotonic()
    queue.add_many({f"job-{number}": "true" for number in range(50)})
    wait_until(lambda: queue.counts().completed == 50, what="all jobs")
    assert time.monotonic() - began < 5 * SLACK
    hooks = queue.folder / "hooks"
    wait_until(lambda: hooks.exists() and len(hooks.read_text().split()) == 8, what="the hooks")
    pids = list(cli.processes("sleep 1000"))
    assert len(pids) == 8 * 3
    start.terminate()
    wait_until(lambda: queue.members() == [], what="the end of the workers")
    assert start.poll() is None
    asked = time.monotonic()
    start.send_signal(signal.SIGINT)
    start.finish(128 + signal.SIGINT)
    assert time.monotonic() - asked < 0.3 + 2 * SLACK
    wait_until_gone(pids, 0.1)
    assert "42 hooks were not run: at the end of start\n" in start.err
    assert start.err.count("Ended by shutdown") == 8


def test_a_drain_waits_for_its_hooks(cli: Cli) -> None:
    queue = Queue(cli, on_complete='sleep 0.5; touch "told.$QUEUECTL_JOB_ID"')
    queue.add_many({f"job-{number}": "true" for number in range(10)})
    queue.drain()
    assert len(list(queue.folder.glob("told.*"))) == 10


def test_a_hook_may_enqueue_jobs(cli: Cli) -> None:
    hook = '[ "$QUEUECTL_JOB_ID" != first ] || queuectl enqueue --id next "echo after first"'
    queue = Queue(cli, on_complete=hook)
    start = queue.start()
    queue.add("true", id="first")
    wait_until(lambda: len(queue.jobs()) == 2, what="the job of the hook")
    queue.wait_for("next", JobState.COMPLETED)
    start.terminate()
    start.finish(0)
    assert start.err == ""


def test_a_hook_may_stop_the_start_that_runs_it(cli: Cli) -> None:
    queue = Queue(cli, on_dead="queuectl stop")
    queue.add("false", id="job", max_retries=1)
    start = queue.start()
    start.finish(0, timeout=10)
    assert start.err == ""


@pytest.mark.slow
def test_stop_waits_for_hooks_as_start_does(cli: Cli) -> None:
    queue = Queue(cli, on_dead="sleep 6; touch told", kill_grace="0.1", shutdown_grace="0.1")
    queue.add("false", id="job", max_retries=1)
    start = queue.start()
    wait_until(lambda: cli.processes("sleep 6"), what="the hook")
    cli.run("stop", check=0)
    start.finish(0, timeout=5)
    assert queue.read("told") == ""


def test_a_hook_ends_with_a_store_that_is_removed(cli: Cli) -> None:
    queue = Queue(cli, on_dead=STUBBORN, kill_grace="0.3")
    queue.add("false", id="job", max_retries=1)
    start = queue.start()
    wait_until(lambda: len(cli.processes("sleep 1000")) == 3, what="the hook")
    shutil.rmtree(cli.store)
    start.finish(3, timeout=4)
    assert not cli.processes("sleep 1000")


def test_a_hook_reads_nothing_and_inherits_nothing(cli: Cli) -> None:
    script = queue_folder_script(cli.folder)
    queue = Queue(cli, on_dead=f"{sys.executable} {script} > told")
    queue.add("false", id="job", max_retries=1)
    with open(queue.folder / "inherited", "w") as file:
        os.set_inheritable(file.fileno(), True)
        argv = ["sh", "-c", 'trap "" HUP USR1; exec "$@"', "sh", *cli.command, "start", "--drain"]
        subprocess.run(
            [str(word) for word in argv],
            env=cli.environment(),
            cwd=cli.folder,
            pass_fds=[file.fileno()],
            check=True,
            timeout=30,
        )
    fds, stdin, signals, session = queue.read("told").split()
    assert (fds, stdin) == ("0,1,2", "''")
    assert signals == "0"
    assert session == "True"


def queue_folder_script(folder: Path) -> Path:
    """Write a program that tells what it has of whoever started it."""
    path = folder / "inherits.py"
    path.write_text(
        "import os, re, sys\n"
        "fds = []\n"
        "for fd in range(256):\n"
        "    try:\n"
        "        os.fstat(fd)\n"
        "        fds.append(str(fd))\n"
        "    except OSError:\n"
        "        pass\n"
        "status = open('/proc/%d/status' % os.getppid()).read()\n"
        "masks = [int(mask, 16) for mask in re.findall(r'Sig(?:Ign|Blk):\\s+(\\w+)', status)]\n"
        "leads = os.getsid(0) == os.getpgrp() == os.getppid()\n"
        "print(','.join(fds), repr(sys.stdin.read()), sum(masks) % 2**31, leads)\n"
    )
    return path
