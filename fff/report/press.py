"""Puts figures and links into a page; what fails becomes a line there and a warning, never the end."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

from fff.report.drawing import write_drawing
from fff.report.html import join, tag

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fff.report.drawing import Drawing
    from fff.report.html import Markup
    from fff.report.record import Record

__all__ = ["Press"]


class Press:
    """Makes the parts of one page.

    Args:
        record: What the report is about.
        page: The file that the page is written to.
        figures: The folder that figures are written to.

    Attributes:
        warnings: What could not be made, a sentence each.
    """

    def __init__(self, record: Record, page: Path, figures: Path) -> None:
        self.record = record
        self.page = page
        self.figures = figures
        self.warnings: list[str] = []

    def figure(self, what: str, draw: Callable[[Record], Drawing | str]) -> Markup:
        """Return a figure with its caption, or the sentence that says why there is none.

        Args:
            what: What it is called where it fails: `learning curve`.
            draw: Draws it.
        """
        return self.part(f"The figure of the {what}", lambda: self._figure(draw))

    def part(self, what: str, make: Callable[[], Markup]) -> Markup:
        """Return a part of the page; one that fails is a line in its place, and a warning."""
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - any damaged input costs its part of the report only
            reason = (str(error) or "no message").splitlines()[0].rstrip(".")
            line = f"{what} could not be made: {type(error).__name__}: {reason}."
            self.warnings.append(line)
            return tag("p", line, class_="note")

    def link(self, path: Path, content: str) -> Markup:
        """Return a link to a file, relative to the page, from a text or a picture."""
        # Quoted: a name with a colon is no address of another kind.
        return tag("a", content, href=quote(os.path.relpath(path, self.page.parent)))

    def _figure(self, draw: Callable[[Record], Drawing | str]) -> Markup:
        drawn = draw(self.record)
        if isinstance(drawn, str):
            return tag("p", drawn, class_="quiet")
        path = write_drawing(drawn, self.figures)
        data = path.read_bytes()
        width, height = _size(data)
        image = tag(
            "img",
            src=f"data:image/png;base64,{base64.b64encode(data).decode()}",
            alt=f"{drawn.title}. {drawn.caption}",
            width=str(width),
            height=str(height),
            style=f"max-width:{round(width * 0.75)}px",
        )
        numbers = self.link(path.with_suffix(".csv"), "numbers (CSV)")
        picture = self.link(path, "picture (PNG)")
        caption = join([drawn.caption, " ", tag("span", numbers, ", ", picture, ".", class_="screen-only")])
        # It shrinks with the page; a touch opens it alone, where it can be enlarged.
        linked = tag("div", self.link(path, image), class_="paper")
        return tag("figure", linked, tag("figcaption", caption))


def _size(png: bytes) -> tuple[int, int]:
    """Return width and height of a picture in pixels: the first numbers of its header."""
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
