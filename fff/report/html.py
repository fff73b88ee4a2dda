"""Pages made of tags: every text that is not a tag is escaped, so that nothing from a file becomes one."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Markup", "cells", "join", "raw", "table", "tag"]


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


_EMPTY = frozenset({"br", "img", "meta"})


def tag(name: str, /, *children: str, **attributes: str) -> Markup:
    """Return an element; children and attributes that are no `Markup` are escaped.

    Args:
        name: Name of the element.
        *children: What is in it.
        **attributes: Its attributes; `class_` stands for `class`, an underscore for a dash.

    Example:
        >>> tag("p", "a < b, ", tag("b", "so it is"), class_="note")
        '<p class="note">a &lt; b, <b>so it is</b></p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    if name in _EMPTY:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Return parts one after the other, escaped where they are no `Markup`."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(part) for part in parts))


def raw(text: str) -> Markup:
    """Return text of our own as it is; never what comes from a file."""
    return Markup(text)


def cells(name: str, values: Sequence[str]) -> Markup:
    """Return a row of a table; from the second cell on numbers stand at the right."""
    return tag("tr", *(tag(name, value) for value in values))


def table(
    heading: Sequence[str], rows: Iterable[Sequence[str]], *, class_: str = "", caption: str = ""
) -> Markup:
    """Return a table that scrolls by itself where the page is narrower."""
    head = tag("thead", cells("th", heading)) if any(heading) else ""
    body = tag("tbody", *(cells("td", row) for row in rows))
    title = [tag("caption", caption)] if caption else []
    return tag("div", tag("table", *title, head, body, class_=class_), class_="scroll", tabindex="0")
