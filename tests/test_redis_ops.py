"""What whoever looks after a store on Redis relies on: its page in docs/, and who sees what."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, List, Set
from urllib.parse import quote

import pytest

from queuectl import machine
from queuectl.job import JobState
from queuectl.store.redis import RedisStore, scripts
from queuectl.testing.feeds import open_feed, told
from servers import Server
from starting import HOLD, Queue
from support import Cli, need, wait_until
from test_cli_support import HOSTILE
from test_service import settings_of, verified

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "redis.md").read_text(encoding="utf-8")
# Commands of which no script tells: what is said to the server itself.
OF_THE_CLIENT = {"eval", "evalsha", "subscribe", "info"}


def acl_line() -> List[str]:
    """The user that the page makes: the words of its one command."""
    (block,) = re.findall(r"^```\n(ACL SETUSER .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return shlex.split(block.replace("\n", " "))


def used_by_scripts() -> Set[str]:
    """The commands that scripts call."""
    sources = Path(scripts.__file__).parent.glob("*.lua")
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    return {name.lower() for name in re.findall(r"\bcall\('(\w+)'", text)}


def test_the_user_of_the_page_may_do_what_is_needed_and_nothing_else() -> None:
    words = acl_line()
    allowed = {word[1:] for word in words if word[0] == "+" and word[1] != "@"}
    assert allowed == used_by_scripts() | OF_THE_CLIENT


@pytest.mark.slow
def test_the_user_of_the_page_is_denied_nothing(cli: Cli, own_server: Server) -> None:
    """All day long; and is denied what is another's."""
    redis = own_server.client()
    words = [word.replace("PASSWORD", "pass") for word in acl_line()]
    redis.execute_command(*words)
    redis.execute_command("ACL", "LOG", "RESET")
    url = f"redis://{words[2]}:pass@127.0.0.1:{own_server.port}/0"
    queue = Queue(cli, url, kill_grace="1s")
    cli.run("enqueue", "echo said; exit 3", "--id", "bad", "--max-retries", "1", check=0)
    cli.run("enqueue", "echo said", "--id", "good", "--unique", "key", check=0)
    cli.run("enqueue", "true", "--id", "child", "--after", "good", "--label", "l", check=0)
    cli.run("enqueue", "true", "--id", "delayed", "--delay", "1h", check=0)
    many = "true\n" * 1100
    cli.run("enqueue", "--file", "-", "--queue", "many", input=many, check=0)
    cli.run("queue", "set", "many", "--concurrency", "1", check=0)
    cli.run("queue", "pause", "many", check=0)
    cli.run("purge", "--state", "cancelled", check=0)
    start = queue.start("--count", "2")
    queue.wait_for("bad", JobState.DEAD)
    queue.wait_for("child", JobState.COMPLETED)
    queue.add(HOLD, id="held")
    queue.wait_for_runner("held")
    for listing in ("status", "nodes", "list", "queue list", "dlq list", "config", "export"):
        cli.run(*listing.split(), check=0)
    cli.run("show", "held", check=0)
    cli.run("logs", "good", check=0)
    cli.run("edit", "delayed", "--priority", "5", check=0)
    cli.run("cancel", "held", "delayed", check=0)
    cli.run("retry", "bad", check=0)
    cli.run("enqueue", "true", "--wait", check=0)
    cli.run("stop", check=0)
    start.finish(0)
    cli.run("dlq", "purge", "--all", check=0)
    cli.run("show", "1b1", check=1)
    store = RedisStore(url)
    with open_feed(store) as feed:
        cli.run("enqueue", "true", "--id", "told", check=0)
        assert told(feed, 1) == [("told", JobState.PENDING)]
    store.close()
    assert redis.execute_command("ACL", "LOG") == []
    done = cli.run("--store", f"{url}?prefix=other", "enqueue", "true", check=3)
    assert re.match(r"queuectl: cannot use redis://\S+: .*permission.*\n$", done.stderr)


def test_a_name_for_several_queues_has_its_own_pattern() -> None:
    assert "~{queuectl}:*" in acl_line()
    assert {"&{queuectl}:news", "&{queuectl}:changes"} <= set(acl_line())


HARD = "p@ss:w/o?r#d%41\"'$ \\<>\u00e9"


@pytest.mark.slow
def test_a_password_is_shown_to_nobody(cli: Cli, own_server: Server) -> None:
    """Whatever is in it: not in what is printed, nor in what `ps` shows of anything that runs."""
    own_server.client().execute_command(
        "ACL", "SETUSER", "me", "on", f">{HARD}", "~*", "&*", "+@all"
    )
    port = own_server.port
    url = f"redis://me:{quote(HARD, safe='')}@127.0.0.1:{port}/0?prefix=x"
    shown = f"redis://127.0.0.1:{port}/0?prefix=x"
    seen: List[str] = []

    def run(*words: str, **options: Any) -> None:
        done = cli.run(*words, **options)
        seen.extend((done.stdout, done.stderr))

    queue = Queue(cli, url, log_level="DEBUG", on_dead="echo dead; exit 1")
    queue.add('printf %s "$QUEUECTL_STORE" > url; queuectl enqueue true --id child', id="a")
    queue.add("exit 3", id="dead", max_retries=1)
    queue.add(HOLD, id="held")
    start = queue.start("--count", "2", "--json")
    queue.wait_for("a", JobState.COMPLETED)
    queue.wait_for("dead", JobState.DEAD)
    queue.wait_for_runner("held")
    seen.extend(cli.processes().values())
    for words in ("status", "nodes", "list", "show a", "show held --reveal", "logs a", "config"):
        run(*words.split(), check=0)
        if words[:4] != "logs":
            run(*words.split(), "--json", check=0)
    run("export", check=0)
    run("service", check=0)
    run("doctor", check=2)
    run("show", "nothing", check=1)
    run("enqueue", "true", "--id", "a", check=1)
    run("stores", check=0)
    queue.let_go()
    run("stop", check=0)
    start.finish(0)
    seen.extend((start.out, start.err))
    run("--store", url.replace("me:", "me:x"), "list", check=3)
    run("--store", f"{url}&nonsense=1", "list", check=2)
    own_server.kill()
    run("list", check=3)
    run("start", check=3)
    assert queue.read("url") == url
    assert any(shown in text for text in seen)
    for text in seen:
        assert "p@ss" not in text
        assert "p%40ss" not in text
        assert "me:" not in text


def test_a_unit_for_a_server_holds_no_password(cli: Cli, own_server: Server) -> None:
    """It reads the URL from a file that is the user's alone; the unit says how to write that."""
    own_server.client().execute_command(
        "ACL", "SETUSER", "me", "on", ">se%cret", "~*", "&*", "+@all"
    )
    url = f"redis://me:se%25cret@127.0.0.1:{own_server.port}/0"
    cli.env["QUEUECTL_STORE"] = url
    for _ in range(2):
        unit = cli.run("service", env={"PATH": None}, check=0).stdout
        assert verified(cli, unit)
        assert "cret" not in unit
        said = settings_of(unit)
        assert "Environment" not in said
        assert said["EnvironmentFile"] == "%h/.config/queuectl.env"
        # Unlike a folder, a server that is away may be back.
        assert said["RestartPreventExitStatus"] == "2 4"
        assert said["RestartSec"] == "5"
        cli.run("enqueue", "true", check=0)
    (hint,) = re.findall(r"^#   (\(umask .*)$", unit, re.MULTILINE)
    (cli.folder / ".config").mkdir()
    env = cli.environment({"HOME": str(cli.folder)})
    subprocess.run(["sh", "-c", hint], env=env, check=True)
    file = cli.folder / ".config" / "queuectl.env"
    assert file.read_text() == f'QUEUECTL_STORE="{url}"\n'
    assert file.stat().st_mode & 0o777 == 0o600
    cli.env["QUEUECTL_STORE"] = own_server.url
    unit = cli.run("service", env={"PATH": None}, check=0).stdout
    assert settings_of(unit)["Environment"] == f"QUEUECTL_STORE={own_server.url}"
    assert "EnvironmentFile" not in unit


def test_what_is_for_files_says_so(cli: Cli, redis_url: str) -> None:
    cli.env["QUEUECTL_STORE"] = redis_url
    cli.run("enqueue", "true", "--id", "abcdef", check=0)
    for words in (["doctor"], ["doctor", "--repair"]):
        done = cli.run(*words, check=2)
        assert done.stderr == (
            "queuectl: a store at a redis:// URL has no job file: give a folder; "
            "see queuectl doctor --help\n"
        )
    offered = cli.run(
        env={
            "_QUEUECTL_COMPLETE": "bash_complete",
            "COMP_WORDS": "queuectl show ab",
            "COMP_CWORD": "2",
        },
        check=0,
    )
    assert (offered.stdout.strip(), offered.stderr) == ("", "")


def test_a_queue_is_moved_to_a_server_and_back_with_nothing_lost(cli: Cli, redis_url: str) -> None:
    folder = cli.store
    cli.run("enqueue", "exit 1", "--id", "dead", "--max-retries", "1", check=0)
    cli.run("enqueue", "echo out", "--id", "parent", "--label", "l", "--env", "A=b c", check=0)
    cli.run("enqueue", "exit 1", "--id", "failed", "--backoff-base", "9999", check=0)
    cli.run("enqueue", "true", "--id", "gone", check=0)
    cli.run("cancel", "gone", check=0)
    drain = cli.spawn("start", "--timeout", "1")
    drain.finish(0)
    assert cli.json("status")["failed"] == 1
    cli.run("enqueue", HOSTILE, "--id", "hostile", "--timeout", "1.5", check=0)
    cli.run("enqueue", "true", "--id", "child", "--after", "failed", "--unique", "k e", check=0)
    cli.run("enqueue", "true", "--id", "late", "--after-any", "child", "--delay", "1d", check=0)
    cli.run("enqueue", "true", "--queue", "q", "--priority", "7", "--shell", "/bin/bash", check=0)
    cli.run("config", "set", "max_retries", "7", check=0)
    cli.run("queue", "set", "q", "--concurrency", "3", check=0)
    cli.run("queue", "pause", "q", check=0)

    def export(store: str) -> bytes:
        return cli.run_bytes("--store", store, "export", check=0).stdout

    first = export(str(folder))
    assert json.loads(first.splitlines()[0])["jobs"] == 8
    again = str(cli.folder / "again")
    for store in (redis_url, again):
        cli.run("--store", store, "import", "-", input=export(str(folder)), check=0)
        assert export(store) == first
    moved = export(redis_url)
    third = str(cli.folder / "third")
    cli.run("--store", third, "import", "-", input=moved, check=0)
    assert export(third) == first
    # What waits for what is known there too.
    cli.env["QUEUECTL_STORE"] = redis_url
    assert cli.json("status")["blocked"] == 2
    assert cli.json("status")["paused"] == ["q"]
    cli.run("enqueue", "true", "--unique", "k e", "--on-conflict", "error", check=1)


def test_show_names_the_file_and_the_host_that_has_it(cli: Cli, redis_url: str) -> None:
    """As told apart by their folders, on another machine; on its own only the file."""
    queue = Queue(cli, redis_url)
    far = {"XDG_STATE_HOME": str(cli.folder / "far")}
    queue.add("echo said", id="a")
    queue.start("--drain", env=far).finish(0)
    (path,) = (cli.folder / "far").glob("queuectl/*/logs/*/a.1.log")
    assert path.read_text() == "said\n"
    shown = cli.json("show", "a")
    assert (shown["output"], shown["output_host"]) == (str(path), machine.host())
    assert f"{path} on {machine.host()} (run 1)" in cli.run("show", "a", check=0).stdout
    shown = cli.json("show", "a", env=far)
    assert (shown["output"], shown["output_host"]) == (str(path), None)
    assert f"{path} (run 1)" in cli.run("show", "a", env=far, check=0).stdout
    wait_until(lambda: cli.run("logs", "a", check=0).stdout == "said\n")


def test_a_queue_is_removed_as_the_page_says(cli: Cli, own_server: Server) -> None:
    need("redis-cli")
    (block,) = re.findall(r"^```sh\n(queuectl stop\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    cli.env["QUEUECTL_STORE"] = own_server.url
    for prefix in ("queuectl", "other"):
        url = f"{own_server.url}?prefix={prefix}"
        cli.run("--store", url, "enqueue", "echo a", "--unique", "a b", "--queue", "q", check=0)
        cli.run("--store", url, "start", "--drain", check=0)
    others = len(own_server.client().keys("{other}:*"))
    subprocess.run(
        ["sh", "-ec", block.replace("redis-cli", f"redis-cli -p {own_server.port}")],
        env=cli.environment(),
        capture_output=True,
        check=True,
    )
    assert own_server.client().dbsize() == others > 3
    assert "no store at" in cli.run("list", check=3).stderr
