"""The commands, with real workers, on a store on Redis."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from queuectl.job import JobState
from servers import Server, client
from starting import HOLD, Queue, is_running, kill
from support import Cli, wait_until


@pytest.fixture
def queue(cli: Cli, redis_url: str) -> Queue:
    return Queue(cli, redis_url, kill_grace="1s")


def test_the_commands_are_the_same(queue: Queue) -> None:
    cli = queue.cli
    cli.run("enqueue", "echo said", "--id", "said", check=0)
    cli.run("enqueue", "echo child", "--id", "child", "--after", "said", check=0)
    cli.run("enqueue", "exit 3", "--id", "bad", "--max-retries", "1", check=0)
    cli.run("enqueue", "true", "--id", "paused", "--queue", "q", check=0)
    cli.run("queue", "pause", "q", check=0)
    cli.run("config", "set", "max-retries", "7", check=0)
    queue.drain(2)
    assert cli.run("list", "--state", "completed", check=0).stdout.count("\n") == 2
    assert cli.run("logs", "child", check=0).stdout == "child\n"
    assert cli.run("dlq", "list", check=0).stdout.startswith("bad\t1\t")
    assert cli.run("config", "get", "max-retries", check=0).stdout == "7\n"
    assert cli.json("status")["paused"] == ["q"]
    assert cli.json("show", "said")["output"].endswith("said.1.log")
    cli.run("dlq", "retry", "bad", check=0)
    cli.run("cancel", "paused", "bad", check=0)
    cli.run("purge", "--all", check=0)
    assert cli.json("status")["total"] == 0
    assert cli.json("status")["lifetime"] == {"enqueued": 4, "completed": 2}
    exported = cli.run("export", check=0).stdout
    assert json.loads(exported.splitlines()[0])["jobs"] == 0


def test_a_running_start_hears_of_new_jobs_and_of_a_stop(queue: Queue) -> None:
    start = queue.start("--count", "2")
    queue.wait_for_workers(2)
    queue.cli.run("enqueue", "true", "--id", "a", check=0)
    began = time.monotonic()
    assert queue.wait_for("a", JobState.COMPLETED).runs == 1
    assert time.monotonic() - began < 2
    queue.add(HOLD, id="long")
    queue.wait_for_runner("long")
    queue.cli.run("cancel", "long", check=0)
    queue.cli.run("wait", "long", "--timeout", "10", check=1)
    (node,) = queue.cli.json("nodes")
    assert (node["workers"], node["running"]) == (2, 0)
    queue.cli.run("stop", check=0)
    start.finish(0)
    assert queue.members() == queue.members("supervisor") == []


def test_a_worker_that_is_killed_is_found_at_once(queue: Queue) -> None:
    """By its lock, whatever its lease says."""
    queue.configure(backoff_base="0")
    queue.add(f'[ "$QUEUECTL_JOB_RUN" = 2 ] || {{ {HOLD}; }}', id="a")
    start = queue.start()
    worker = queue.wait_for_runner("a")
    shell, *_ = queue.runs_of("a")
    killed = kill(worker.pid)
    job = queue.wait_for("a", JobState.COMPLETED)
    assert time.monotonic() - killed < 5
    assert (job.runs, job.attempts) == (2, 2)
    assert not is_running(shell)
    queue.cli.run("stop", check=0)
    start.finish(0)


def test_two_machines_run_each_job_once(queue: Queue, tmp_path: Path) -> None:
    """As they are told apart by their folders; what ran on one is read from the other."""
    queue.add_many({f"job{at}": "echo $QUEUECTL_JOB_ID | tee -a ran" for at in range(60)})
    far = {"XDG_STATE_HOME": str(tmp_path / "far")}
    starts = [queue.start("--count", "2", "--drain", env=env) for env in (far, {})]
    for start in starts:
        start.finish(0)
    ran = queue.read("ran").split()
    assert sorted(ran) == sorted({f"job{at}" for at in range(60)})
    assert all("Job completed" in start.out for start in starts)
    for at in (0, 30, 59):
        for env in (far, {}):
            logs = queue.cli.run("logs", f"job{at}", env=env, check=0)
            assert logs.stdout == f"job{at}\n"


@pytest.mark.slow
def test_what_a_dead_machine_held_is_run_by_another(queue: Queue, tmp_path: Path) -> None:
    """Once its lease is over, and not before."""
    # Without housekeeping all its processes live until they are killed.
    queue.configure(lease="3s", backoff_base="0", kill_grace="0.5s", keep_output="none")
    queue.add('[ "$QUEUECTL_JOB_RUN" = 2 ] || exec sleep 1000', id="a")
    dying = queue.start(env={"XDG_STATE_HOME": str(tmp_path / "far")})
    wait_until(lambda: "sleep 1000" in queue.runs_of("a").values())
    pids = [*queue.cli.processes()]
    start = queue.start()
    wait_until(lambda: len(queue.members("supervisor")) == 2)
    killed = kill(*pids)
    job = queue.wait_for("a", JobState.COMPLETED, timeout=15)
    assert (job.runs, job.attempts) == (2, 2)
    assert time.monotonic() - killed > 2.5
    assert dying.finish() < 0
    queue.cli.run("stop", check=0)
    start.finish(0)


@pytest.mark.slow
def test_a_server_that_comes_back_finds_the_workers_at_work(cli: Cli, own_server: Server) -> None:
    """What ran meanwhile is reported, nothing twice, and new jobs are run within seconds."""
    queue = Queue(cli, own_server.url)
    queue.add(HOLD, id="held")
    start = queue.start("--count", "2")
    queue.wait_for_runner("held")
    own_server.kill()
    start.expect_err(r"cannot reach redis://.*trying again each second")
    queue.let_go()
    wait_until(lambda: not queue.runs_of("held"))
    own_server.start()
    back = time.monotonic()
    assert queue.wait_for("held", JobState.COMPLETED).runs == 1
    queue.add("true", id="next")
    queue.wait_for("next", JobState.COMPLETED)
    assert time.monotonic() - back < 5
    queue.cli.run("stop", check=0)
    start.finish(0)


def test_a_start_ends_when_its_store_is_flushed(cli: Cli, own_server: Server) -> None:
    """With its jobs, and a line that says why."""
    queue = Queue(cli, own_server.url, kill_grace="1s")
    queue.add("exec sleep 1000", id="a")
    start = queue.start()
    queue.wait_for_runner("a")
    wait_until(lambda: "sleep 1000" in queue.runs_of("a").values())
    own_server.client().flushdb()
    start.finish(3)
    assert queue.runs_of("a") == {}
    assert start.err.count("was removed") + start.out.count("was removed") == 1
    assert client(own_server.url).dbsize() == 0


def test_nobody_is_shown_the_password(cli: Cli, own_server: Server) -> None:
    """But the jobs have it: they may enqueue others."""
    own_server.client().execute_command(
        "ACL", "SETUSER", "me", "on", ">secret", "~*", "&*", "+@all"
    )
    url = f"redis://me:secret@127.0.0.1:{own_server.port}/0"
    queue = Queue(cli, url)
    queue.add('printf %s "$QUEUECTL_STORE" > url; queuectl enqueue true --id child', id="a")
    start = queue.drain()
    assert queue.read("url") == url
    assert queue.job("child").state == JobState.COMPLETED
    for text in (start.out, start.err, cli.run("status", check=0).stdout):
        assert "secret" not in text
    assert cli.json("status")["store"] == f"redis://127.0.0.1:{own_server.port}/0"
