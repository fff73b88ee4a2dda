"""`fff watch`: a campaign as it goes on, on the terminal or as a page in the browser."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path
from typing import Annotated

import typer

from fff.cli.border import Border

__all__ = ["watch"]


def watch(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a campaign.")],
    web: Annotated[bool, typer.Option("--web", help="Serve a page on this machine instead.")] = False,
    port: Annotated[
        int, typer.Option(help="Port of the page; 0 for any that is free.", metavar="N", min=0, max=65535)
    ] = 0,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the default browser.")
    ] = False,
) -> None:
    """Watch a campaign as it goes on, here or in the browser.

    Without --web the same as fff status --watch. Ctrl-C ends the watching, never the campaign.
    """
    if not web and (port or open_page):
        msg = "it belongs to --web"
        raise typer.BadParameter(msg, param_hint="--port" if port else "--open")
    with Border():
        from fff.cli.folder import campaign_at

        run = campaign_at(run_dir)
        if not web:
            from fff.cli.status import follow

            follow(run)
            return
        from fff.report.web import serve

        def announce(address: str) -> None:
            for line in _how_to_open(address):
                typer.echo(line)
            if open_page:
                import webbrowser

                webbrowser.open(address)

        serve(run, port=port, announce=announce)
        typer.echo("The page is closed; the campaign is not touched by that.")


def _how_to_open(address: str) -> list[str]:
    """Return what a user is told: the address is the key, and where the browser must be."""
    port = address.split(":")[2].partition("/")[0]
    return [
        f"Open   {address}",
        "       The address holds the key to the page; who has it, and an account here, sees the campaign.",
        f"Afar   ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@{platform.node()}",
        "       on your own computer; then open the same address there.",
        "End    Ctrl-C",
    ]
