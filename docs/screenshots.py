"""Makes the pictures of the dashboard that the documentation shows: `python docs/screenshots.py`.

They are of a real server, real workers and a real browser (Chromium, at `CHROMIUM` or where Debian
puts it). Only the hour that the chart shows is made up: nobody wants to wait for one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

from playwright.sync_api import Browser, Page, Route, sync_playwright

from queuectl import QueueManager, clock
from queuectl.newjob import NewJob

DOCS = Path(__file__).resolve().parent
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SLOW = 'for n in 1 2 3 4 5; do echo "[$n/5] {0}"; sleep 0.2; done; sleep 30'
SCRIPTS = {
    "backup": "echo 'dumping 14 tables'; sleep 0.3; echo 'uploaded 212 MB'",
    "report": "echo 'rendering report'; echo 'done in 0.2 s'",
    "resize": SLOW.format("resizing images"),
    "encode": SLOW.format("encoding, 24 fps"),
    "sync": "echo 'connecting to db-2'; echo 'error: connection refused' >&2; exit 7",
    "notify": "echo 'HTTP 503 from hooks.example.com' >&2; exit 1",
    "import": 'for n in 1 2 3 4 5 6 7 8; do echo "chunk $n of 40: 25000 rows, 0 rejected"; '
    "sleep 0.1; done; echo 'checking constraints'; sleep 30",
}


def jobs(folder: Path) -> List[NewJob]:
    """What the store of the pictures holds."""

    def job(command: str, **options: Any) -> NewJob:
        return NewJob(f"./{command}", cwd=str(folder), **options)

    done = [job(f"report --customer {number}", queue="reports") for number in range(1040, 1062)]
    return [
        *done,
        job("backup --full", id="nightly-backup", labels=["nightly", "db"]),
        job("sync --source db-2", id="sync-db-2", max_retries=1, labels=["db"]),
        job("notify --channel ops", id="notify-ops", max_retries=1, queue="mail"),
        job("notify --channel billing", id="notify-billing", max_retries=5, queue="mail"),
        job("import customers.csv", id="import-customers", priority=10, labels=["etl"]),
        job("resize --width 1600 uploads/", id="resize-uploads", queue="media"),
        job("encode lecture-12.mov", id="encode-lecture-12", queue="media", timeout=3600.0),
        job("report --all", id="monthly-report", after=["import-customers"], queue="reports"),
        job("notify --channel sales", id="tell-sales", after=["monthly-report"], queue="mail"),
        job("backup --table customers", id="backup-customers", after=["import-customers"]),
        job("backup --weekly", id="weekly-backup", delay=7200.0, labels=["weekly"]),
    ]


def hour() -> Dict[str, Any]:
    """An hour that had its busy times."""
    last = int(time.time() // 60)
    minutes = []
    for at in range(60):
        completed = round(9 + 7 * math.sin(at / 7) + 4 * math.sin(at / 1.7) ** 2)
        failed = {22: 3, 23: 6, 24: 4, 25: 1, 47: 1, 58: 2}.get(at, 0)
        minute = clock.to_iso((last - 59 + at) * 60)
        minutes.append({"at": minute, "completed": max(completed - failed, 0), "failed": failed})
    return {"since": clock.to_iso((last - 300) * 60), "minutes": minutes}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """A server and workers on a store that was filled; yields the link for a browser."""
    for name, text in SCRIPTS.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    store = folder / "queuectl_data"
    with QueueManager.open(str(store)) as manager:
        manager.enqueue_many(jobs(folder))
        manager.set_queue("media", concurrency=2)
        manager.configure("backoff_base", "60")
    queuectl = [sys.executable, "-m", "queuectl", "--store", str(store)]
    start = subprocess.Popen([*queuectl, "start", "--count", "4"], stdout=subprocess.DEVNULL)
    serve = subprocess.Popen([*queuectl, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert serve.stdout is not None
        link = re.search(r"http\S+", serve.stdout.readline())
        assert link is not None
        yield link[0]
    finally:
        serve.terminate()
        serve.wait()
        for _ in range(2):
            # The second ends what runs.
            start.terminate()
            time.sleep(0.5)
        start.wait()


def take(page: Page, name: str, **options: Any) -> None:
    """Save what a page shows, if that is not too large for a repository."""
    path = DOCS / name
    page.screenshot(path=path, animations="disabled", **options)
    size = path.stat().st_size
    assert size < 200_000, f"{path} has {size} bytes"
    sys.stdout.write(f"{path}: {size} bytes\n")


def pictures(browser: Browser, link: str) -> None:
    """Take all of them."""
    state: Any = None
    for scheme, name in (("light", "dashboard.png"), ("dark", "dashboard-dark.png")):
        context = browser.new_context(
            viewport={"width": 1280, "height": 1010},
            color_scheme=scheme,  # type: ignore[arg-type]
            reduced_motion="reduce",
            storage_state=state,
        )
        page = context.new_page()
        page.route("**/api/v1/history", lambda route: _made_up(route))
        page.goto(link if state is None else link.partition("/login")[0])
        page.get_by_role("heading", name="Newest failures").wait_for()
        page.locator("tr", has_text="encode").first.wait_for()
        page.locator("tr", has_text="sync-db-2").first.wait_for()
        take(page, name)
        if scheme == "light":
            page.goto(f"{link.partition('/login')[0]}/#/jobs/import-customers")
            page.get_by_text("chunk 8 of 40").wait_for()
            page.set_viewport_size({"width": 1280, "height": 720})
            take(page, "dashboard-job.png")
        state = context.storage_state()
        context.close()
    context = browser.new_context(
        viewport={"width": 360, "height": 740},
        device_scale_factor=2,
        reduced_motion="reduce",
        storage_state=state,
    )
    page = context.new_page()
    page.goto(f"{link.partition('/login')[0]}/#/jobs")
    page.locator("tbody tr").first.wait_for()
    page.locator("#link", has_text="Live").wait_for()
    take(page, "dashboard-phone.png")
    context.close()


def _made_up(route: Route) -> None:
    route.fulfill(content_type="application/json", body=json.dumps(hour()))


def main() -> None:
    """Make the pictures."""
    with tempfile.TemporaryDirectory(prefix="queuectl-") as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        folder = Path(name, "shop")
        folder.mkdir()
        with running(folder) as link:
            pictures(browser, link)
        browser.close()


if __name__ == "__main__":
    main()
