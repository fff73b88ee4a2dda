"""Pictures of a campaign in progress for the README: the live view of the terminal, and the page.

    python figures/live_view.py RUN_DIR

Run it while the campaign runs. Writes live_view.svg, live_view.png and watch_page.png beside itself; needs
Chromium and chromedriver.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fff.data.run_directory import RunDirectory  # noqa: E402 - after the path to it
from fff.report.terminal import render  # noqa: E402
from fff.report.view import View  # noqa: E402
from tests.support.browser import browser, resize, screenshot  # noqa: E402

COLUMNS, ROWS = 110, 32

SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px "DejaVu Sans Mono", Menlo, Consolas, monospace;
  line-height: {line_height}px; }}
.{unique_id}-title {{ font: bold 18px "DejaVu Sans", Arial, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}"
  height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""
"""Rich's own names a font that a browser would fetch."""


def draw_terminal(run: RunDirectory) -> Path:
    """Write the live view as SVG and return its path."""
    console = Console(record=True, width=COLUMNS, height=ROWS, force_terminal=True, file=io.StringIO())
    console.print(render(View(run).look(), COLUMNS, ROWS))
    path = HERE / "live_view.svg"
    svg = console.export_svg(title="fff run", theme=DIMMED_MONOKAI, code_format=SVG, unique_id="live")
    path.write_text(svg, encoding="utf-8")
    return path


def main() -> None:
    """Draw both."""
    run = RunDirectory(Path(sys.argv[1]).resolve())
    # As a user would see it who works two folders above: runs/quickstart.
    os.chdir(run.path.parents[1])
    svg = draw_terminal(run)
    watching = subprocess.Popen(
        [sys.executable, "-c", "from fff.cli.app import main; main()", "watch", str(run.path), "--web"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None  # noqa: S101 - for the type checker
        address = watching.stdout.readline().split()[1]
        with browser() as page:
            page.get(address)
            time.sleep(2.0)
            # Where it lies here is of no use to a reader.
            page.execute_script("document.getElementById('where').hidden = true;")
            screenshot(page, HERE / "watch_page.png", width=1000)
            page.get(svg.as_uri())
            width, height = page.execute_script(
                "const box = document.documentElement.viewBox.baseVal; return [box.width, box.height];"
            )
            resize(page, 1100, round(1100 * height / width))
            (HERE / "live_view.png").write_bytes(page.get_screenshot_as_png())
    finally:
        watching.terminate()
        watching.communicate(timeout=30)


if __name__ == "__main__":
    main()
