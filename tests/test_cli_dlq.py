"""`queuectl dlq`: listing, retrying and purging dead jobs."""

from __future__ import annotations

import os
from typing import Callable, List

import pytest

from support import Cli, Terminal
from test_cli_support import failure, job_file, queue_of, run

EMPTY = "💀 Dead Letter Queue (0 jobs)\n"


def bury(cli: Cli, *names: str) -> List[str]:
    """Make dead jobs, the oldest first, and return what was printed by each, as a path."""
    with queue_of(cli) as queue:
        for name in names:
            queue.enqueue(f"do {name}", id=name, max_retries=1)
            run(queue, error="Command not found", output=b"not found\n")
        return [queue.store.kept_output(name, 1) for name in names]


def test_dlq_functionality(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    bury(cli, "one", "two")
    rows = [row.split("\t") for row in cli.run("dlq", "list", check=0).stdout.splitlines()]
    dead = cli.json("dlq", "list")
    assert [job["id"] for job in dead] == ["two", "one"]
    assert rows == [
        [job["id"], "1", job["finished_at"], "Command not found", job["command"]] for job in dead
    ]
    shown = terminal("dlq", "retry", "one")
    assert shown.wait() == 0
    assert shown.text == "🔄 Job moved from DLQ to pending queue\n"
    job = cli.json("show", "one")
    assert (job["state"], job["attempts"], job["runs"]) == ("pending", 0, 1)
    shown = terminal("dlq", "purge", "two")
    assert shown.wait() == 0
    assert shown.text == "🗑️  Job deleted from DLQ\n"
    assert [job["id"] for job in cli.json("list")] == ["one"]
    assert cli.json("dlq", "list") == []
    assert cli.run("dlq", "list", check=0).stdout == ""


def test_a_person_sees_a_table(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    with queue_of(cli) as queue:
        job = queue.enqueue("invalid_command", max_retries=1)
        run(queue, error="Command not found")
    shown = terminal("dlq", "list", columns=80)
    assert shown.wait() == 0
    assert shown.text.splitlines()[:5] == [
        "💀 Dead Letter Queue (1 job)",
        "┌──────────────────────────────────────┬─────────────┬──────────┬──────────────┐",
        "│ ID                                   │ Command     │ Attempts │ Last Error   │",
        "├──────────────────────────────────────┼─────────────┼──────────┼──────────────┤",
        f"│ {job.id} │ invalid_co… │ 1        │ Command not… │",
    ]
    shown = terminal("dlq", "retry", "--all")
    assert shown.wait() == 0
    shown = terminal("dlq", "list")
    assert shown.wait() == 0
    assert shown.text == EMPTY


def test_all_of_them(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    paths = bury(cli, "one", "two", "three")
    shown = terminal("dlq", "retry", "--all")
    assert shown.wait() == 0
    assert shown.text == "🔄 3 jobs moved from DLQ to pending queue\n"
    before = job_file(cli)
    assert cli.run("dlq", "retry", "--all", check=0).stdout == ""
    assert cli.json("dlq", "purge", "--all") == []
    assert job_file(cli) == before
    assert all(map(os.path.exists, paths))


def test_programs_are_told_which_jobs_they_changed(cli: Cli) -> None:
    paths = bury(cli, "one", "two", "three")
    retried = cli.json("dlq", "retry", "one", "one")
    assert retried == [job for job in cli.json("list") if job["id"] == "one"]
    assert cli.run("dlq", "retry", "two", check=0).stdout.startswith("two\tpending\t0\t1\t")
    purged = cli.json("dlq", "purge", "--all")
    assert [(job["id"], job["state"]) for job in purged] == [("three", "dead")]
    assert [os.path.exists(path) for path in paths] == [True, True, False]
    with queue_of(cli) as queue:
        assert not queue.store.find("three", 1)


REFUSED = {
    "no ids": ([], 2, "give ids, or --all"),
    "ids and --all": (["one", "--all"], 2, "give ids or --all, not both; see queuectl dlq "),
    "a job that is not dead": (["one", "alive"], 1, "job 'alive' is pending, not in the DLQ"),
    "an unknown id": (["one", "none"], 1, "job 'none' not found"),
    "an ambiguous id": (["one", "twin"], 1, "job 'twin' is ambiguous: twin"),
}


@pytest.mark.parametrize("command", ["retry", "purge"])
@pytest.mark.parametrize(("ids", "code", "why"), REFUSED.values(), ids=REFUSED)
def test_all_or_none(command: str, ids: List[str], code: int, why: str, cli: Cli) -> None:
    bury(cli, "one", "twin-a", "twin-b")
    with queue_of(cli) as queue:
        queue.enqueue("x", id="alive")
    before = job_file(cli)
    assert failure(cli, ["dlq", command, *ids], code).startswith(why)
    assert job_file(cli) == before
