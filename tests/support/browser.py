"""A headless Chromium that opens a page from disk, and what it does beside showing it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = (1280, 800), (375, 740)  # pixels


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; a test is skipped where there is none, or no playwright to drive it."""
    api = pytest.importorskip("playwright.sync_api", reason="the browser tests need `pip install playwright`")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("the browser tests need Chromium: `apt-get install chromium`")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page that is open in a window of its own, and all that it has said and asked for."""

    page: Page
    file: Path
    said: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def go(self, address: str = "") -> None:
        """Open the page afresh, with what stands behind # in its address."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.file.as_uri()}#{address}")
        self.page.get_by_role("navigation", name="Views").wait_for()

    @property
    def address(self) -> str:
        """What stands behind # now."""
        return str(self.page.evaluate("location.hash")).removeprefix("#")

    @property
    def clipboard(self) -> str:
        """The text that was copied."""
        self.page.get_by_role("status").filter(has_text="Copied").wait_for()
        return str(self.page.evaluate("navigator.clipboard.readText()"))


@contextmanager
def visit(browser: Browser, file: Path, *, size: tuple[int, int] = DESKTOP, **options: Any) -> Iterator[Visit]:
    """``file`` opened in a window of ``size``; ``options`` are those of a context of playwright."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    opened = Visit(context.new_page(), file)

    def dismissed(dialog: Any) -> None:
        opened.dialogs.append(dialog.message)
        dialog.dismiss()

    opened.page.on("console", lambda message: opened.said.append(f"{message.type}: {message.text}"))
    opened.page.on("pageerror", lambda error: opened.said.append(f"error: {error}"))
    opened.page.on("dialog", dismissed)
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.go()
    yield opened
    context.close()
