"""Debian's own Chromium, driven through the pages that people see. JavaScript is off: no page needs it."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = "SCREENSHOTS"
"""Names the folder for pictures of the pages; without it none are taken. `scripts/screenshots` sets it."""

PATIENCE_MS = 15_000
expect.set_options(timeout=PATIENCE_MS)

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}


def executable() -> str:
    """Where Chromium is. Without it a test fails in CI, and is skipped with the reason elsewhere."""
    path = shutil.which("chromium")
    if path is None:
        reason = "chromium is not on PATH; scripts/install-chromium puts it there"
        if "CI" in os.environ:  # noqa: TID251 - whether the rule of CI applies
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@contextlib.asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """A browser as long as the block runs."""
    path = executable()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def page_of(browser: Browser, viewport: dict[str, int] = DESKTOP, **more: Any) -> AsyncIterator[Page]:
    """A page of a fresh visitor: no cookies, no cache, no scripts."""
    size: Any = viewport
    context = await browser.new_context(java_script_enabled=False, viewport=size, **more)
    try:
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        yield page
    finally:
        await context.close()


async def picture(page: Page, name: str) -> None:
    """For the docs, when asked: what the visitor sees."""
    if folder := os.environ.get(PICTURES):  # noqa: TID251 - of the tests, not of the product
        await page.screenshot(path=Path(folder) / f"{name}.png")
