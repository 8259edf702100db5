"""`queuectl wait`: until jobs have ended, and an exit code that says how."""

from __future__ import annotations

import json
import os
import signal
from typing import Callable, List

import pytest

import support
from starting import HOLD, Queue
from support import Cli, Terminal, wait_until
from test_cli_support import complaint, queue_of, refusal, run

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NO_WORKERS = "queuectl: no workers running: queuectl start\n"


def test_one_job_gives_its_exit_code(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.1s")
    endings = {
        "well": ("true", 0, {}),
        "well3": ("exit 3", 0, {"success_codes": (3,)}),
        "code": ("exit 7", 7, {}),
        "zero": ("exit 0", 1, {"success_codes": (3,)}),
        "killed": ("kill -9 $$", 137, {}),
        "late": ("sleep 1000", 124, {"timeout": 0.2}),
        "folder": ("true", 1, {"cwd": str(cli.folder / "none")}),
    }
    for job_id, (command, _, options) in endings.items():
        queue.add(command, id=job_id, max_retries=1, **options)
    queue.drain(count=2)
    for job_id, (_, code, _) in endings.items():
        done = cli.run("wait", job_id, check=code)
        assert (done.stdout, done.stderr) == ("", "")
    assert cli.run("wait", "killed", "killed", check=137).stdout == ""
    cli.run("wait", "well", "well3", check=0)
    cli.run("wait", "well", "killed", check=1)


def test_it_waits_through_retries(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0.2")
    queue.add(f"{HOLD}; exit 4", id="job", max_retries=2)
    start = queue.start()
    waiting = cli.spawn("wait", "job")
    queue.wait_for("job", "processing", run=1)
    queue.let_go()
    waiting.finish(4)
    assert queue.job("job").runs == 2
    assert waiting.out == ""
    start.send_signal(signal.SIGTERM)
    start.finish()


def test_cancelled_jobs_have_ended(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="job")
    waiting = cli.spawn("wait", "job")
    waiting.expect_err("no workers running")
    with queue.opened() as manager:
        manager.cancel(["job"])
    waiting.finish(1)
    assert waiting.err == NO_WORKERS


@pytest.mark.parametrize("words", [["--all"], ["--queue", "mail"], ["--label", "l"]])
def test_those_that_have_not_ended_at_the_beginning(words: List[str], cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("exit 5", id="before", max_retries=1, queue="mail", labels=("l",))
    queue.drain()
    assert cli.run("wait", *words, check=0).stderr == ""
    queue.add("exit 6", id="one", max_retries=1, queue="mail", labels=("k", "l"))
    other = queue.add(HOLD, id="other")
    waiting = cli.spawn("wait", *words)
    waiting.expect_err("no workers running")
    queue.add(HOLD, id="later", queue="mail", labels=("l",))
    start = queue.start("--count", "3")
    if words == ["--all"]:
        queue.wait_for(other, "processing")
        assert waiting.poll() is None
        queue.let_go()
    # It is a set of jobs, though it has but one: how that ended is not told.
    waiting.finish(1)
    queue.let_go()
    start.send_signal(signal.SIGTERM)
    start.finish()


def test_several_that_completed(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add_many({"aaaa": "true", "bbbb": "true"})
    waiting = cli.spawn("wait", "aaaa", "bbbb")
    queue.drain()
    waiting.finish(0)


def test_the_time_to_wait_is_over(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="job")
    done = cli.run("wait", "job", "--timeout", "0.2", "--json", check=124)
    assert [job["state"] for job in json.loads(done.stdout)] == ["pending"]
    assert done.stderr == NO_WORKERS + "queuectl: 1 job has not ended after 0.2 seconds\n"
    cli.run("wait", "--all", "--timeout", "0.2", check=124)


def test_as_json_the_jobs_as_they_stand_in_the_order_that_was_asked_for(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="well")
    queue.add("exit 3", id="code", max_retries=1)
    queue.drain()
    done = cli.run("wait", "code", "well", "--json", check=1)
    found = json.loads(done.stdout)
    assert [(job["id"], job["state"]) for job in found] == [("code", "dead"), ("well", "completed")]
    assert cli.json("wait", "--all") == []


def test_a_terminal_is_told_how_each_ended(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    queue = Queue(cli)
    queue.add("echo \x1b[2J", id="well")
    queue.add("exit 3", id="code", max_retries=1)
    queue.add("true", id="never")
    seen = terminal("wait", "well", "code", "never")
    seen.expect("no workers running")
    with queue.opened() as manager:
        manager.cancel(["never"])
    seen.expect("🚫 Job cancelled: true \\(never\\)")
    queue.drain()
    assert seen.wait() == 1
    seen.expect(r"✅ Job completed: echo \\x1b\[2J \(well, 0\.\ds\)")
    seen.expect(r"💀 Job moved to DLQ: exit 3 \(attempt 1/1\): Exit code 3")


def test_a_job_that_is_purged_meanwhile(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("true", id="job")
    waiting = cli.spawn("wait", "job")
    waiting.expect_err("no workers running")
    with queue.opened() as manager:
        manager.store.remove([manager.find("job")])
    waiting.finish(1)
    assert waiting.err == f"{NO_WORKERS}queuectl: job 'job' was purged\n"


def is_watching(pid: int) -> bool:
    """Whether a process holds the job file twice: to look a job up, and to watch it."""
    held = (os.path.realpath(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    return sum(path.endswith("/jobs.jsonl") for path in held) == 2


def test_ctrl_c_leaves_the_jobs_alone(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    queue = Queue(cli)
    queue.add(HOLD, id="job")
    start = queue.start("--drain")
    queue.wait_for("job", "processing")
    seen = terminal("wait", "job")
    wait_until(lambda: is_watching(seen.pid), what="the wait to have begun")
    seen.send("\x03")
    assert seen.wait() == 130
    assert "Traceback" not in seen.text
    queue.let_go()
    start.finish(0)
    assert queue.job("job").state == "completed"


def test_what_to_wait_for_must_be_clear(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="job", cwd="/")
        run(queue)
    assert refusal(cli, ["wait"]).startswith("give ids, or ")
    assert refusal(cli, ["wait", "job", "--all"]).startswith("give ids or --all, not both")
    assert refusal(cli, ["wait", "job", "--timeout", "x"]).startswith("bad value for --timeout")
    assert complaint(cli.run("wait", "job", "none", check=1).stderr) == "job 'none' not found"
