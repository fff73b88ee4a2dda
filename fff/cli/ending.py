"""How a single step ends: one object of JSON or a text on standard output, a last line, an exit code."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from fff.cli.progress import note

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["again", "conclude", "table"]


def conclude(text: str, last_line: str, code: int, values: Mapping[str, Any] | None) -> NoReturn:
    """Print what came out and exit.

    Args:
        text: For people.
        last_line: `Finished: …`, `Stopped: …`, `Failed: …`.
        code: The exit code.
        values: The same for programs, printed instead of the text; None where nobody asked for that.

    Raises:
        typer.Exit: Always.
    """
    if values is None:
        if text:
            typer.echo(text)
        typer.echo(last_line)
    else:
        typer.echo(json.dumps({"schema_version": 1, **_plain(values)}, indent=1, allow_nan=False))
        note(last_line)
    raise typer.Exit(code)


def again() -> str:
    """Return the command that this process was started with."""
    program = Path(sys.argv[0]).name
    return shlex.join([program, *sys.argv[1:]])


def table(rows: list[list[str]]) -> str:
    """Return rows in columns, the first one to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Return `value` as JSON knows it: paths as text, numbers that are none as null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
