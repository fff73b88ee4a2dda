"""`fff stop`: ask a campaign that is running, here or on another host, to stop in order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fff.cli.border import Border

__all__ = ["stop"]


def stop(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a running campaign.")],
) -> None:
    """Ask a running campaign to stop.

    Nothing new is begun, what runs may end, and it can be resumed.
    """
    with Border():
        from fff.base.errors import RunDirectoryError
        from fff.data.run_directory import RunDirectory
        from fff.data.run_lock import is_held

        run = RunDirectory.at(run_dir)
        if not run.is_opened:
            msg = f"There is no campaign in {run.path}."
            raise RunDirectoryError(msg, hint="Give the folder that holds events.jsonl.", path=str(run.path))
        run.check()
        try:
            if not is_held(run.lock):
                typer.echo(f"Nothing to stop: no process works on {run.path}")
                return
            run.stop_file.touch()
        except OSError as error:
            msg = f"{run.stop_file} cannot be made: {error.strerror}."
            raise RunDirectoryError(msg, hint="Check who owns the folder.", path=str(run.path)) from error
        typer.echo(f"Asked to stop. It takes some seconds; then `fff resume {run.path}` goes on.")
