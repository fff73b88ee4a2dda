"""`fff report`: what came out of a campaign, as one page with figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fff.cli.border import Border

__all__ = ["report"]


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a campaign, in any state.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write the page to this file, figures beside it; report.html in RUN_DIR by default.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it was written as JSON.")] = False,
) -> None:
    """Write what came out of a campaign.

    One page to open in a browser, and figures with their numbers.
    """
    with Border():
        from fff.data.run_directory import RunDirectory
        from fff.report.writing import write_report

        written = write_report(RunDirectory.at(run_dir), output)
        for warning in written.warnings:
            typer.echo(f"Warning: {warning}", err=True)
        if as_json:
            content = {
                "schema_version": 1,
                "report": str(written.path),
                "figures": str(written.figures),
                "warnings": written.warnings,
            }
            typer.echo(json.dumps(content))
        else:
            typer.echo(f"Report: {written.path}")
