"""`queuectl list`, `show` and `status`: at a terminal, into a pipe, and as JSON."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any, Callable, Dict, List

import pytest

from queuectl import Job, clock
from queuectl.job import DEFAULTS, OPTIONAL_FIELDS, SHOWN_FIELDS
from queuectl.store.base import Member
from support import Cli, Terminal
from test_cli_support import (
    HOSTILE,
    HOSTILE_ROW,
    HOSTILE_SHOWN,
    WORKER,
    claim,
    complaint,
    failure,
    keep,
    queue_of,
    refusal,
    run,
)

NO_COLOR = {"NO_COLOR": "1"}


def fill(cli: Cli) -> List[Job]:
    """Make a job in each state, the oldest first: pending, processing, completed, failed, dead."""
    with queue_of(cli) as queue:
        queue.enqueue("done", id="c-1", cwd="/tmp")
        run(queue, output=b"hello\n")
        queue.enqueue("again", id="f-1", cwd="/tmp")
        run(queue, error="Exit code 1: no", output=b"no\n")
        queue.enqueue("never", id="d-1", max_retries=1, cwd="/tmp")
        run(queue, error="Command not found")
        queue.enqueue("now", id="r-1", cwd="/tmp", timeout=90)
        claim(queue)
        queue.enqueue("later", id="p-1", cwd="/tmp")
        return list(queue.jobs())[::-1]


def test_list_into_a_pipe_is_a_row_a_job(cli: Cli) -> None:
    jobs = fill(cli)
    rows = cli.run("list", check=0).stdout.splitlines()
    assert rows == [
        "\t".join(
            map(
                str,
                (job.id, job.state, job.attempts, job.max_retries, job.created_at, job.command),
            )
        )
        for job in reversed(jobs)
    ]
    assert cli.run("list", "--state", "dlq", check=0).stdout.startswith("d-1\tdead\t1\t1\t")
    rows = cli.run("list", "--state", "Failed, pending,failed", check=0).stdout.splitlines()
    assert [row.split("\t")[0] for row in rows] == ["p-1", "f-1"]
    assert cli.run("list", "--limit", "2", check=0).stdout.count("\n") == 2
    assert cli.run("list", "--state", "cancelled", check=0).stdout == ""


def test_list_as_json_is_an_array_of_whole_jobs(cli: Cli) -> None:
    jobs = fill(cli)
    assert cli.json("list") == [job.to_dict() for job in reversed(jobs)]
    assert [job["id"] for job in cli.json("list", "--state", "completed,dead")] == ["d-1", "c-1"]
    assert cli.json("list", "--limit", "1")[0]["id"] == "p-1"
    assert cli.run("list", "--state", "cancelled", "--json", check=0).stdout == "[]\n"


def test_list_at_a_terminal_is_a_table(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    with queue_of(cli) as queue:
        job = queue.enqueue("echo " + "x" * 100)
    shown = terminal("list", "--state", "pending", columns=80)
    assert shown.wait() == 0
    assert shown.text.splitlines() == [
        "📋 Pending Jobs (1)",
        "┌──────────┬────────────────────────────────┬─────────┬──────────┬─────────────┐",
        "│ ID       │ Command                        │ State   │ Attempts │ Max Retries │",
        "├──────────┼────────────────────────────────┼─────────┼──────────┼─────────────┤",
        f"│ {job.id[:8]} │ echo {'x' * 24}… │ pending │ 0        │ 3           │",
        "└──────────┴────────────────────────────────┴─────────┴──────────┴─────────────┘",
    ]
    assert "\x1b[33mpending\x1b[0m" in shown.raw


def test_list_at_a_terminal_has_a_heading_for_what_it_lists(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    fill(cli)
    for words, heading in (
        ([], "📋 Jobs (5)"),
        (["--state", "dlq"], "📋 Dead Jobs (1)"),
        (["--state", "pending,failed"], "📋 Pending, Failed Jobs (2)"),
        (["--state", "cancelled"], "📋 Cancelled Jobs (0)"),
    ):
        shown = terminal("list", *words, env=NO_COLOR)
        assert shown.wait() == 0
        assert shown.text.startswith(f"{heading}\n")
        assert "\x1b" not in shown.raw
    assert shown.text == "📋 Cancelled Jobs (0)\n"


def test_list_at_a_terminal_shows_the_newest_50(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    with queue_of(cli) as queue:
        for number in range(60):
            queue.enqueue("x", id=f"job-{number:02}")
    for words, last, count in (
        ([], "newest 50 of 60 (--all shows all)", 50),
        (["--limit", "3"], "newest 3 of 60 (--all shows all)", 3),
        (["--all"], "", 60),
    ):
        shown = terminal("list", *words)
        assert shown.wait() == 0
        assert shown.text.startswith("📋 Jobs (60)\n")
        assert re.findall(r"job-\d\d", shown.text)[0] == "job-59"
        assert len(re.findall(r"job-\d\d", shown.text)) == count
        assert shown.text.splitlines()[-1] == last or count == 60
    assert len(cli.json("list")) == 60
    assert cli.run("list", check=0).stdout.count("\n") == 60


def test_json_at_a_terminal_is_whole(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    with queue_of(cli) as queue:
        for _ in range(60):
            queue.enqueue("x" * 200)
    shown = terminal("list", "--json")
    assert shown.wait() == 0
    assert [job["command"] for job in json.loads(shown.text)] == ["x" * 200] * 60


def test_nothing_of_a_job_is_obeyed_wherever_it_is_shown(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    with queue_of(cli) as queue:
        queue.enqueue(HOSTILE, id="bad", max_retries=1)
        run(queue, error=HOSTILE, output=HOSTILE.encode("utf-8", "surrogateescape"))
    assert cli.run("list", check=0).stdout.endswith(f"\t{HOSTILE_ROW}\n")
    row = cli.run("dlq", "list", check=0).stdout
    assert row.endswith(f"\t{HOSTILE_ROW}\t{HOSTILE_ROW}\n")
    assert cli.json("show", "bad")["command"] == HOSTILE
    for words in (["list"], ["dlq", "list"], ["show", "bad"], ["logs", "bad"]):
        shown = terminal(*words, columns=300, env=NO_COLOR)
        assert shown.wait() == 0
        plain = shown.raw.replace("\r\n", "\n")
        assert all(sign.isprintable() or sign in "\n\t" for sign in plain), plain
        if words[-1] == "list":
            assert HOSTILE_SHOWN in plain


REFUSED = {
    "an unknown state": (
        ["list", "--state", "pendng"],
        "bad value for --state: unknown state 'pendng': did you mean pending? see queuectl list",
    ),
    "a state like none": (
        ["list", "--state", "xyz"],
        "bad value for --state: unknown state 'xyz': use pending, processing, completed, failed",
    ),
    "a state of many": (["list", "--state", "dead,"], "bad value for --state: unknown state ''"),
    "limit and all": (["list", "--limit", "3", "--all"], "choose one of --limit and --all; see"),
    "a limit of none": (["list", "--limit", "0"], "bad value for --limit: 0 is not between 1 and"),
    "no id": (["show"], "missing ID; see queuectl show --help"),
    "a word too many": (["status", "x"], "got unexpected extra argument (x); see queuectl status"),
}


@pytest.mark.parametrize(("words", "why"), REFUSED.values(), ids=REFUSED)
def test_values_that_are_refused(words: List[str], why: str, cli: Cli) -> None:
    assert refusal(cli, words).startswith(why)


def test_show_as_json_is_the_job_and_its_output(cli: Cli) -> None:
    jobs = {job.id: job for job in fill(cli)}
    shown = cli.json("show", "c-1")
    assert list(shown) == [*SHOWN_FIELDS, "waiting_for", "output", "output_host"]
    assert shown.pop("output_host") is None
    path = shown.pop("output")
    assert shown.pop("waiting_for") == []
    assert shown == jobs["c-1"].to_dict()
    with open(path, encoding="utf-8") as file:
        assert file.read() == "hello\n"
    shown = cli.json("show", "p-1")
    assert shown["output"] is None
    assert shown["waiting_for"] == [{"kind": "no_worker", "what": "", "state": None}]


def test_show_tells_everything_that_is_known(cli: Cli) -> None:
    jobs = {job.id: job for job in fill(cli)}
    facts = facts_of(cli.run("show", "f-1", env={"TZ": "XYZ-5"}, check=0).stdout)
    job = jobs["f-1"]
    later = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(clock.from_iso(job.created_at) + 18000))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(in \d\.\ds\)", facts.pop("Not before"))
    assert re.fullmatch(r"for its next attempt, in \d\.\ds", facts.pop("Waits"))
    assert facts == {
        "ID": "f-1", "Command": "again", "State": "failed", "Attempts": "1", "Max retries": "3",
        "Created": later, "Updated": facts["Updated"], "Last error": "Exit code 1: no",
        "Runs": "1", "Changes": "2", "Folder": "/tmp", "Started": facts["Started"],
        "Exit code": "1", "Interruptions": "0", "Output": facts["Output"],
    }  # fmt: skip
    assert facts["Output"].endswith("/f-1.1.log (run 1)")
    facts = facts_of(cli.run("show", "r-1", check=0).stdout)
    assert facts["Timeout"] == "90s"
    assert facts["Worker"] == WORKER
    assert re.search(r"\(running for \d+\.\ds\)$", facts["Started"])


def facts_of(text: str) -> Dict[str, str]:
    return dict(re.findall(r"^([A-Z][A-Za-z ]+): +(.*)$", text, re.MULTILINE))


def test_show_tells_whatever_fields_a_job_has(cli: Cli) -> None:
    with queue_of(cli) as queue:
        job = queue.enqueue(
            "x",
            id="all",
            timeout=1,
            priority=3,
            queue="q",
            unique="k",
            labels=["l"],
            env=["A=1"],
            success_codes=[0, 1],
        )
        values: Dict[str, Any] = {
            name: getattr(job, name)
            for name in SHOWN_FIELDS
            if getattr(job, name) is not None and getattr(job, name) is not False
            # What most jobs do not use is told of those that do.
            if name not in OPTIONAL_FIELDS or getattr(job, name) != DEFAULTS[name]
        }
    facts = facts_of(cli.run("show", "all", check=0).stdout)
    assert facts.pop("Waits") == "no worker is running: queuectl start"
    assert len(facts) == len(values)
    for name in ("Priority", "Queue", "Labels", "Unique", "Env", "Success codes"):
        assert name in facts


def test_show_keeps_the_lines_of_a_command_apart_from_its_own(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("echo a\nState: dead\n\techo b", id="lines")
    lines = cli.run("show", "lines", check=0).stdout.splitlines()
    at = lines.index("Command:       echo a")
    assert lines[at + 1 : at + 3] == ["               State: dead", "               \techo b"]


def test_show_ends_with_the_last_lines_of_output(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="many")
        run(queue, output="".join(f"line {n} é\n" for n in range(20000)).encode())
    lines = cli.run("show", "many", check=0).stdout.splitlines()
    assert lines[-10:] == [f"  │ line {n} é" for n in range(19990, 20000)]
    assert not lines[-11].startswith("  │")


def test_show_finds_the_output_of_a_job_that_runs(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x", id="busy")
        job = claim(queue)
        keep(queue.store.spool(WORKER), b"so far\n")
        assert cli.run("show", "busy", check=0).stdout.endswith("  │ so far\n")
        assert cli.json("show", "busy")["output"] == queue.store.spool(WORKER)
        # The worker has gone on to another job: what it writes now is not of this one.
        queue.store.enroll(member(job="other"))
        assert cli.json("show", "busy")["output"] is None
        keep(queue.store.kept_output(job.id, job.runs), b"all of it\n")
        assert cli.run("logs", "busy", check=0).stdout == "all of it\n"
        queue.store.leave(WORKER)


def member(job: str) -> Member:
    now = clock.to_iso(clock.now())
    return Member(WORKER, "worker", "Worker-1", os.getpid(), "here", now, "s", job=job, run=1)


STATUS = """\
📊 QueueCTL System Status
========================================
🟡 Pending: 1
🟠 Processing: 1
✅ Completed: 1
🔴 Failed: 1
💀 DLQ: 1
📦 Total: 5
========================================
"""


def test_status_is_the_same_in_a_pipe_and_at_a_terminal(
    cli: Cli, terminal: Callable[..., Terminal]
) -> None:
    fill(cli)
    rest = f"📁 Store: {cli.store}\nno workers running: queuectl start\n"
    assert cli.run("status", check=0).stdout == STATUS + rest
    shown = terminal("status")
    assert shown.wait() == 0
    assert shown.text == STATUS + rest


def test_status_asks_for_workers_when_a_job_lost_its_own(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("x")
        claim(queue)
    assert cli.run("status", check=0).stdout.endswith("\nno workers running: queuectl start\n")


def test_status_of_an_empty_store_does_not_ask_for_workers(cli: Cli) -> None:
    with queue_of(cli):
        pass
    out = cli.run("status", check=0).stdout
    assert "📦 Total: 0\n" in out
    assert out.endswith(f"📁 Store: {cli.store}\n")


def test_status_names_what_is_cancelled_and_what_is_scheduled(cli: Cli) -> None:
    from queuectl import job as rules

    with queue_of(cli) as queue:
        job = queue.enqueue("x", id="gone")
        queue.store.save([rules.cancel(job, clock.now())])
        now = clock.now()
        later = rules.enqueue("later", "x", now, max_retries=3, run_at=now + 1000)
        queue.store.add([later])
        queue.enqueue("x", id="now")
    out = cli.run("status", check=0).stdout
    assert "💀 DLQ: 0\n🚫 Cancelled: 1\n📦 Total: 3\n" in out
    assert "=\n⏰ Scheduled: 1\n📁 Store: " in out


def test_status_tells_what_the_workers_do(cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("sleep 100\n", id="busy")
        claim(queue)
        queue.store.enroll(member(job="busy"))
        lines = cli.run("status", check=0).stdout.splitlines()
        at = lines.index("👷 Workers: 1")
        doing = rf"   Worker-1 \(pid {os.getpid()}\): busy sleep 100\\n \(\d+\.\ds\)"
        assert re.fullmatch(doing, lines[at + 1])
        assert lines[-1] == f"📁 Store: {cli.store}"
        status = cli.json("status")
        queue.store.leave(WORKER)
    worker = status.pop("workers")[0]
    assert list(worker) == ["id", "pid", "host", "job", "started_at"]
    assert (worker["id"], worker["pid"], worker["job"]) == (WORKER, os.getpid(), "busy")
    assert status == {
        "pending": 0, "processing": 1, "completed": 0, "failed": 0, "dead": 0, "cancelled": 0,
        "total": 1, "scheduled": 0, "store": str(cli.store),
        "blocked": 0, "paused": [], "lifetime": {"enqueued": 1, "completed": 0},
    }  # fmt: skip


def test_ids_may_be_shortened(cli: Cli) -> None:
    with queue_of(cli) as queue:
        for name in ("build", "build-1", "build-2", "deploy"):
            queue.enqueue("x", id=name)
    assert cli.json("show", "depl")["id"] == "deploy"
    assert cli.json("show", "build")["id"] == "build"
    assert failure(cli, ["show", "buil"], 1).startswith("job 'buil' is ambiguous: build")
    for unknown in ("dep", "deployed", "x" * 100, "\x1b", '"', "", "\udcff"):
        assert re.fullmatch(r"job '.*' not found", failure(cli, ["show", unknown], 1))
    said = complaint(cli.run("show", b"\xff\x1b", check=1).stderr)
    assert said == r"job '\udcff\x1b' not found"


def test_reading_makes_no_store(cli: Cli) -> None:
    for words in (["status"], ["list"], ["show", "x"], ["logs", "x"], ["dlq", "list"]):
        said = failure(cli, words, 3)
        assert said == f"no store at {cli.store}: queuectl enqueue makes one"
    assert not cli.store.exists()
