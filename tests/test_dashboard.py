"""The dashboard: a real server, real workers and a real browser."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import time
from typing import Any, Callable, Iterator, List
from urllib.parse import quote

import pytest

from browser import Browser, Window, chromium, expect
from serving import Server, serving
from starting import Queue
from support import Cli, network, wait_until
from test_cli_support import HOSTILE, keep, run

__all__ = ["chromium"]

VIEWS = ("", "jobs", "dlq", "queues", "workers", "enqueue")
HEADINGS = ("Overview", "Jobs", "Dead letters", "Queues", "Workers", "Enqueue a job")
HOLD = "echo begun; until [ -e go ]; do sleep 0.05; done; echo held"
EVIL = "\"'><img src=x onerror=traces.push(1)><script>traces.push(2)</script>"

# Where a table would have to be moved sideways to reach what can be used.
_CLIPPED = """
[...document.querySelectorAll("main button, main input, main select")]
    .filter((each) => each.getBoundingClientRect().right > innerWidth)
    .map((each) => each.outerHTML)
"""

# A placeholder is no label: it goes when something is typed.
_UNLABELLED = """
[...document.querySelectorAll("input, select, textarea")]
    .filter((each) => each.labels.length === 0)
    .map((each) => each.outerHTML)
"""

Opened = Callable[..., Window]


@pytest.fixture(autouse=True)
def steady_network() -> Iterator[None]:
    with network(fcntl.LOCK_SH):
        yield


@pytest.fixture
def queue(cli: Cli) -> Queue:
    return Queue(cli)


@pytest.fixture
def server(queue: Queue) -> Iterator[Server]:
    with serving(queue.cli) as running:
        yield running


@pytest.fixture
def opened(chromium: Browser, server: Server) -> Iterator[Opened]:
    """Opens windows on the server, and sees that nothing went wrong in them."""
    with contextlib.ExitStack() as stack:

        def open_window(**options: Any) -> Window:
            window = Window(chromium, options.pop("server", server), **options)
            stack.callback(window.close)
            return window

        yield open_window


@pytest.fixture
def window(opened: Opened) -> Window:
    """A window that may change everything."""
    window = opened()
    window.sign_in()
    return window


def kill_by_error(queue: Queue, *ids: str, error: str = "Exit code 1") -> None:
    """Have jobs that are dead."""
    with queue.opened() as manager:
        for job_id in ids:
            manager.enqueue(f"exit 1 # {job_id}", id=job_id, max_retries=1, cwd="/tmp")
            run(manager, error=error, output=b"oh no\n")


def test_a_job_is_enqueued_and_watched_while_it_runs(queue: Queue, window: Window) -> None:
    page = window.page
    queue.start("--count", "1").expect("Worker-1 started")
    window.click("Enqueue a job", "link")
    page.get_by_label("Command").fill(HOLD)
    page.get_by_label("Folder").fill(str(queue.folder))
    page.get_by_label("Labels").fill("nightly, db")
    page.get_by_label("Priority").select_option("high")
    page.get_by_label("Attempts in all").fill("2")
    window.click("Enqueue", exact=True)
    output = page.get_by_role("log", name="Output of run 1")
    expect(output).to_have_text("begun")
    expect(page.locator(".head .state")).to_have_text("processing")
    (job,) = queue.jobs()
    assert window.view == f"jobs/{job.id}"
    assert (job.labels, job.priority, job.max_retries) == (("nightly", "db"), 10, 2)
    page.get_by_role("link", name="Overview").click()
    running = page.get_by_role("table", name="Running jobs")
    ticking = running.locator("time")
    before = ticking.text_content()
    # It does so without being told anything.
    expect(ticking).not_to_have_text(str(before), timeout=5_000)
    running.get_by_role("link", name=HOLD).click()
    expect(output).to_have_text("begun")
    queue.let_go()
    expect(output).to_have_text("begun\nheld", use_inner_text=True)
    expect(page.locator(".head .state")).to_have_text("completed")
    expect(page.locator(".told")).to_contain_text("exit code 0")
    page.get_by_role("link", name="Overview").click()
    expect(page.locator(".legend .up b")).to_have_text("1")


def test_a_failure_is_seen_and_retried_from_the_dead_letters(queue: Queue, window: Window) -> None:
    page = window.page
    command = "[ -e mended ] || { echo broken >&2; exit 3; }; echo whole"
    expect(page.get_by_text("Nothing has failed.")).to_be_visible()
    queue.add(command, id="fragile", max_retries=1)
    queue.start("--count", "1")
    expect(page.get_by_role("table", name="Newest failures")).to_contain_text("Exit code 3: broken")
    (queue.folder / "mended").touch()
    window.click("Dead letters", "link")
    expect(page.get_by_role("table", name="Dead jobs")).to_contain_text("Exit code 3: broken")
    window.click("Retry job fragile")
    expect(page.get_by_text("Nothing was given up.")).to_be_visible()
    expect(page.get_by_text("Job fragile is pending again.")).to_be_visible()
    queue.wait_for("fragile", "completed")
    window.go("jobs/fragile")
    expect(page.get_by_role("log", name="Output of run 2")).to_have_text("whole\n")
    window.click("Run 1", "link")
    expect(page.get_by_role("log", name="Output of run 1")).to_have_text("broken\n")
    assert window.view == "jobs/fragile?run=1"


def test_a_running_job_is_cancelled_once_that_is_confirmed(queue: Queue, window: Window) -> None:
    page = window.page
    queue.add("sleep 1000", id="endless")
    queue.add("true", id="follower", after=["endless"])
    queue.start("--count", "1")
    window.click("Cancel job endless")
    window.answer("Go back")
    assert queue.job("endless").state != "cancelled"
    assert not queue.job("endless").cancel_requested
    window.click("Cancel job endless")
    window.answer("Cancel job")
    queue.wait_for("endless", "cancelled")
    expect(page.get_by_text("Nothing runs.")).to_be_visible()
    wait_until(lambda: not queue.runs_of("endless"))
    window.go("jobs/endless")
    expect(page.locator(".head .state")).to_have_text("cancelled")


def test_what_jobs_bring_stays_text(queue: Queue, opened: Opened, window: Window) -> None:
    page = window.page
    hostile = f"{EVIL} {HOSTILE}"
    label = EVIL.replace(" ", "\u202e")[:64]
    with queue.opened() as manager:
        manager.enqueue(
            hostile, id="..__proto__", labels=[label], cwd=f"/tmp/{EVIL}", unique=EVIL,
            env=[f"A={EVIL}"], max_retries=1, queue="constructor",
        )  # fmt: skip
        run(
            manager,
            error=f"{EVIL}\x1b[2J\x07\u202e",
            output=f"{EVIL}\x1b[2J\x1b[31mred\x07".encode(),
        )
    # The `nothing` that follows is written out: it is no escape sequence any more.
    shown = re.compile(re.escape(EVIL) + r".*\\x1b\[2J.*\\u202eetad é \\xff", re.DOTALL)
    for view in ("", "jobs", "dlq"):
        window.go(view)
        expect(page.get_by_role("cell").get_by_role("link", name=EVIL).first).to_have_text(shown)
        if view != "jobs":
            expect(page.locator(".error").first).to_have_text(f"{EVIL}\\x1b[2J\\x07\\u202e")
    page.get_by_role("cell").get_by_role("link", name=EVIL).first.click()
    expect(page.get_by_role("region", name="Command")).to_have_text(shown)
    expect(page.get_by_role("log")).to_have_text(f"{EVIL}\\x1b[2Jred\\x07")
    page.get_by_text("All fields", exact=True).click()
    expect(page.locator("table.fields")).to_contain_text(f"/tmp/{EVIL}")
    page.locator(".told .label").click()
    expect(page.get_by_label("Label")).to_have_value(label)
    expect(page.get_by_role("cell").get_by_role("link", name=EVIL).first).to_be_visible()
    for said in (
        f"jobs?q={quote(EVIL + '!')}",
        f"dlq?cursor={quote(EVIL)}",
        f"jobs/{quote(EVIL, '')}",
    ):
        # The browser tells of the answers 404 and 422.
        window.tolerated = re.compile("Failed to load resource")
        window.go(said)
        expect(page.get_by_text(re.compile("like that|pattern|Not Found"))).to_be_visible()
    assert (
        page.evaluate("document.querySelectorAll('main img, main script, main style').length") == 0
    )


def test_a_lost_connection_is_said_and_comes_back(queue: Queue, window: Window) -> None:
    page = window.page
    window.tolerated = re.compile("Failed to load resource|ERR_")
    banner = page.get_by_role("alert").first
    expect(banner).to_be_hidden()
    window.context.set_offline(True)
    expect(banner).to_contain_text("Connection lost. Trying again… What you see is as of")
    expect(page.locator("#link")).to_have_text("Not connected")
    queue.add("true", id="meanwhile")
    window.context.set_offline(False)
    expect(banner).to_be_hidden()
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.get_by_role("link", name="1 pending")).to_be_visible()


def test_a_store_that_is_gone_is_said_until_it_is_made_anew(queue: Queue, window: Window) -> None:
    window.tolerated = re.compile("Failed to load resource")
    banner = window.page.get_by_role("alert").first
    queue.add("true", id="before")
    expect(window.page.get_by_role("link", name="1 pending")).to_be_visible()
    shutil.rmtree(queue.cli.store)
    expect(banner).to_contain_text("The store does not answer: ")
    with queue.opened():
        pass
    expect(banner).to_be_hidden()
    expect(window.page.get_by_role("link", name="0 pending")).to_be_visible()


def test_a_token_never_gets_into_the_address(opened: Opened) -> None:
    window = opened(java_script_enabled=False)
    # As for whoever is quicker than the script that sends it.
    window.tolerated = re.compile("Failed to load resource")
    page = window.page
    page.goto(window.server.url)
    expect(page.get_by_label("Or paste a token")).to_be_disabled()
    expect(page.get_by_role("button", name="Sign in")).to_be_disabled()
    assert page.get_by_label("Or paste a token").get_attribute("name") is None


@pytest.mark.slow
def test_a_server_that_hangs_or_ends_is_noticed(cli: Cli, chromium: Browser) -> None:
    with serving(cli) as server:
        window = Window(chromium, server)
        window.sign_in("jobs")
        page = window.page
        window.tolerated = re.compile("Failed to load resource|ERR_")
        banner = page.get_by_role("alert").first
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            expect(banner).to_contain_text("Connection lost")
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        expect(banner).to_be_hidden()
        port = server.port
    expect(banner).to_contain_text("Connection lost")
    options = {"port": str(port)}
    with serving(cli, "--port", options["port"]) as again:
        # Sessions end with the server.
        expect(banner).to_contain_text("The session is over")
        banner.get_by_role("link", name="Sign in again").click()
        window.paste("wrong")
        expect(page.get_by_role("alert")).to_contain_text("this is no token of this server")
        window.paste(again.tokens["write"])
        expect(page.locator("#link")).to_have_text("Live")
        # Where one was is not lost.
        expect(window.heading("Jobs")).to_be_visible()
        window.close()


def test_what_is_looked_for_is_kept_in_the_address(queue: Queue, window: Window) -> None:
    page = window.page
    queue.add_many({f"job-{number:03}": f"make part-{number:03}" for number in range(60)})
    queue.add("echo mail", id="mail-1", queue="mail", labels=["urgent"])
    rows = page.get_by_role("table", name="Jobs, the newest first").locator("tbody tr")
    window.click("Jobs", "link", exact=False)
    expect(rows).to_have_count(50)
    window.click("Older", "link")
    expect(rows).to_have_count(11)
    page.reload()
    expect(rows).to_have_count(11)
    page.go_back()
    expect(rows).to_have_count(50)
    page.keyboard.press("/")
    page.keyboard.type("part-01")
    expect(rows).to_have_count(10)
    assert window.view == "jobs?q=part-01"
    page.reload()
    expect(rows).to_have_count(10)
    expect(page.get_by_role("searchbox")).to_have_value("part-01")
    page.get_by_role("navigation", name="States").get_by_role("link", name="pending").click()
    expect(page).to_have_url(re.compile("state=pending"))
    rows.get_by_role("link", name="make part-013").click()
    expect(window.heading("Job job-013")).to_be_focused()
    page.go_back()
    expect(rows).to_have_count(10)
    expect(page.get_by_role("searchbox")).to_have_value("part-01")
    page.go_back()
    expect(page.get_by_role("navigation", name="States").locator("[aria-current]")).to_contain_text(
        "all"
    )
    window.go("jobs?queue=mail&label=urgent")
    expect(rows).to_have_count(1)
    expect(page.get_by_label("Queue")).to_have_value("mail")
    window.tolerated = re.compile("Failed to load resource")
    page.get_by_role("searchbox").fill("no-such-thing")
    window.click("Show all", "link")
    page.get_by_role("searchbox").fill("job-042")
    expect(rows).to_have_count(1)


def test_all_dead_jobs_are_retried_or_deleted_once_that_is_confirmed(
    queue: Queue, window: Window
) -> None:
    page = window.page
    kill_by_error(queue, "one", "two", "three", "four")
    window.go("dlq")
    page.get_by_role("button", name="Retry job one").focus()
    with queue.opened() as manager:
        manager.purge_dead(["four"])
    expect(page.get_by_role("button", name="Retry job four")).to_have_count(0)
    expect(page.get_by_role("button", name="Retry job one")).to_be_focused()
    window.go("jobs/three")
    window.click("Delete job three")
    window.answer("Delete")
    expect(page.get_by_text("Job three deleted.")).to_be_visible()
    expect(window.heading("Jobs")).to_be_visible()
    window.go("dlq")
    expect(page.locator("#count-dlq")).to_have_text("2")
    window.click("Retry all…")
    expect(page.get_by_role("dialog")).to_contain_text("Retry 2 dead jobs?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert queue.counts().dead == 2
    window.click("Retry all…")
    window.answer("Retry all")
    expect(page.get_by_text("Nothing was given up.")).to_be_visible()
    assert (queue.counts().dead, queue.counts().pending) == (0, 2)
    with queue.opened() as manager:
        for _ in range(2):
            run(manager, error="Exit code 1")
    window.click("Delete all…")
    window.answer("Delete all")
    expect(page.get_by_text("2 jobs deleted.")).to_be_visible()
    assert queue.jobs() == []


def test_queues_are_limited_paused_and_resumed(queue: Queue, window: Window) -> None:
    page = window.page
    queue.add("true", id="waiting", queue="mail")
    window.click("Queues", "link")
    window.click("Pause queue mail")
    expect(page.get_by_text("paused", exact=True)).to_be_visible()
    page.get_by_label("How many jobs of queue mail run at most at once").fill("3")
    window.click("Set the limit of queue mail")
    expect(page.get_by_text("Of queue mail at most 3 run at once.")).to_be_visible()
    window.go("jobs/waiting")
    expect(page.get_by_role("heading", name="Why it waits")).to_be_visible()
    expect(page.get_by_text("Its queue mail is paused.")).to_be_visible()
    window.go("queues")
    window.click("Resume queue mail")
    expect(page.get_by_role("button", name="Pause queue mail")).to_be_visible()
    with queue.opened() as manager:
        rule = manager.queue_rules()["mail"]
    assert (rule.concurrency, rule.paused) == (3, False)


def test_who_may_only_read_sees_nothing_that_changes_anything(
    cli: Cli, queue: Queue, chromium: Browser, opened: Opened
) -> None:
    kill_by_error(queue, "dead")
    queue.add("true", id="waiting")

    def changing(window: Window) -> List[str]:
        found: List[str] = []
        for view, heading in zip(VIEWS, HEADINGS):
            window.go(view)
            expect(window.heading(heading)).to_be_visible()
            expect(window.page.get_by_text("Looking…")).to_have_count(0)
            found += [
                control["name"] for control in window.controls() if control["role"] == "button"
            ]
        window.go("jobs/waiting")
        expect(window.page.get_by_text("No worker is running")).to_be_visible()
        return found + [each["name"] for each in window.controls() if each["role"] == "button"]

    window = opened()
    window.use_token("read")
    assert changing(window) == []
    expect(window.page.locator("#rights")).to_contain_text("Read only")
    with serving(cli, "--read-only") as server:
        window = Window(chromium, server)
        window.sign_in()
        assert changing(window) == []
        expect(window.page.locator("#rights")).to_contain_text("Read only")
        window.close()
    window = opened()
    window.use_token("write")
    assert {"Retry job dead", "Delete job dead", "Cancel job waiting", "Enqueue"} <= {
        *changing(window)
    }


def test_it_fits_a_phone_and_everything_has_a_name(queue: Queue, opened: Opened) -> None:
    window = opened(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = window.page
    kill_by_error(queue, "x" * 64, error="a" * 500)
    queue.add("b" * 500, id="y" * 64, labels=["l" * 64, "m" * 64], queue="q" * 64, after=["x" * 64])
    with queue.opened() as manager:
        manager.enqueue("true", id="child", after=["y" * 64])
    window.sign_in()
    for view, heading in (*zip(VIEWS, HEADINGS), (f"jobs/{'y' * 64}", f"Job {'y' * 64}")):
        window.go(view)
        expect(window.heading(heading)).to_be_visible()
        expect(page.get_by_text("Looking…")).to_have_count(0)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{view} is {width} wide"
        assert page.evaluate(_CLIPPED) == [], view
        assert page.evaluate(_UNLABELLED) == [], view
        controls = window.controls()
        assert len(controls) > 5
        assert all(control["name"].strip() for control in controls), (view, controls)
        assert page.evaluate("document.querySelectorAll('h1').length") == 1
    expect(page.get_by_role("link", name="child true, pending")).to_be_attached()


def test_the_keyboard_is_enough(queue: Queue, window: Window) -> None:
    page = window.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    for _ in range(20):
        if page.evaluate("document.activeElement.textContent") == "Enqueue a job":
            break
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Command")).to_be_focused()
    page.keyboard.type("echo typed")
    for _ in range(20):
        if page.evaluate("document.activeElement.textContent") == "Enqueue":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Command")).to_have_text("echo typed")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("typed")
    expect(page).to_have_url(re.compile("q=typed"))
    for _ in range(30):
        if page.evaluate("document.activeElement.textContent") == "echo typed":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Command")).to_have_text("echo typed")
    (job,) = queue.jobs()
    assert job.command == "echo typed"


def test_of_long_output_only_the_end_is_kept(queue: Queue, window: Window) -> None:
    queue.add("true", id="chatty")
    lines = b"".join(b"line %d\n" % number for number in range(200_000))
    with queue.opened() as manager:
        job = run(manager)
        keep(manager.store.kept_output(job.id, 1), lines)
    page = window.page
    window.go("jobs/chatty")
    output = page.get_by_role("log")
    expect(output).to_contain_text("line 199999")
    assert len(str(output.text_content()).splitlines()) < 2100
    link = page.get_by_text("This is only the end.").get_by_role("link", name="All of it")
    whole = window.context.request.get(f"{window.server.url}{link.get_attribute('href')}")
    assert whole.body() == lines


def test_a_refusal_is_told_where_it_was_asked(queue: Queue, window: Window) -> None:
    page = window.page
    # A browser says so of every answer that is an error.
    window.tolerated = re.compile("Failed to load resource")
    window.go("enqueue")
    page.get_by_label("Command").fill("true")
    page.get_by_label("After these jobs complete").fill("nobody-here")
    window.click("Enqueue", exact=True)
    expect(page.locator("#new-wrong")).to_contain_text("Not enqueued: job 'nobody-here' not found")
    page.get_by_label("After these jobs complete").fill("")
    window.click("Enqueue", exact=True)
    expect(page.get_by_role("region", name="Command")).to_have_text("true")
    window.go("jobs/absent")
    expect(page.get_by_text("job 'absent' not found")).to_be_visible()
    for view in ("nowhere", "constructor"):
        window.go(view)
        expect(page.get_by_text("There is no such page.")).to_be_visible()
        window.go("workers")
        expect(page.get_by_role("link", name="Workers")).to_have_attribute("aria-current", "page")


@pytest.mark.slow
def test_a_busy_queue_is_asked_about_a_few_times_a_second(queue: Queue, window: Window) -> None:
    page = window.page
    queue.add_many({f"job-{number}": "true" for number in range(200)})
    expect(page.get_by_role("link", name="200 pending")).to_be_visible()
    before, begun = len(window.requests), time.monotonic()
    queue.start("--count", "2", "--drain")
    expect(page.get_by_role("link", name="200 completed")).to_be_visible()
    expect(page.locator(".legend .up b")).to_have_text("200")
    seconds = time.monotonic() - begun
    assert len(window.requests) - before <= 3 * seconds + 6
    assert page.evaluate("document.getElementsByTagName('*').length") < 1500


@pytest.mark.slow
def test_a_hundred_thousand_jobs_do_not_slow_it_down(queue: Queue, opened: Opened) -> None:
    path = queue.folder / "many"
    path.write_text("".join(f"{json.dumps(f'make part-{at}')}\n" for at in range(100_000)))
    queue.cli.run("enqueue", "--file", str(path), check=0, timeout=55)
    window = opened()
    window.sign_in()
    page = window.page
    expect(page.get_by_role("link", name="100\u202f000 pending")).to_be_visible()
    window.go("jobs")
    rows = page.get_by_role("table", name="Jobs, the newest first").locator("tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("searchbox").fill("part-77777")
    expect(rows).to_have_count(1)
    assert page.evaluate("document.getElementsByTagName('*').length") < 2000
