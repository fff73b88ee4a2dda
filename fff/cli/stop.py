"""`fff stop`: ask a campaign that is running, here or on another host, to stop in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fff.cli.border import Border

if TYPE_CHECKING:
    from fff.data.run_directory import RunDirectory

__all__ = ["stop"]


def stop(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a running campaign.")],
) -> None:
    """Ask a running campaign to stop.

    Nothing new is begun, what runs may end, and it can be resumed. Between two jobs of a batch system
    the next one stops.
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
                typer.echo(_between_jobs(run))
                return
            run.stop_file.touch()
        except OSError as error:
            msg = f"{run.stop_file} cannot be made: {error.strerror}."
            raise RunDirectoryError(msg, hint="Check who owns the folder.", path=str(run.path)) from error
        typer.echo(f"Asked to stop. It takes some seconds; then `fff resume {run.path}` goes on.")


def _between_jobs(run: RunDirectory) -> str:
    """Ask the next job of a campaign to stop that stopped at a walltime; return what is said."""
    from fff.report.standing import read_standing

    if read_standing(run).status.get("stopped_by") != "walltime":
        return f"Nothing to stop: no process works on {run.path}"
    run.stop_file.touch()
    return (
        f"No process works on {run.path} now. A job that goes on with it will stop at once; to have none, "
        f"cancel it. `fff resume {run.path}` by hand goes on."
    )
