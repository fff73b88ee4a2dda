"""The program `fff`, and the part of it that `python run.py` is."""

from __future__ import annotations

from typing import Annotated

import typer

from fff import __version__
from fff.cli.check import check
from fff.cli.evaluate import evaluate
from fff.cli.folder import OfCampaign
from fff.cli.init import init
from fff.cli.label import label
from fff.cli.md import md
from fff.cli.report import report
from fff.cli.run import resume, run
from fff.cli.schema import schema
from fff.cli.status import status
from fff.cli.stop import stop
from fff.cli.train import train
from fff.cli.watch import watch

__all__ = ["app", "main", "main_run", "run_app"]

_HELP = {"help_option_names": ["-h", "--help"]}

# Plain text: the formatted kind costs half of the start-up time, and its tracebacks fill screens.
app = typer.Typer(
    name="fff",
    help="Fast-finetuned force fields: train one that says how wrong it is, from few reference calculations.",
    no_args_is_help=True,
    context_settings=_HELP,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
run_app = typer.Typer(
    context_settings=_HELP, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fff {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


app.command("init")(init)
app.command("check")(check)
app.command("schema")(schema)
app.command("run")(run)
app.command("resume", cls=OfCampaign)(resume)
app.command("status", cls=OfCampaign)(status)
app.command("watch", cls=OfCampaign)(watch)
app.command("stop", cls=OfCampaign)(stop)
app.command("report", cls=OfCampaign)(report)
app.command("label")(label)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("md")(md)
run_app.command()(run)


def main() -> None:
    """Run the program `fff` with the arguments of the command line, and exit."""
    app()


def main_run() -> None:
    """Run `fff run` under the name of the script that calls this, and exit."""
    run_app()
