"""What the tests of the dashboard share: a browser, and a guard of what must never happen in it."""

from __future__ import annotations

import re
import shutil
from typing import Any, Dict, Iterator, List

import pytest

from serving import Server
from support import need

playwright = pytest.importorskip("playwright.sync_api", reason="it needs Python 3.10")

Browser = playwright.Browser
Locator = playwright.Locator
Page = playwright.Page
expect = playwright.expect
# The machine may be busy.
expect.set_options(timeout=15_000)

# A script that ran in the page, or a rule of the page that was broken, leaves a trace.
_TRACES = """
globalThis.traces = [];
addEventListener("securitypolicyviolation", (event) => traces.push(event.violatedDirective));
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser of this process; Debian's, for none is ever downloaded."""
    need("chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium",
            args=["--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


class Window:
    """A window of the browser that shows the dashboard of a server, and what went wrong in it.

    Args:
        browser: whose.
        server: whose dashboard.
        **options: of the context, such as `viewport`.
    """

    def __init__(self, browser: Browser, server: Server, **options: Any) -> None:
        options.setdefault("reduced_motion", "reduce")
        self.server = server
        self.context = browser.new_context(**options)
        self.context.add_init_script(_TRACES)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.tolerated = re.compile(r"(?!)")
        self.wrong: List[str] = []
        self.requests: List[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", self._on_dialog)
        self.context.on("request", lambda request: self.requests.append(request.url))

    def sign_in(self, view: str = "") -> None:
        """Follow the link that the server printed, then go to a view."""
        self.page.goto(f"{self.server.url}/login?code={self.server.code}")
        expect(self.page.locator("#link")).to_have_text("Live")
        if view:
            self.go(view)

    def use_token(self, scope: str) -> None:
        """Sign in with a token, on the page that asks for one."""
        # The browser tells of the answer 401.
        self.tolerated = re.compile("Failed to load resource")
        self.page.goto(self.server.url)
        self.paste(self.server.tokens[scope])
        expect(self.page.locator("#link")).to_have_text("Live")

    def paste(self, token: str) -> None:
        """Give a token to the page that asks for one."""
        self.page.get_by_label("Or paste a token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()

    def go(self, view: str) -> None:
        """Go to a view by its address."""
        self.page.goto(f"{self.server.url}/#/{view}")

    @property
    def view(self) -> str:
        """The address of the view."""
        return str(self.page.url).partition("#/")[2]

    def heading(self, name: str) -> Locator:
        """The heading of a view."""
        return self.page.get_by_role("heading", name=name, exact=True, level=1)

    def click(self, name: str, role: str = "button", **options: Any) -> None:
        """Click what is called so."""
        self.page.get_by_role(role, name=name, **options).click()

    def answer(self, name: str) -> None:
        """Answer what is asked."""
        self.page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()

    def controls(self) -> List[Dict[str, str]]:
        """Role and name of all that can be used here, as those hear it who do not see it."""
        session = self.context.new_cdp_session(self.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        session.detach()
        roles = {"button", "link", "textbox", "searchbox", "combobox", "spinbutton", "checkbox"}
        return [
            {"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in roles
        ]

    def close(self) -> None:
        """Close it; nothing must have gone wrong."""
        traces = self.page.evaluate("globalThis.traces")
        self.context.close()
        assert not traces
        assert self.wrong == [], self.wrong
        elsewhere = [url for url in self.requests if not url.startswith(f"{self.server.url}/")]
        assert elsewhere == []

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not self.tolerated.search(message.text):
            self.wrong.append(f"{message.type}: {message.text}")

    def _on_dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()
