"""What jobs find when they run, and what they can do to the queue: nothing but what is theirs."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path

import pytest

import support
from queuectl import job as rules
from queuectl.config import SETTINGS
from queuectl.job import JobState
from starting import HOLD, SLACK, STUBBORN, Queue, is_running, wait_until_gone
from support import Cli, wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")


@pytest.mark.parametrize(("ending", "state"), [("0", "completed"), ("3", "cancelled")])
def test_a_job_that_is_changed_while_it_runs_ends_by_what_it_is_then(
    cli: Cli, ending: str, state: str
) -> None:
    queue = Queue(cli)
    queue.add(f"{HOLD}; exit {ending}", id="held")
    start = queue.start("--drain")
    queue.wait_for_runner("held")
    with queue.opened() as manager:
        manager.store.save([rules.cancel(manager.find("held"), time.time())])
    queue.let_go()
    start.finish(0)
    job = queue.job("held")
    assert (job.state, job.attempts, job.cancel_requested) == (state, 1, False)
    assert start.err == ""


def test_a_job_can_stop_the_workers_that_run_it(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("queuectl stop", id="last")
    queue.add("true", id="next")
    queue.start().finish(0, timeout=15.0)
    job = queue.job("last")
    assert (job.state, job.interruptions) == ("completed", 0)
    assert queue.job("next").runs == 0
    # They have not when it ends.
    assert "Stopping process" in queue.logs("last")
    assert "Workers stopped" not in queue.logs("last")


def test_a_job_finds_no_locale_that_start_was_not_given(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("env", id="job")
    bare = {name: None for name in os.environ if name.startswith("LC_") or name == "LANG"}
    cli.run("start", "--drain", env={**bare, "LC_ALL": None}, check=0)
    assert "LC_CTYPE=" not in queue.logs("job")
    queue.add("env", id="given")
    cli.run("start", "--drain", env={**bare, "LC_ALL": None, "LC_CTYPE": "C.UTF-8"}, check=0)
    assert "LC_CTYPE=C.UTF-8" in queue.logs("given")


def test_a_job_runs_where_it_was_enqueued_under_the_name_that_its_user_called_it(cli: Cli) -> None:
    queue = Queue(cli)
    real, link = queue.folder / "real", queue.folder / "link"
    real.mkdir()
    link.symlink_to(real)
    env = {"PWD": str(link), "QUEUECTL_STORE": str(cli.store)}
    cli.run("enqueue", "--id", "linked", "pwd; /bin/pwd; cat file", cwd=link, env=env, check=0)
    env["PWD"] = str(queue.folder)
    cli.run("enqueue", "--id", "lying", 'echo "$PWD"', cwd=real, env=env, check=0)
    (real / "file").write_text("content\n")
    queue.drain()
    assert queue.logs("linked") == f"{link}\n{real.resolve()}\ncontent\n"
    assert queue.logs("lying") == f"{real.resolve()}\n"


def test_a_job_whose_folder_is_gone_fails_in_words(cli: Cli) -> None:
    queue = Queue(cli)
    gone = queue.folder / "gone"
    gone.mkdir()
    queue.add("true", id="job", max_retries=1, cwd=str(gone))
    queue.add("pwd", id="next")
    gone.rmdir()
    queue.drain()
    assert queue.job("job").last_error == f"Working folder {gone} does not exist"
    assert queue.logs("next") == f"{queue.folder}\n"


def test_a_job_has_the_environment_umask_and_limits_of_start(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add('touch made; umask; ulimit -n; echo "$OF_START"; echo "$OF_ENQUEUE"', id="job")
    cli.env["OF_START"] = "start's own"
    script = 'umask 027; ulimit -n 777; exec "$@"'
    cli.command = ["/bin/sh", "-c", script, "sh", *cli.command]
    queue.drain()
    assert queue.logs("job") == "0027\n777\nstart's own\n\n"
    assert (queue.folder / "made").stat().st_mode & 0o777 == 0o640
    kept = next((cli.store / "logs").glob("*/job.1.log"))
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_a_job_finds_its_own_variables_and_none_of_a_setting(cli: Cli) -> None:
    queue = Queue(cli, backoff_base="0", max_retries="7", job_timeout="1h")
    script = "env | grep ^QUEUECTL_ | sort; [ $QUEUECTL_JOB_ATTEMPT = 2 ]"
    queue.add(script, id="job", max_retries=4)
    queue.drain()
    for attempt in (1, 2):
        expected = {
            "QUEUECTL_JOB_ATTEMPT": attempt,
            "QUEUECTL_JOB_ID": "job",
            "QUEUECTL_JOB_MAX_RETRIES": 4,
            "QUEUECTL_JOB_RUN": attempt,
            "QUEUECTL_STORE": cli.store,
        }
        found = queue.logs("job", "--run", str(attempt))
        assert found == "".join(f"{name}={value}\n" for name, value in expected.items())
        assert not set(expected) & {f"QUEUECTL_{name.upper()}" for name in SETTINGS}


def test_jobs_can_enqueue_jobs_wherever_they_run(cli: Cli) -> None:
    queue = Queue(cli)
    elsewhere = queue.folder / "elsewhere"
    elsewhere.mkdir()
    # A store that a relative name, or none, would find.
    enqueue = "queuectl enqueue --quiet --id child 'pwd; echo $QUEUECTL_JOB_ID'"
    cli.run("enqueue", "--id", "parent", f"cd /; {enqueue}", cwd=elsewhere, check=0)
    start = queue.start("--drain", env={"QUEUECTL_STORE": "store"})
    start.finish(0)
    assert queue.job("parent").last_error is None
    child = queue.job("child")
    assert (child.state, child.attempts, child.max_retries) == ("completed", 1, 3)
    assert queue.logs("child") == "/\nchild\n"


def test_a_job_reads_nothing_and_inherits_nothing(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add("cat; echo end; ls /proc/self/fd", id="job")
    with open(queue.folder / "inherited", "w") as file:
        os.set_inheritable(file.fileno(), True)
        start = queue.start("--drain", pass_fds=[file.fileno()])
        start.finish(0)
    # The last one is that of the listing.
    assert queue.logs("job").split() == ["end", "0", "1", "2", "3"]


def test_a_lock_around_start_is_free_when_it_ends_though_a_background_process_lives(
    cli: Cli,
) -> None:
    queue = Queue(cli)
    queue.add("sleep 1000 & echo $! > pid", id="job")
    lock = queue.folder / "start.lock"
    cli.command = ["flock", "-n", lock, *cli.command]
    queue.drain()
    pid = int(queue.read("pid"))
    try:
        assert is_running(pid)
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_background_process_that_keeps_the_output_open_holds_nothing_up(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add(
        "(echo $$ > pid; until [ -e go ]; do sleep 0.01; done; echo later) & echo now", id="a"
    )
    queue.add("echo other", id="b")
    began = time.monotonic()
    start = queue.start()
    job = queue.wait_for("a", JobState.COMPLETED)
    queue.wait_for("b", JobState.COMPLETED)
    assert time.monotonic() - began < 3 * SLACK
    assert job.exit_code == 0
    queue.let_go()
    wait_until(lambda: queue.logs("a") == "now\nlater\n", what="what it prints later")
    assert queue.logs("b") == "other\n"
    start.terminate()
    start.finish(0)


def test_a_job_that_outlives_its_timeout_is_ended_with_all_its_processes(cli: Cli) -> None:
    queue = Queue(cli, kill_grace="0.4s")
    queue.add(STUBBORN, id="stubborn", timeout=0.5, max_retries=1)
    start = queue.start()
    queue.wait_for_runner("stubborn")
    began = time.monotonic()
    running = queue.wait_for_processes("stubborn", 3)
    gone = wait_until_gone(running, timeout=10)
    assert gone - began < 0.5 + 0.4 + SLACK
    job = queue.wait_for("stubborn", JobState.DEAD)
    assert (job.last_error, job.exit_code) == ("Timed out after 0.5s", None)
    start.terminate()
    start.finish(0)


def test_a_job_cannot_harm_the_workers_with_signals_to_its_group_or_by_stopping_itself(
    cli: Cli,
) -> None:
    queue = Queue(cli, kill_grace="0.4s", backoff_base="0")
    queue.add("kill -INT 0; sleep 5", id="all", max_retries=1)
    queue.add("kill -STOP $$", id="stops", timeout=0.3, max_retries=1)
    queue.add("kill -TERM $PPID", id="polite")
    start = queue.start("--drain")
    start.finish(0)
    assert queue.job("all").last_error == "Killed by signal 2 (SIGINT)"
    assert queue.job("stops").last_error == "Timed out after 0.3s"
    # A worker that is told to end finishes what it runs, and is replaced.
    assert (queue.job("polite").state, queue.job("polite").runs) == ("completed", 1)


def test_a_job_that_ends_its_own_start_is_finished(cli: Cli) -> None:
    queue = Queue(cli)
    supervisor = "$(cut -d' ' -f4 /proc/$PPID/stat)"
    queue.add(f"kill {supervisor}; echo said", id="job")
    queue.start().finish(0)
    job = queue.job("job")
    assert (job.state, job.attempts) == ("completed", 1)


def test_two_jobs_of_the_same_command_keep_their_outputs_apart(cli: Cli) -> None:
    queue = Queue(cli)
    queue.add_many({f"job-{number}": "echo $QUEUECTL_JOB_ID >&2" for number in range(20)})
    queue.drain(count=4)
    for number in range(20):
        path = next(Path(cli.store, "logs").glob(f"*/job-{number}.1.log"))
        assert path.read_text() == f"job-{number}\n"
    assert json.loads(cli.run("--json", "status", check=0).stdout)["completed"] == 20
