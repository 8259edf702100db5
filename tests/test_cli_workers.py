"""`queuectl start` and `stop`: their lines, and that none of these ever holds up a job."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from typing import Callable, List

import pytest

from queuectl import clock
from queuectl.newjob import NewJob
from queuectl.store.base import Member
from support import Cli, Terminal, wait_until
from test_cli_support import complaint, queue_of, refusal, run

F_SETPIPE_SZ = 1031  # Python 3.8 has no name for it.
STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "


def enqueue(cli: Cli, *commands: str, max_retries: int = 1) -> None:
    with queue_of(cli) as queue:
        for number, command in enumerate(commands):
            queue.enqueue(command, id=f"job-{number}", max_retries=max_retries, cwd="/")


def told(text: str) -> List[str]:
    """The lines of `start` without what is different each time."""
    text = re.sub(STAMP, "", text)
    return re.sub(r", \d+\.\ds\)", ", 0.1s)", text).splitlines()


@pytest.mark.parametrize("at_terminal", [False, True], ids=["pipe", "terminal"])
def test_start_tells_what_happens(
    at_terminal: bool, cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    with queue_of(cli) as queue:
        queue.configure("backoff_base", "0")
        uuid = queue.enqueue("echo 'Hello World'", cwd="/").id
        queue.enqueue("nosuchcommand", id="bad", max_retries=2, cwd="/")
    words = ("start", "--drain", "--timeout", "300")
    if at_terminal:
        shown = terminal(*words)
        assert shown.wait() == 0
        text = shown.text
    else:
        done = cli.run(*words, check=0)
        assert done.stderr == ""
        text = done.stdout
    assert told(text) == [
        "👷 Starting 1 worker for 5 minutes...",
        f"📁 Store: {cli.store}",
        "🔧 Worker-1 started",
        f"✅ Job completed: echo 'Hello World' ({uuid[:8]}, 0.1s)",
        "⚠️  Job failed: nosuchcommand (attempt 1/2), retry in 0s: Command not found",
        "💀 Job moved to DLQ: nosuchcommand (attempt 2/2): Command not found",
        "🛑 Workers stopped",
    ]
    assert re.match(STAMP + "🔧", text.splitlines()[2])


def test_the_first_ctrl_c_lets_jobs_finish_and_the_second_ends_them(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    enqueue(cli, "sleep 55001", "sleep 55002")
    shown = terminal("start", "--count", "2")
    shown.expect(r"^👷 Starting 2 workers \(Ctrl-C to stop\)\.\.\.$")
    wait_until(lambda: cli.processes("sleep 55001") and cli.processes("sleep 55002"))
    shown.send("\x03")
    shown.expect(r"\] 🛑 Stopping: 2 jobs have up to 30s; Ctrl-C again ends them$")
    shown.send("\x03")
    shown.expect(r"\] 🔁 Job interrupted: sleep 5500[12] \(job-[01]\), back in the queue$")
    assert shown.wait() == 128 + signal.SIGINT
    assert "Traceback" not in shown.text


def test_a_job_that_outlives_its_runs_is_warned_of(cli: Cli) -> None:
    enqueue(cli, "sleep 55003")
    for number in (1, 2):
        process = cli.spawn("start")
        wait_until(lambda: cli.processes("sleep 55003"))
        assert cli.run("stop", "--force", check=0).stdout.endswith("🛑 Workers stopped\n")
        process.finish(0)
        assert "🔁 Job interrupted: sleep 55003 (job-0), back in the queue\n" in process.out
        warning = "Job sleep 55003 (job-0) was interrupted 2 times: it outlives the runs of start\n"
        assert process.err.endswith(warning) == (number == 2)


def test_quiet_warns_of_a_job_that_outlives_its_runs(cli: Cli) -> None:
    enqueue(cli, "sleep 55005")
    with queue_of(cli) as queue:
        run(queue, interrupted=True)
    process = cli.spawn("start", "--quiet")
    wait_until(lambda: cli.processes("sleep 55005"))
    cli.run("stop", "--force", check=0)
    process.finish(0)
    assert process.out == ""
    assert told(process.err) == [
        "⚠️  Job sleep 55005 (job-0) was interrupted 2 times: it outlives the runs of start"
    ]


def test_the_stop_line_names_the_grace_of_now(cli: Cli) -> None:
    enqueue(cli, "sleep 55006")
    process = cli.spawn("start")
    wait_until(lambda: cli.processes("sleep 55006"))
    with queue_of(cli) as queue:
        queue.configure("shutdown_grace", "47s")
    process.terminate()
    process.expect("Stopping: 1 job has up to 47s; ")
    process.terminate()
    process.finish(128 + signal.SIGTERM)


def test_quiet_tells_of_what_is_wrong_only(cli: Cli) -> None:
    enqueue(cli, "true", "exit 3")
    done = cli.run("start", "--drain", "--quiet", check=0)
    assert told(done.stdout) == ["💀 Job moved to DLQ: exit 3 (attempt 1/1): Exit code 3"]
    assert done.stderr == ""


def test_the_level_of_detail(cli: Cli) -> None:
    enqueue(cli, "true", "exit 3", max_retries=2)
    env = {"QUEUECTL_LOG_LEVEL": "WARNING", "QUEUECTL_BACKOFF_BASE": "0"}
    out = cli.run("start", "--drain", env=env, check=0).stdout
    assert [line.split(":")[0] for line in told(out)[2:]] == [
        "⚠️  Job failed", "💀 Job moved to DLQ", "🛑 Workers stopped",
    ]  # fmt: skip
    with queue_of(cli) as queue:
        queue.retry_dead()
    done = cli.run("start", "--drain", env={**env, "QUEUECTL_LOG_LEVEL": "DEBUG"}, check=0)
    steps = re.sub(r"process \d+", "process 1", done.stderr)
    assert told(steps)[:4] == [
        "🔍 claim job-1 by Worker-1: run 3, attempt 1/2",
        "🔍 spawn job-1 by Worker-1: process 1",
        "🔍 commit job-1 by Worker-1: failed",
        "🔍 backoff job-1: 0s after attempt 1/2",
    ]
    assert "started" in done.stdout


def test_a_dead_worker_is_told_of(cli: Cli) -> None:
    enqueue(cli, "kill -9 $PPID; sleep 55004")
    done = cli.run("start", "--drain", env={"QUEUECTL_LOG_LEVEL": "DEBUG"}, check=0)
    assert (
        "💀 Job moved to DLQ: kill -9 $PPID; sleep 55004 (attempt 1/1): Worker died" in done.stdout
    )
    assert "🔍 rescue job-0 from Worker-1: dead" in done.stderr


def test_events_as_json(cli: Cli) -> None:
    enqueue(cli, "true", "exit 3")
    done = cli.run("start", "--json", "--drain", "--timeout", "60", check=0)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == [
        "starting", "started", "completed", "dead", "stopped",
    ]  # fmt: skip
    assert (events[0]["count"], events[0]["timeout"]) == (1, 60)
    assert events[0]["store"] == str(cli.store)
    dead = events[3]
    assert (dead["job"], dead["state"], dead["exit_code"]) == ("job-1", "dead", 3)
    assert 0 < dead["seconds"] < 10
    assert clock.from_iso(dead["time"])


def test_lines_are_whole_whatever_is_in_them(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    hostile = "exit 3 # \x1b[2J\n" + "😀" * 3000 + "\udcff"
    enqueue(cli, hostile, "printf '\\033[31m%0250d' 1; exit 1")
    done = cli.run("start", "--drain", check=0)
    lines = done.stdout.splitlines()
    assert all(len(line.encode()) < 4096 for line in lines)
    assert "💀 Job moved to DLQ: exit 3 # \\x1b[2J\\n😀" in lines[3]
    assert lines[3].endswith("… (attempt 1/1): Exit code 3")
    assert "Exit code 1: \\x1b[31m000" in lines[4]
    with queue_of(cli) as queue:
        queue.retry_dead()
    shown = terminal("start", "--drain", columns=100)
    assert shown.wait() == 0
    assert "\x1b[2J" not in shown.raw
    line = shown.text.splitlines()[3]
    assert line.endswith(" (attempt 1/1): Exit code 3")
    assert len(line) < 100
    env = {"PYTHONIOENCODING": "ascii"}
    with queue_of(cli) as queue:
        queue.retry_dead()
    done = cli.run("start", "--drain", env=env, check=0)
    assert done.stdout.isascii()
    assert all(len(line) < 4096 for line in done.stdout.splitlines())
    assert told(done.stdout)[0] == "Starting 1 worker (Ctrl-C to stop)..."


@pytest.mark.skipif(sys.platform != "linux", reason="a pipe cannot be made small elsewhere")
def test_a_full_pipe_delays_no_job(cli: Cli) -> None:
    reading, writing = os.pipe()
    with queue_of(cli) as queue:
        queue.enqueue_many([NewJob("true", cwd="/")] * 100)
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    process = cli.spawn("start", "--drain", stdout=writing, stderr=writing)
    process.finish(0)
    # The caller's own end still waits, as it did before.
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert 10 < len(lines) < 100
    assert told("\n".join(lines))[2] == "🔧 Worker-1 started"
    assert cli.json("status")["completed"] == 100


def test_a_reader_that_goes_away_stops_no_job(cli: Cli) -> None:
    enqueue(cli, "true", "true")
    command = " ".join(str(word) for word in cli.command)
    cli.command = ["sh", "-c", f"({command} start --drain; echo $? >code) | head -1"]
    assert cli.run(check=0).stdout.startswith("👷")
    assert (cli.folder / "code").read_text() == "0\n"


def test_a_stopped_terminal_delays_no_job(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    enqueue(cli, "true")
    shown = terminal("start")
    shown.expect("Job completed")
    shown.send("\x13")
    with queue_of(cli) as queue:
        queue.enqueue("true", id="unseen", cwd="/")
        wait_until(lambda: queue.find("unseen").state == "completed")
        shown.send("\x11")
        queue.enqueue("true", id="seen", cwd="/")
    shown.expect(r"Job completed: true \(seen")
    shown.send("\x03")
    assert shown.wait() == 130


def test_lines_into_a_file_and_into_nothing(cli: Cli) -> None:
    enqueue(cli, "true")
    path = cli.folder / "log"
    with open(path, "ab") as file:
        cli.spawn("start", "--drain", stdout=file).finish(0)
        cli.spawn("start", "--drain", stdout=file).finish(0)
    assert path.read_text(encoding="utf-8").count("Workers stopped\n") == 2
    with open(os.devnull, "wb") as null:
        cli.spawn("start", "--drain", stdout=null, stderr=null).finish(0)


def test_drain_shows_a_bar_at_a_terminal(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    enqueue(cli, "sleep 0.6", "exit 3", "sleep 0.6")
    shown = terminal("start", "--drain", "--quiet")
    shown.expect(r"[█░]{30} +\d+%  \d of 3 jobs done, 1 running, 0 to retry")
    shown.expect("💀 Job moved to DLQ: exit 3")
    assert shown.wait() == 0
    assert shown.raw.endswith("\r\x1b[K")
    assert "\r\x1b[K[" in shown.raw


def test_stop_when_nothing_runs(cli: Cli) -> None:
    assert cli.run("stop", check=0).stdout == "no workers running\n"
    assert cli.json("stop") == []
    assert not cli.store.exists()
    with queue_of(cli):
        pass
    assert cli.run("worker", "stop", "--force", check=0).stdout == "no workers running\n"


def test_stop_waits_for_every_start(cli: Cli) -> None:
    starts = [cli.spawn("start"), cli.spawn("worker", "start", "--count", "2")]
    for start in starts:
        start.expect("Worker-1 started")
    enqueue(cli, "sleep 0.5")
    wait_until(lambda: cli.processes("sleep 0.5"))
    stopped = cli.json("stop")
    assert sorted(each["pid"] for each in stopped) == sorted(start.pid for start in starts)
    assert [list(each) for each in stopped] == [["id", "pid", "host", "started_at"]] * 2
    assert [start.finish() for start in starts] == [0, 0]
    assert cli.json("show", "job-0")["state"] == "completed"


def test_stop_names_who_is_left(cli: Cli) -> None:
    """A supervisor that does not heed: this very process, enrolled as one."""
    with queue_of(cli) as queue:
        now = clock.to_iso(clock.now())
        queue.store.enroll(Member("deaf", "supervisor", "start", os.getpid(), "here", now, "deaf"))
        impatient = "from queuectl.cli import main, workers; workers._MARGIN = 0.2; main()"
        cli.command = [sys.executable, "-c", impatient]
        env = {"QUEUECTL_SHUTDOWN_GRACE": "0.1", "QUEUECTL_KILL_GRACE": "0.1"}
        env["PYTHONPATH"] = os.pathsep.join(sys.path)
        patient = cli.spawn("stop", env=env)
        patient.expect(f"🛑 Stopping process {os.getpid()}; running jobs have up to 0.1s\n")
        wait_until(lambda: queue.store.hear() or queue.store.stop_asked() is not None)
        assert queue.store.stop_asked() is False
        patient.finish(1)
        assert complaint(patient.err) == f"still running: process {os.getpid()} on here"
        queue.store.leave("deaf")


REFUSED = {
    "no workers": (["--count", "0"], "bad value for --count: 0 is not between 1 and 1024"),
    "too many": (["--count", "1025"], "bad value for --count: 1025 is not between 1 and 1024"),
    "a count in words": (["--count", "two"], "bad value for --count: 'two' is not a whole number"),
    "a timeout of nothing": (["--timeout", "0"], "bad value for --timeout: '0' is not a duration"),
    "a timeout nan": (["--timeout", "nan"], "bad value for --timeout: 'nan' is not a duration"),
}


@pytest.mark.parametrize(("words", "why"), REFUSED.values(), ids=REFUSED)
def test_values_that_are_refused(words: List[str], why: str, cli: Cli) -> None:
    assert refusal(cli, ["start", *words]).startswith(why)
    assert not cli.store.exists()


def test_start_makes_a_store_and_counts_by_setting(cli: Cli) -> None:
    done = cli.run("start", "--drain", env={"QUEUECTL_WORKER_COUNT": "3"}, check=0)
    assert done.stderr == f"queuectl: created store {cli.store}\n"
    assert told(done.stdout)[0] == "👷 Starting 3 workers (Ctrl-C to stop)..."
    assert done.stdout.count("started") == 3


def test_where_there_is_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    from queuectl.cli import workers
    from queuectl.cli.command import Session
    from queuectl.errors import RequestError

    context = click.Context(workers.start, obj=Session())
    monkeypatch.setattr(workers.os, "name", "nt")
    with context, pytest.raises(RequestError, match="needs Linux or macOS; on Windows, run it in"):
        context.invoke(workers.start)


def test_the_store_that_goes_away(cli: Cli) -> None:
    process = cli.spawn("start")
    process.expect("Worker-1 started")
    subprocess.run(["rm", "-rf", str(cli.store)], check=True)
    process.finish(3)
    assert "was removed while in use" in process.err
