"""The REST API: a real server, real requests, and what the command line sees of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import resource
import select
import socket
import struct
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple

import pytest

from queuectl import __version__
from queuectl.job import SHOWN_FIELDS
from queuectl.newjob import NewJob
from serving import API, Server, httpx, serving
from starting import HOLD
from support import HAS_PROC, Cli, wait_until
from test_cli_support import HOSTILE, queue_of, run

ROOT = Path(__file__).parent.parent


@pytest.fixture
def server(cli: Cli) -> Iterator[Server]:
    with serving(cli) as running:
        yield running


def ids(page: Dict[str, Any]) -> List[str]:
    return [job["id"] for job in page["jobs"]]


def test_a_job_is_what_the_command_line_shows(cli: Cli, server: Server) -> None:
    body = {
        "command": "make", "id": "nightly", "priority": "high", "queue": "q", "labels": ["a", "b"],
        "env": {"KEY": "secret"}, "timeout": 90, "delay": "1h", "success_codes": [0, 3],
        "backoff_max": None, "cwd": "/tmp",
    }  # fmt: skip
    job = server.send("POST", "/jobs", body, 201)
    assert job == server.get("/jobs/nightly") == server.get("/jobs/nigh")
    shown = json.loads(cli.run("show", "nightly", "--json", check=0).stdout)
    assert job == {name: shown[name] for name in SHOWN_FIELDS}
    assert job["env"] == {"KEY": None}
    assert "secret" not in server.ask("GET", f"{API}/jobs").text


def test_what_a_job_cannot_be_is_refused_as_on_the_command_line(server: Server) -> None:
    for body, code, part in (
        ({}, 422, "command"),
        ({"command": ""}, 422, "empty"),
        ({"command": "true", "comand": "x"}, 422, "comand"),
        ({"command": "true", "id": "a b"}, 422, "a b"),
        ({"command": "true", "queue": "a/b"}, 422, "queue"),
        ({"command": "true", "max_retries": -1}, 422, "max_retries"),
        ({"command": "true", "max_retries": True}, 422, "max_retries"),
        ({"command": "true", "run_at": "08:00", "delay": 3}, 422, "choose one"),
        ({"command": "true", "on_conflict": "error"}, 422, "on_conflict needs unique"),
        ({"command": "true", "after": ["nobody"]}, 404, "nobody"),
        ([], 422, "body"),
    ):
        problem = server.send("POST", "/jobs", body, code)
        assert part in problem["detail"], body
        assert (problem["status"], set(problem)) == (code, {"type", "title", "status", "detail"})
    kind = {"Content-Type": "application/json"}
    for content in (
        b'{"command":"\\ud800"}',
        b'{"command":"a","timeout":NaN}',
        b"\xff",
        b"[" * 9999,
    ):
        answer = server.ask("POST", f"{API}/jobs", content=content, headers=kind)
        assert answer.status_code in (400, 422), content[:20]
    assert server.get("/jobs")["jobs"] == []


def test_errors_are_named_as_in_their_tree(cli: Cli, server: Server) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("true", id="same-1", unique="key")
        queue.enqueue("true", id="same-2")
    taken = {"command": "true", "unique": "key", "on_conflict": "error"}
    for method, path, body, code, kind in (
        ("GET", "/jobs/absent", None, 404, "not-found"),
        ("GET", "/jobs/%ff%00", None, 404, "not-found"),
        ("GET", "/jobs/same", None, 409, "ambiguous-id"),
        ("GET", "/jobs/same-1/logs", None, 409, "request"),
        ("POST", "/jobs", {"command": "true", "id": "same-1"}, 409, "duplicate-id"),
        ("POST", "/jobs", taken, 409, "key-taken"),
        ("POST", "/jobs/same-1/retry", None, 409, "wrong-state"),
        ("DELETE", "/jobs/same-1", None, 409, "wrong-state"),
        ("PATCH", "/jobs/same-1", {}, 422, "invalid-value"),
        ("PATCH", "/jobs/same-1", {"priority": 10**30}, 422, "invalid-value"),
        ("GET", "/jobs?state=done", None, 422, "invalid-value"),
        ("GET", "/jobs?limit=501", None, 422, "invalid-value"),
        ("GET", "/jobs?cursor=x", None, 422, "invalid-value"),
        ("POST", "/jobs/purge", {"states": ["pending"]}, 422, "invalid-value"),
        ("POST", "/jobs/purge", {}, 422, "invalid-value"),
        ("POST", "/dlq/retry", {"ids": ["same-1"]}, 409, "wrong-state"),
        ("POST", "/dlq/purge", {}, 422, "invalid-value"),
        ("PUT", "/settings/none", {"value": "1"}, 422, "invalid-value"),
        ("PUT", "/settings/max_retries", {"value": "x"}, 422, "invalid-value"),
        ("PUT", "/queues/a%20b", {"concurrency": 1}, 422, "invalid-value"),
        ("PUT", "/queues/a", {"concurrency": 0}, 422, "invalid-value"),
    ):  # fmt: skip
        assert server.send(method, path, body, code)["type"] == f"urn:queuectl:{kind}", path
    assert server.get("/none", 404)["type"] == "about:blank"
    for path, allowed in (
        ("/jobs", "GET, POST"),
        ("/jobs/x", "DELETE, GET, PATCH"),
        ("/dlq", "GET"),
    ):
        answer = server.ask("PUT", API + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_pages_hold_every_job_once_while_more_come(cli: Cli, server: Server) -> None:
    with queue_of(cli) as queue:
        names = [queue.enqueue("true", id=f"job-{number}").id for number in range(7)][::-1]
        page = server.get("/jobs?limit=3")
        found = ids(page)
        while page["next"]:
            queue.enqueue("true")
            page = server.get(f"/jobs?limit=3&cursor={page['next']}")
            found += ids(page)
        assert found == names
    assert server.get("/jobs?limit=9")["next"] is None


def test_lists_have_the_filters_of_the_command_line(cli: Cli, server: Server) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("exit 1", id="dead", max_retries=1)
        run(queue, error="Exit code 1", output=b"oh no\n")
        queue.enqueue("make x", id="made", queue="q", labels=["l"])
        queue.enqueue("echo", id="said")
    for query, expected in (
        ("state=dead", ["dead"]),
        ("state=dlq,pending", ["said", "made", "dead"]),
        ("queue=q", ["made"]),
        ("label=l", ["made"]),
        ("grep=ake+", ["made"]),
        ("since=1h&limit=1", ["said"]),
        ("since=0", []),
    ):
        assert ids(server.get(f"/jobs?{query}")) == expected, query
    assert ids(server.get("/dlq")) == ["dead"]


def test_jobs_are_changed_as_on_the_command_line(cli: Cli, server: Server) -> None:
    jobs = [{"command": "true", "id": "a"}, {"command": "true", "id": "b", "after": "a"}]
    made = server.send("POST", "/jobs/batch", {"jobs": jobs}, 201)
    assert (ids(made), made["known"]) == (["a", "b"], [])
    assert server.send("PATCH", "/jobs/a", {"priority": "low", "queue": "q"})["priority"] == -10
    done = server.send("POST", "/jobs/a/cancel")
    assert (ids(done), [job["id"] for job in done["followers"]]) == (["a"], ["b"])
    assert server.send("POST", "/jobs/a/retry")["state"] == "pending"
    server.send("POST", "/jobs/a/cancel")
    assert ids(server.send("DELETE", "/jobs/a")) == ["a"]
    assert ids(server.send("POST", "/jobs/purge", {"all": True})) == ["b"]
    assert server.get("/jobs")["jobs"] == []


def test_the_dead_are_retried_and_purged(cli: Cli, server: Server) -> None:
    with queue_of(cli) as queue:
        for name in ("one", "two", "three"):
            queue.enqueue("exit 1", id=name, max_retries=1)
            run(queue, error="Exit code 1")
    assert ids(server.send("POST", "/dlq/retry", {"ids": ["one"]})) == ["one"]
    assert ids(server.send("POST", "/dlq/purge", {"ids": ["two"]})) == ["two"]
    assert ids(server.send("POST", "/dlq/retry", {"all": True})) == ["three"]
    assert server.send("POST", "/dlq/purge", {"all": True}) == {"jobs": [], "followers": []}


def test_the_same_key_enqueues_once(cli: Cli, server: Server) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = server.send("POST", "/jobs", {"command": "true"}, 201, headers=key)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda _: _enqueue(server, "true", key), range(8)))
    assert again == [(200, first["id"])] * 8
    problem = server.send("POST", "/jobs", {"command": "false"}, 409, headers=key)
    assert "used for another request" in problem["detail"]
    batch = {"jobs": [{"command": "a"}, {"command": "b"}]}
    made = server.send("POST", "/jobs/batch", batch, 201, headers=key)
    same = server.send("POST", "/jobs/batch", batch, 200, headers=key)
    assert (ids(same), sorted(ids(same))) == (ids(made), same["known"])
    assert len(server.get("/jobs")["jobs"]) == 3
    server.send("POST", "/jobs", {"command": "true"}, 422, headers={"Idempotency-Key": ""})


def test_a_unique_job_that_is_there_is_returned(server: Server) -> None:
    body = {"command": "true", "unique": "k"}
    first = server.send("POST", "/jobs", body, 201)
    assert server.send("POST", "/jobs", body, 200) == first


@pytest.mark.slow
def test_a_thousand_requests_at_once_lose_nothing_while_workers_run(cli: Cli) -> None:
    """Each is acknowledged, and each job is there once, and run once; whoever reads is answered."""
    cli.run("config", "set", "log_level", "WARNING", check=0)
    with more_open_files(), serving(cli) as server:
        start = cli.spawn("start", "--count", "2")
        codes, made = asyncio.run(at_once(server, 1000))
        assert codes == {("POST", 201), ("GET", 200)}
        assert len(set(made)) == len(made) == 1000
        wait_until(lambda: server.get("/stats")["totals"].get("completed") == 1000, 40)
        assert len(server.get("/workers")["workers"]) == 2
        assert [node["workers"] for node in server.get("/nodes")["nodes"]] == [2]
        start.terminate()
        start.finish(0)
    with queue_of(cli) as queue:
        assert {job.runs for job in queue.jobs()} == {1}
        assert sorted(job.id for job in queue.jobs()) == sorted(made)


@contextlib.contextmanager
def more_open_files() -> Iterator[None]:
    """Let this process, and those that it starts, have a connection for each request."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4096 if before[1] == resource.RLIM_INFINITY else min(4096, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def at_once(server: Server, number: int) -> Tuple[Set[Tuple[str, int]], List[str]]:
    """Enqueue so many jobs in as many requests, and read among them.

    Returns:
        What the requests were answered, and the ids of the jobs.
    """
    headers = {"Authorization": f"Bearer {server.tokens['write']}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=server.url + API, headers=headers, limits=limits, timeout=50, trust_env=False
    ) as client:
        asked = [client.post("/jobs", json={"command": "true"}) for _ in range(number)]
        for at in range(0, number, 20):
            asked.insert(at, client.get(("/jobs?limit=5", "/stats", "/workers")[at % 3]))
        answers = await asyncio.gather(*asked)
    codes = {(answer.request.method, answer.status_code) for answer in answers}
    return codes, [a.json()["id"] for a in answers if a.request.method == "POST"]


def test_queues_are_limited_paused_and_resumed(cli: Cli, server: Server) -> None:
    server.send("POST", "/jobs", {"command": "true", "queue": "email"}, 201)
    assert server.send("PUT", "/queues/email", {"concurrency": 2})["concurrency"] == 2
    assert server.send("POST", "/queues/email/pause")["paused"] is True
    found = wait_until(
        lambda: [q for q in server.get("/queues")["queues"] if q["counts"]["pending"]]
    )
    assert [(q["name"], q["paused"], q["concurrency"]) for q in found] == [("email", True, 2)]
    assert server.send("POST", "/queues/email/resume")["paused"] is False
    assert server.send("PUT", "/queues/email", {"concurrency": None})["concurrency"] is None
    assert json.loads(cli.run("queue", "list", "--json", check=0).stdout)[1]["paused"] is False


def test_settings_are_stored(cli: Cli, server: Server) -> None:
    def told(answer: Dict[str, Any]) -> Dict[str, str]:
        return {entry["name"]: entry["value"] for entry in answer["settings"]}

    assert told(server.send("PUT", "/settings/max-retries", {"value": "7"}))["max_retries"] == "7"
    assert cli.run("config", "get", "max_retries", check=0).stdout == "7\n"
    assert told(server.send("DELETE", "/settings/max_retries"))["max_retries"] == "3"
    assert told(server.get("/settings"))["max_retries"] == "3"


def test_output_is_read_whole_and_in_ranges(cli: Cli, server: Server) -> None:
    printed = b"<script>\x1b[2J\xff\n" * 100
    with queue_of(cli) as queue:
        queue.enqueue("true", id="said")
        run(queue, output=printed)
    path = f"{API}/jobs/said/logs"
    whole = server.ask("GET", path, "read")
    assert whole.content == printed
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["queuectl-run"] == "1"
    size = len(printed)
    for span, start, stop in (
        ("bytes=0-9", 0, 10),
        ("bytes=10-", 10, size),
        ("bytes=-5", size - 5, size),
        ("bytes=5-99999999", 5, size),
    ):
        part = server.ask("GET", path, "read", headers={"Range": span})
        assert (part.status_code, part.content) == (206, printed[start:stop])
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    for span in ("bytes=99999999-", "bytes=9-3", "bytes=-0"):
        refused = server.ask("GET", path, "read", headers={"Range": span})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}")
    assert server.ask("GET", path, "read", headers={"Range": "lines=1-2"}).content == printed
    assert server.get("/jobs/said/logs?run=2", 409)["type"] == "urn:queuectl:request"


@pytest.mark.skipif(not HAS_PROC, reason="looks into /proc")
@pytest.mark.parametrize("path", ["logs", "logs/live"])
def test_who_goes_away_leaves_no_output_open(cli: Cli, server: Server, path: str) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("true", id="said")
        run(queue, output=b"said\n" * 100_000)
    asked = f"GET {API}/jobs/said/{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    asked += f"Authorization: Bearer {server.tokens['read']}\r\n\r\n"
    for number in range(60):
        with socket.create_connection(("127.0.0.1", server.port)) as gone:
            # Reset, not closed: the server hears of it before it answers.
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.sendall(asked.encode())
            # At no certain place of the answer.
            select.select([gone], [], [], number / 10_000)
    assert server.ask("GET", f"{API}/jobs/said/logs", "read").status_code == 200
    opened = Path(f"/proc/{server.process.pid}/fd")
    logs = str(cli.store / "logs")

    def is_closed() -> bool:
        return not any(os.path.realpath(fd).startswith(logs) for fd in opened.iterdir())

    wait_until(is_closed, what="that no output is open")


def test_output_is_followed_until_the_end(cli: Cli, server: Server) -> None:
    command = f"printf 'caf\\303'; {HOLD}; printf '\\251\\377'"
    server.send("POST", "/jobs", {"command": command, "id": "live", "cwd": str(cli.folder)}, 201)
    cli.spawn("start", "--drain")
    found: List[Any] = []
    for name, number, data in server.events("/jobs/live/logs/live"):
        found.append((name, number, json.loads(data)))
        (cli.folder / "go").touch()
    assert found[-1][0] == "end"
    assert found[-1][2] == {"run": 1, "state": "completed", "exit_code": 0}
    text = "".join(data["text"] for name, _, data in found if name == "output")
    assert text.startswith("caf")
    assert text.replace("\\xc3", "é").endswith("held\n\\xa9\\xff")
    first, *_ = found
    again = list(server.events("/jobs/live/logs/live", **{"Last-Event-ID": first[1]}))
    rest = "".join(json.loads(data)["text"] for name, _, data in again if name == "output")
    assert rest
    assert not rest.startswith("caf")


def test_output_is_followed_from_near_its_end(cli: Cli, server: Server) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("true", id="said")
        run(queue, output=b"0123456789" * 10)
    for tail, text, lost in (
        (7, "3456789", "93 bytes before are left out"),
        (100, "0123456789" * 10, None),
        (10**9, "0123456789" * 10, None),
    ):
        found = [
            (e[0], json.loads(e[2])) for e in server.events(f"/jobs/said/logs/live?tail={tail}")
        ]
        said = dict(found)
        assert said["output"]["text"] == text
        assert said.get("lost", {}).get("why") == lost
    # Who saw some goes on there.
    again = server.events("/jobs/said/logs/live?tail=7", **{"Last-Event-ID": "1-98"})
    assert json.loads(next(again)[2])["text"] == "89"
    again.close()


def test_a_job_is_explained_among_its_kin(cli: Cli, server: Server) -> None:
    with queue_of(cli) as queue:
        for job_id in ("gone", "parent"):
            queue.enqueue(f"make {job_id}", id=job_id)
        queue.enqueue("true", id="middle", after=["parent"], after_any=["gone"])
        queue.enqueue("true", id="child", after=["middle"])
        queue.enqueue("true", id="grandchild", after=["child"])
        for _ in range(2):
            run(queue)
        queue.purge_jobs(["gone"])
        queue.set_queue("default", paused=True)
        why = server.get("/jobs/child/why")
        assert [(each["kind"], each["what"]) for each in why["waiting_for"]] == [
            ("after", "middle"), ("paused", "default"), ("no_worker", ""),
        ]  # fmt: skip
        assert [job["id"] for job in why["jobs"]] == ["child", "middle", "parent", "grandchild"]
        assert why["jobs"][1] == {
            "id": "middle", "command": "true", "state": "pending",
            "after": ["parent"], "after_any": ["gone"],
        }  # fmt: skip
        assert (why["missing"], why["more"]) == (["gone"], False)
        queue.enqueue_many([NewJob("true", after=["grandchild"]) for _ in range(30)])
        many = server.get("/jobs/grandchild/why")
        assert (len(many["jobs"]), many["more"]) == (24, True)
    assert server.get("/jobs/parent/why")["waiting_for"] == []


def test_what_the_server_saw_of_the_hour_is_told(cli: Cli, server: Server) -> None:
    assert server.get("/history")["minutes"][-1]["completed"] == 0
    with queue_of(cli) as queue:
        for number in range(3):
            queue.enqueue("true", max_retries=1)
            run(queue, error="Exit code 1" if number == 0 else None)

    def told() -> List[int]:
        minutes = server.get("/history")["minutes"]
        return [sum(minute[name] for minute in minutes) for name in ("completed", "failed")]

    wait_until(lambda: told() == [2, 1])


def test_who_asks_is_told_what_he_may(cli: Cli) -> None:
    with serving(cli, "--read-only") as server:
        for scope in ("read", "write"):
            told = json.loads(server.ask("GET", f"{API}/session", scope).text)
            assert told == {
                "scope": scope, "read_only": True, "version": __version__, "store": str(cli.store),
            }  # fmt: skip


def test_what_is_hostile_stays_text(cli: Cli, server: Server) -> None:
    with queue_of(cli) as queue:
        queue.enqueue(HOSTILE, id="hostile", labels=["<script>"])
    answer = server.ask("GET", f"{API}/jobs/hostile")
    assert answer.json()["command"] == HOSTILE
    assert answer.content.isascii()


def test_the_description_is_kept_in_the_docs(server: Server) -> None:
    kept = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert server.get("/openapi.json") == kept
    page = (ROOT / "docs" / "api.md").read_text()
    for path in kept["paths"]:
        said = path.replace(API, "").replace("{job_id}", "ID").replace("{name}", "NAME")
        assert said.rpartition("/")[2] in page, path
        assert said.split("/")[1] in page, path


def _enqueue(server: Server, command: str, headers: Dict[str, str]) -> Any:
    answer = server.ask("POST", f"{API}/jobs", json={"command": command}, headers=headers)
    return answer.status_code, answer.json()["id"]
