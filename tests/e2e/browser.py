"""A headless Chromium of the distribution, and the playground as a person uses it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, Request, sync_playwright

from tests.e2e.harness import eventually

OPTIONS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
REPORT_VIOLATIONS = """
globalThis.violations = [];
addEventListener("securitypolicyviolation", event =>
  violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
"""


def chromium() -> str:
    """The browser's program; fails the test where none is installed."""
    path = os.environ.get("GATEWAY_BROWSER_BIN") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("no Chromium: install the distribution's package, set GATEWAY_BROWSER_BIN, or run -m 'not browser'")
    return path


@contextlib.contextmanager
def started(driver: Playwright, **options: Any) -> Iterator[BrowserContext]:
    """A browser with nothing in it."""
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium refuses to sandbox itself for root
    browser = driver.chromium.launch(executable_path=chromium(), args=[*OPTIONS, *sandbox])
    try:
        yield browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
    finally:
        browser.close()


@contextlib.contextmanager
def driver() -> Iterator[Playwright]:
    """What drives browsers."""
    with sync_playwright() as playwright:
        yield playwright


class Playground:
    """One page with the playground in it, and everything that must not happen there."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        self.requests: list[Request] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108 - the driver marks handlers
        self.page.add_init_script(REPORT_VIOLATIONS)
        self.page.goto(f"{url}/playground")

    def enter(self, api_key: str) -> None:
        """Types the key and waits until the page says what it may use."""
        self.page.fill("#key", api_key)
        self.page.wait_for_selector("#access.ok, #access.bad")

    def paths(self) -> list[str]:
        """The endpoints that have a card, as the tabs name them."""
        return [str(tab.evaluate("tab => tab.lastChild.textContent")) for tab in self.page.get_by_role("tab").all()]

    def choose(self, path: str) -> None:
        self.page.get_by_role("tab").nth(self.paths().index(path)).click()
        assert self.page.inner_text("#path") == path

    def run(self) -> str:
        """Runs the card's request to its end; the status line."""
        self.page.click("#run")
        self.page.wait_for_selector("#status.ok, #status.bad")
        return self.page.inner_text("#status")

    def until(self, expression: str) -> None:
        """Waits for an expression. The driver's own way of waiting needs what the page's policy forbids."""
        eventually(lambda: self.page.evaluate(expression), what=expression)

    def speaking(self) -> None:
        """Runs the card's request and returns while its reply is on its way."""
        self.page.click("#run")
        self.until("document.getElementById('text').textContent.length > 20")

    def sent(self) -> Request:
        """The last request of the page."""
        return self.requests[-1]

    def copied(self) -> str:
        """What Copy puts on the clipboard."""
        self.page.click("#copy")
        self.page.get_by_role("button", name="Copied").wait_for()
        text: str = self.page.evaluate("navigator.clipboard.readText()")
        return text

    def violations(self) -> list[str]:
        """What the page's policy refused."""
        seen: list[str] = self.page.evaluate("violations")
        return seen
