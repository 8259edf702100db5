"""`queuectl serve`: who is let in, and who is not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

from serving import API, Server, httpx, serving
from support import Cli

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE")
READING = ("GET", "HEAD")
EXPLICIT = "x" * 40


def routes() -> List[str]:
    """The paths of all routes."""
    from queuectl.web.app import make_app
    from queuectl.web.desk import Desk

    return list(make_app(Desk("/nowhere")).openapi()["paths"])


def requests() -> Iterator[Tuple[str, str]]:
    others = ("/", "/login", "/none", f"{API}/openapi.json", "/docs", "/redoc", "/static/app.js")
    for path in (*routes(), *others):
        for method in METHODS:
            yield method, path.format(job_id="none", name="none")


def test_every_route_and_method_is_denied_by_default(cli: Cli) -> None:
    assert len(routes()) > 20
    with serving(cli) as server:
        for method, path in requests():
            if "live" in path or path.endswith("/events"):
                # With a token they go on; without, they are like the others.
                assert server.ask(method, path, None).status_code == 401
                continue
            is_reading = method in READING
            bare = server.ask(method, path, None)
            if is_reading and path == "/healthz":
                assert bare.status_code in (200, 405)
            elif is_reading and path == "/login":
                assert bare.status_code in (403, 405)
            elif (method, path) == ("POST", "/login"):
                # It brings no token.
                assert bare.status_code == 401
            else:
                assert (bare.status_code, path) == (401, path)
                assert bare.headers["www-authenticate"] == "Bearer"
                wrong = server.client.request(method, path, headers={"Authorization": "Bearer no"})
                assert wrong.status_code == 401
                metrics = server.ask(method, path, "metrics").status_code
                assert (metrics == 403) == (not (is_reading and path == "/metrics")), path
                reading = server.ask(method, path, "read").status_code
                assert (reading == 403) == (not is_reading), (method, path)


def test_a_read_only_server_has_no_route_that_changes_anything(cli: Cli) -> None:
    with serving(cli, "--read-only") as server:
        for method, path in requests():
            # A session may begin.
            if method not in READING and (method, path) != ("POST", "/login"):
                code = server.ask(method, path, "write", json={"command": "true"}).status_code
                assert code in (404, 405), (method, path)
        assert server.get("/jobs") == {"jobs": [], "next": None}
        paths = server.get("/openapi.json")["paths"].values()
        assert {method for path in paths for method in path} == {"get"}


def test_tokens_are_made_once_for_their_owner_alone(cli: Cli) -> None:
    with serving(cli) as server:
        tokens = server.tokens
        assert list(tokens) == ["write", "read", "metrics"]
        assert (cli.store / "serve.token").stat().st_mode & 0o777 == 0o600
        assert all(token not in server.process.out for token in tokens.values())
    with serving(cli) as server:
        assert server.tokens == tokens
    assert cli.run("doctor", check=0).stderr == ""
    assert sorted(path.name for path in cli.store.glob("serve*")) == ["serve.token"]


def test_tokens_that_others_can_read_are_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    for text, mode, code, why in (
        (f"{EXPLICIT}\n", 0o644, 3, "chmod 600"),
        ("short\n", 0o600, 2, "16 to 512"),
        (f"all {EXPLICIT}\n", 0o600, 2, "'all' is not one of"),
        ("\n", 0o600, 2, "holds no token"),
    ):
        path.write_text(text)
        path.chmod(mode)
        error = cli.run("serve", "--port", "0", "--token-file", str(path), check=code).stderr
        assert why in error


def test_a_host_that_others_reach_needs_tokens_of_its_own(cli: Cli, tmp_path: Path) -> None:
    error = cli.run("serve", "--host", "0.0.0.0", "--port", "0", check=2).stderr
    assert "give tokens with --token-file or QUEUECTL_TOKEN" in error
    with serving(cli, "--host", "0.0.0.0", env={"QUEUECTL_TOKEN": EXPLICIT}) as server:
        headers = {"Authorization": f"Bearer {EXPLICIT}"}
        url = f"http://127.0.0.1:{server.port}{API}/jobs"
        assert server.client.get(url, headers=headers).status_code == 200
        rebound = {**headers, "Host": f"evil.example:{server.port}"}
        assert server.client.get(url, headers=rebound).status_code == 421
    assert not (cli.store / "serve.token").exists()


def test_a_file_may_say_who_may_do_what(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"read {EXPLICIT}\n{'y' * 20}\n")
    path.chmod(0o600)
    with serving(cli, "--token-file", str(path)) as server:
        body = {"command": "true"}
        for token, code in ((EXPLICIT, 403), ("y" * 20, 201)):
            headers = {"Authorization": f"Bearer {token}"}
            answer = server.client.post(f"{API}/jobs", json=body, headers=headers)
            assert answer.status_code == code


def test_the_link_lets_a_browser_in_once(cli: Cli) -> None:
    with serving(cli) as server:
        assert server.client.head(f"/login?code={server.code}").status_code == 405
        assert server.client.get("/login?code=wrong").status_code == 403
        answer = server.client.get(f"/login?code={server.code}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert f"queuectl_{server.port}=" in cookie
        assert server.client.get(f"{API}/jobs").status_code == 200
        assert server.client.post(f"{API}/jobs", json={"command": "true"}).status_code == 201
        with httpx.Client(base_url=server.url, trust_env=False) as other:
            assert other.get(f"/login?code={server.code}").status_code == 403
            other.cookies.set(f"queuectl_{server.port}", "wrong")
            assert other.get(f"{API}/jobs").status_code == 401


def test_a_token_begins_a_session_with_its_scope(server: Server) -> None:
    for scope, code in (("read", 403), ("write", 201)):
        answer = server.client.post("/login", json={"token": server.tokens[scope]})
        assert (answer.status_code, answer.json()) == (200, {"scope": scope})
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert server.client.get(f"{API}/session").json()["scope"] == scope
        made = server.client.post(f"{API}/jobs", json={"command": "true"})
        assert made.status_code == code
        server.client.cookies.clear()
    for body, code in (
        (b'{"token":"wrong"}', 401),
        (b'{"token":1}', 401),
        (b'{"token":"\\ud800"}', 401),
        (b"[" * 10**5, 401),
        (b"\xff", 401),
        (b"", 401),
        (f'{{"token":"{server.tokens["metrics"]}"}}'.encode(), 403),
    ):
        answer = server.client.post(
            "/login", content=body, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, "set-cookie" in answer.headers) == (code, False), body[:40]
    origin = {"Origin": "https://evil.example"}
    body = {"token": server.tokens["write"]}
    assert server.client.post("/login", json=body, headers=origin).status_code == 403
    assert server.client.post("/login", data=body).status_code == 415


def test_who_has_no_session_sees_a_page_that_asks_for_a_token_and_nothing_else(
    server: Server,
) -> None:
    answer = server.client.get("/")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "paste a token" in answer.text
    for page in (answer, server.ask("GET", "/", "read")):
        assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert server.ask("GET", "/", "read").status_code == 200
    for name, kind in (("signin.js", "text/javascript"), ("style.css", "text/css")):
        part = server.client.get(f"/static/{name}")
        assert (part.status_code, part.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert f"/static/{name}" in answer.text
    for path in ("app.js", "index.html", "..%2fpages.py", "%2e%2e/pages.py", "none"):
        assert server.client.get(f"/static/{path}").status_code == 401, path
        code = server.ask("GET", f"/static/{path}", "read").status_code
        assert code == (200 if path in ("app.js", "index.html") else 404), path


def test_other_sites_are_turned_away(server: Server) -> None:
    for name, value, code in (
        ("Host", "evil.example", 421),
        ("Host", "127.0.0.1:1", 421),
        ("Host", "localhost:{port}@evil.example", 421),
        ("Host", "localhost:{port}/x", 421),
        ("Host", "localhost:{port}", 200),
        ("Origin", "http://127.0.0.1:{port}", 200),
        ("Origin", "http://127.0.0.1:1", 403),
        ("Origin", "https://evil.example", 403),
        ("Origin", "null", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
    ):
        headers = {name: value.format(port=server.port)}
        assert server.ask("GET", f"{API}/jobs", headers=headers).status_code == code, value


def test_only_json_of_a_limited_size_is_taken(server: Server) -> None:
    path = f"{API}/jobs"
    body = b'{"command":"true"}'
    for kind, code in (
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=latin-1", 415),
        ("", 415),
        ("application/json; charset=utf-8", 201),
    ):
        answer = server.ask("POST", path, content=body, headers={"Content-Type": kind})
        assert answer.status_code == code, kind
    kind = {"Content-Type": "application/json"}
    large = b'{"command":"' + b"x" * (256 << 10) + b'"}'
    assert server.ask("POST", path, content=large, headers=kind).status_code == 413
    assert server.ask("POST", path, content=iter([large]), headers=kind).status_code == 413
    assert server.ask("POST", path, content=b"{", headers=kind).status_code == 422


def test_every_answer_forbids_what_no_answer_needs(server: Server) -> None:
    for path, scope in (("/healthz", None), ("/none", None), (f"{API}/jobs", "read")):
        headers = server.ask("GET", path, scope).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
        assert "html" not in headers["content-type"]


def test_health_and_metrics(server: Server) -> None:
    assert server.ask("GET", "/healthz", None).text == "ok\n"
    assert server.ask("GET", "/readyz", "read").text == "ok\n"
    answer = server.ask("GET", "/metrics", "metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nqueuectl_workers 0.0\n" in answer.text


def test_a_store_that_is_gone_is_not_ready(cli: Cli) -> None:
    with serving(cli) as server:
        headers = {"Authorization": f"Bearer {server.tokens['read']}"}
        assert server.client.get("/readyz", headers=headers).status_code == 200
        for path in sorted(cli.store.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        cli.store.rmdir()
        for _ in range(2):
            answer = server.client.get("/readyz", headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert server.client.get("/healthz").status_code == 200


def test_an_error_does_not_make_a_browser_forget_what_it_saw(cli: Cli) -> None:
    with serving(cli) as server:
        headers = {"Authorization": f"Bearer {server.tokens['read']}"}
        with server.client.stream("GET", "/api/v1/events", headers=headers) as answer:
            lines = answer.iter_lines()
            assert "event: changed" in lines
            shutil.rmtree(cli.store)
            assert "event: error" in lines
            assert not [line for line in lines if line.startswith("id:")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_also_while_somebody_follows(cli: Cli, number: int) -> None:
    with serving(cli) as server:
        events = server.events("/events")
        assert next(events)[0] == "changed"
        os.kill(server.process.pid, number)
        server.process.finish(0, timeout=10)
        assert "Traceback" not in server.process.err
        # They end whole: else this raises.
        list(events)


def test_a_port_that_is_taken_is_named(cli: Cli) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        error = cli.run("serve", "--port", port, check=1).stderr
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in error


def test_what_is_missing_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ImportError('none')\n")
    error = cli.run("serve", env={"PYTHONPATH": str(tmp_path)}, check=1).stderr
    assert error == 'queuectl: serve needs more: pip install "queuectl[web]"\n'


@pytest.fixture
def server(cli: Cli) -> Iterator[Server]:
    with serving(cli) as running:
        yield running
