"""The border to the user: every error ends as a sentence and an exit code, never as a traceback."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from typing import TYPE_CHECKING, Self

import typer

from fff.base.errors import (
    ConfigError,
    FffError,
    InputFileError,
    ModelFileError,
    ReferenceSetupError,
    RunDirectoryError,
    StructureError,
)

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["FAILED", "STOPPED", "USAGE", "Border"]

FAILED, USAGE, STOPPED = 1, 2, 3
_INPUT_ERRORS = (
    ConfigError,
    InputFileError,
    ModelFileError,
    ReferenceSetupError,
    RunDirectoryError,
    StructureError,
)


class Border:
    """A context that turns errors into `Error:` and `Hint:` on standard error, and an exit code.

    Before the campaign starts each of fff's own errors means wrong input (2). After that only those
    about input do; others are failures (1). What nobody expected is a failure too, and its traceback
    goes to a file: `run.log` of the run directory if there is one, else the folder for temporary files.

    Attributes:
        run_dir: The run directory, once it is known.
        started: Whether the campaign has started.
    """

    def __init__(self) -> None:
        self.run_dir: Path | None = None
        self.started = False

    def __enter__(self) -> Self:
        """Watch over what follows."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Turn an error into its sentence.

        Raises:
            typer.Exit: With the exit code, after any error.
        """
        if error is None or isinstance(error, typer.Exit):
            return
        raise typer.Exit(self._explain(error)) from None

    def _explain(self, error: BaseException) -> int:
        if isinstance(error, KeyboardInterrupt):
            typer.echo("Stopped: interrupted before the campaign could take note of it.", err=True)
            return STOPPED
        if isinstance(error, FffError):
            _say(error.message, error.hint)
            for message, hint in error.context.get("others", ()):
                _say(message, hint)
            return FAILED if self.started and not isinstance(error, _INPUT_ERRORS) else USAGE
        if not isinstance(error, Exception):
            raise error
        reason = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
        where = self._keep(error)
        _say(
            f"fff met an error that it does not know: {type(error).__name__}: {reason}.",
            f"The traceback is in {where}; please report it.",
        )
        return FAILED

    def _keep(self, error: BaseException) -> Path | str:
        """Write the traceback and return where."""
        from pathlib import Path

        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} unexpected error\n{_format(error)}"
        try:
            if self.run_dir is not None and self.run_dir.is_dir():
                path = self.run_dir / "run.log"
                with path.open("a", encoding="utf-8") as file:
                    file.write(text)
                return path
        except OSError:
            pass  # a full or read-only disk: the folder for temporary files may still do
        try:
            handle, name = tempfile.mkstemp(prefix="fff-error-", suffix=".log")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            return "no file, since none could be written"
        return Path(name)


def _format(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _say(message: str, hint: str) -> None:
    typer.echo(f"Error: {message}", err=True)
    if hint:
        typer.echo(f"Hint: {hint}", err=True)
