"""Make the README's pictures of a report from a finished campaign.

`python figures/report_pictures.py RUN_DIR` has the report of a run directory written anew and puts beside
itself the page in a headless Chromium (`report_desktop.png`, `report_phone.png`, `report_worst.png`) and some
of the report's own figures. It needs Chromium, chromedriver, and the development tools.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from fff.data.run_directory import RunDirectory
from fff.report.writing import write_report
from tests.support.browser import browser, resize

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FIGURES = ("learning_curve", "parity", "deviation_error", "structure_map", "timeline")
LARGEST_BYTES = 250_000
WAIT_S = 60.0


def main() -> None:
    """Make the pictures."""
    here = Path(__file__).parent
    run = RunDirectory.at(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        report = write_report(run, Path(folder) / "report.html")
        for name in FIGURES:
            shutil.copyfile(report.figures / f"{name}.png", here / f"{name}.png")
        with browser(in_3d=True) as page:
            page.get(report.path.as_uri())
            wait_for_viewer(page)
            page.execute_script("document.documentElement.style.scrollbarWidth = 'none'")
            resize(page, 1280, 1400)
            save(page.get_screenshot_as_png(), here / "report_desktop.png")
            resize(page, 1280, 900)
            page.execute_script("document.getElementById('worst').scrollIntoView()")
            time.sleep(1)
            save(page.get_screenshot_as_png(), here / "report_worst.png")
            resize(page, 390, 900)
            page.execute_script("window.scrollTo(0, 0)")
            save(page.get_screenshot_as_png(), here / "report_phone.png")


def wait_for_viewer(page: Chrome) -> None:
    """Wait until the structures are drawn."""
    end = time.monotonic() + WAIT_S
    script = "return document.getElementById('viewer').dataset.state"
    while page.execute_script(script) != "ready" and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(1)


def save(png: bytes, path: Path) -> None:
    """Write a picture in 256 colours, which for a page are enough."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256).save(path, optimize=True)
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        sys.exit(f"{path.name} has {size} bytes, above {LARGEST_BYTES}.")


if __name__ == "__main__":
    main()
