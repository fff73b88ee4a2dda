"""The folder of a campaign, as the commands that only read it are given it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from fff.base.errors import RunDirectoryError
from fff.data.run_directory import RunDirectory

__all__ = ["OfCampaign", "campaign_at"]

_MOST_NAMED = 5


class OfCampaign(TyperCommand):
    """A command for a campaign that is there; called without one it names some."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments apart, as every command does."""
        if not args and (names := _campaigns_here()):
            ctx.fail(f"Missing argument 'RUN_DIR'.\nHint: Campaigns here: {', '.join(names)}.")
        return super().parse_args(ctx, args)


def _campaigns_here() -> list[str]:
    """Return where campaigns lie that went on last, in the folder where they go by default."""
    try:
        logs = sorted(Path("runs").glob("*/events.jsonl"), key=lambda log: log.stat().st_mtime)
    except OSError:
        return []
    return [str(log.parent) for log in logs[: -_MOST_NAMED - 1 : -1]]


def campaign_at(path: Path) -> RunDirectory:
    """Return the run directory at a path.

    Raises:
        RunDirectoryError: If there is no campaign, or it cannot be read.
    """
    run = RunDirectory.at(path)
    try:
        if not run.is_opened:
            msg = f"There is no campaign in {run.path}."
            raise RunDirectoryError(msg, hint="Give the folder that holds events.jsonl.", path=str(run.path))
        for file in (run.events, run.status, run.lock):
            # A pipe in the place of one would be waited for.
            if file.exists() and not stat.S_ISREG(file.stat().st_mode):
                msg = f"{file} is no regular file."
                raise RunDirectoryError(msg, hint="Move it away; nothing of fff is in it.", path=str(file))
        with run.events.open("rb"):
            pass
    except OSError as error:
        msg = f"The run directory {run.path} cannot be read: {error.strerror}."
        raise RunDirectoryError(msg, hint="Check who owns it.", path=str(run.path)) from error
    return run
