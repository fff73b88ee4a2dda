"""Options that all single steps have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Config", "Override", "Quiet", "Seed", "number"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one object of JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Config = Annotated[
    Path | None,
    typer.Option(help="YAML file of a campaign, whose settings count here too.", metavar="CONFIG"),
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "-o", help="Any key of a config, as in -o training.max_epochs=50; repeatable.", metavar="KEY=VALUE"
    ),
]
Seed = Annotated[str | None, typer.Option(help="Everything random follows from it (seed).", metavar="N")]


def number(text: str | None) -> int | float | str | None:
    """Return a number where it is one; the config then says which key, value and bound do not fit."""
    for kind in (int, float):
        try:
            return None if text is None else kind(text)
        except ValueError:
            continue
    return text
