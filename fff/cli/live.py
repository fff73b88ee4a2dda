"""The live view while a campaign is carried out: at the bottom of the terminal, other lines above it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Self

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from rich.live import Live

    from fff.data.run_directory import RunDirectory

__all__ = ["LiveView", "is_terminal", "tell"]

logger = logging.getLogger(__name__)

SHOW_EVERY_S = 1.0

LEAST_ROWS = 12
"""Rows of a terminal below which a view that moves would hide everything else."""


def tell(line: str) -> None:
    """Print a line, if there is still somebody to read it: a closed terminal or pipe ends no campaign."""
    try:
        typer.echo(line)
    except OSError:
        # What waits to be printed would be an error again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_terminal() -> bool:
    """Whether standard output is a terminal on which lines can be replaced."""
    is_able = sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}
    return is_able and shutil.get_terminal_size().lines >= LEAST_ROWS


class LiveView:
    """A context in which a campaign is seen while it runs; it starts no thread, and hides no cursor.

    The campaign's own loop drives it by calling `show`: the task server is forked from this process, and
    must find no thread in it. Whatever becomes of the terminal, or of the view, the campaign goes on.

    Args:
        run: The run directory; what is shown comes from its files.
    """

    def __init__(self, run: RunDirectory) -> None:
        from rich.console import Console
        from rich.live import Live

        from fff.report.view import View

        self._view = View(run)
        self._console = Console(soft_wrap=False)
        self._live: Live | None = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._shown = -SHOW_EVERY_S

    def __enter__(self) -> Self:
        """Show where it is now."""
        with self._surviving():
            if self._live is not None:
                self._live.start()
                # Who is killed cannot show it again.
                self._console.show_cursor(True)
        self.show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the view away; the terminal is as before."""
        self._close()

    def say(self, line: str) -> None:
        """Print a line above the view."""
        if self._live is None:
            tell(line)
            return
        with self._surviving():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self) -> None:
        """Show what the run directory holds, if that was not done a moment ago."""
        if self._live is None or time.monotonic() - self._shown < SHOW_EVERY_S:
            return
        self._shown = time.monotonic()
        with self._surviving():
            from fff.report.terminal import render

            width, height = self._console.size
            self._live.update(render(self._view.look(), width, height - 1), refresh=True)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            # No view is worth a campaign.
            logger.exception("The live view failed; `fff status` shows the same.")
            self._close()

    def _close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(Exception):
                live.stop()
