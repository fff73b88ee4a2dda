"""Options that all single steps have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Config", "Quiet"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one object of JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Config = Annotated[
    Path | None,
    typer.Option(help="YAML file of a campaign, whose settings count here too.", metavar="CONFIG"),
]
