"""A headless Chromium for tests of pages, driven by Selenium with the machine's own chromedriver."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

__all__ = ["browser", "complaints", "resize", "screenshot", "set_dark"]


def _needed() -> tuple[str, str]:
    """Return Chromium and its driver; the test is skipped where one is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(f"the program {'chromedriver' if chromium else 'chromium'} is not installed")
    return chromium, driver


@contextlib.contextmanager
def browser(
    *, width: int = 1280, height: int = 900, dark: bool = False, in_3d: bool = False
) -> Iterator[Chrome]:
    """Give a browser whose window is of this size; it ends, and leaves nothing, with the block.

    Args:
        width: Of the page, in CSS pixels; a phone's too, which no window of Chromium is narrow enough for.
        height: The same.
        dark: Whether the page is asked for its dark colours.
        in_3d: Whether the page can draw in three dimensions, by WebGL without a graphics card.
    """
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    chromium, driver = _needed()
    with tempfile.TemporaryDirectory(prefix="fff-browser-") as profile:
        options = ChromeOptions()
        options.binary_location = chromium
        for argument in (
            "--headless=new",
            *(["--use-angle=swiftshader", "--enable-unsafe-swiftshader"] if in_3d else ["--disable-gpu"]),
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--force-prefers-reduced-motion",
            f"--user-data-dir={profile}",
            # Root, as which containers run tests, has no sandbox.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        page = Chrome(options=options, service=Service(driver))
        try:
            resize(page, width, height)
            set_dark(page, dark)
            yield page
        finally:
            page.quit()


def resize(page: Chrome, width: int, height: int) -> None:
    """Give the page another size, in CSS pixels."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def set_dark(page: Chrome, dark: bool) -> None:
    """Ask the page for its dark or its light colours."""
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def screenshot(page: Chrome, path: Path, *, width: int, dark: bool = False) -> None:
    """Write a picture of the whole page, from top to bottom, as PNG."""
    resize(page, width, 900)
    set_dark(page, dark)
    page.implicitly_wait(0)
    height = page.execute_async_script(
        "const done = arguments[0]; setTimeout(() => done(document.documentElement.scrollHeight), 1500);"
    )
    resize(page, width, height)
    path.write_bytes(page.get_screenshot_as_png())


def complaints(page: Chrome) -> list[str]:
    """Return what the page's console complained of: refused scripts, missing files, errors."""
    return [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
