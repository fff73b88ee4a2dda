"""The folder of a campaign, as the commands that only read it are given it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from fff.base.errors import RunDirectoryError
from fff.data.run_directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["campaign_at"]


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
