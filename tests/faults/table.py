"""The table of what was injected and what happened: `docs/faults.md`, one section for each test."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Row", "say", "write_table"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
COLUMNS = ("injected", "what happened", "exit code", "last line", "resumed and finished", "labels")
LONGEST = 160


@dataclass(frozen=True)
class Row:
    """What was injected, and what happened.

    Attributes:
        injected: What was done to the campaign.
        happened: What it did.
        exit_code: Of the sitting that it was done to.
        last_line: The last line for people of that sitting.
        resumed: Whether and how it went on, and ended.
        labels: Labels lost, and calculations made again.
        took_s: How long the test took.
        sound: Whether all is as promised.
    """

    injected: str
    happened: str
    exit_code: str
    last_line: str
    resumed: str
    labels: str
    took_s: float = 0.0
    sound: bool = True

    def text(self) -> str:
        """Return it for the terminal."""
        mark = "ok  " if self.sound else "FAIL"
        return (
            f"{mark} {self.injected}: {self.happened}. Exit code {self.exit_code}. {self.last_line} "
            f"[resumed: {self.resumed}; labels: {self.labels}; {self.took_s:.0f} s]"
        )

    def line(self) -> str:
        """Return it as a line of the page."""
        last = _without_paths(self.last_line)
        last = last if len(last) <= LONGEST else f"{last[: LONGEST - 1]}…"
        cells = (self.injected, self.happened, self.exit_code, last, self.resumed, self.labels)
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def say(line: str) -> None:
    """Print a line at once: these tests take long, and people watch."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def write_table(section: str, rows: Sequence[Row]) -> None:
    """Put the rows in the place of those that the section of the page holds.

    Raises:
        ValueError: If the page has no such section.
    """
    begin, end = f"<!-- {section} begin -->", f"<!-- {section} end -->"
    text = PAGE.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        msg = f"{PAGE} has no section {section}."
        raise ValueError(msg)
    head = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    table = "\n".join([*head, *(row.line() for row in rows)])
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def _without_paths(line: str) -> str:
    return re.sub(r"(?<!\w)/[^\s()]*", lambda path: f"…/{Path(path[0]).name}", line)
