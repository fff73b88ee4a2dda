"""`fff status`: where a campaign stands, from its files alone; also from another host."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fff.cli.border import Border

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from fff.data.run_directory import RunDirectory

__all__ = ["follow", "status"]

LOOK_EVERY_S = 1.0
SAY_EVERY_S = 60.0

PLAIN_WIDTH = 100
"""Columns where there is no terminal to ask."""


def status(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a campaign.")],
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, and show how it goes on, until it is over or Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print status.json, with the state as it really is.")
    ] = False,
) -> None:
    """Show where a campaign stands, running or not. Reads files only, and writes none."""
    with Border():
        from fff.cli.folder import campaign_at

        run = campaign_at(run_dir)
        if as_json:
            from fff.report.standing import read_standing

            typer.echo(json.dumps(read_standing(run).to_json(), indent=1))
        elif watch:
            follow(run)
        else:
            _print_once(run)


def follow(run: RunDirectory) -> None:
    """Show a campaign until it is over, or until Ctrl-C; then leave the last view on the terminal."""
    from fff.cli.live import is_terminal

    with contextlib.suppress(KeyboardInterrupt), _ended_by_signals():
        if is_terminal():
            _follow_on_terminal(run)
        else:
            _follow_by_lines(run)
            return
    _print_once(run)


def _print_once(run: RunDirectory) -> None:
    from rich.console import Console

    from fff.report.terminal import render
    from fff.report.view import View

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH, highlight=False)
    console.print(render(View(run).look(), console.width))


def _follow_on_terminal(run: RunDirectory) -> None:
    from rich.console import Console
    from rich.live import Live

    from fff.report.terminal import render
    from fff.report.view import View

    view, console = View(run), Console(highlight=False)
    # A screen of its own: what was on the terminal comes back.
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            seen = view.look()
            if seen["state"] not in {"starting", "running"}:
                return
            live.update(render(seen, *console.size), refresh=True)
            time.sleep(LOOK_EVERY_S)


def _follow_by_lines(run: RunDirectory) -> None:
    """Say a line a minute, and one at the end, for a file or a pipe."""
    from fff.data.lines import describe_status
    from fff.report.standing import read_standing

    said = -SAY_EVERY_S
    while (standing := read_standing(run)).is_alive:
        if time.monotonic() - said >= SAY_EVERY_S and standing.state == "running":
            said = time.monotonic()
            with contextlib.suppress(KeyError, TypeError):  # of a status that an older fff wrote
                typer.echo(describe_status(standing.status))
        time.sleep(LOOK_EVERY_S)
    typer.echo(f"{standing.state}: {standing.reason}. Next: {standing.how_to_go_on(run.path)}")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end it as Ctrl-C does: the screen is given back."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
