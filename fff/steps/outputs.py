"""Files that a step writes: one process at a time, and never over somebody's work."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fff.base.errors import RunDirectoryError
from fff.data.run_lock import RunLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["free_folder", "taken"]


@contextlib.contextmanager
def taken(output: Path) -> Iterator[RunLock]:
    """Keep other processes away from an output until the block ends, by a lock beside it.

    Raises:
        RunDirectoryError: If another process works on it, or its folder cannot be written.
    """
    # The present folder has no name as it is given.
    place = output.absolute()
    lock = RunLock(place.parent / f".{place.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.take()
    except (OSError, RunDirectoryError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        msg = f"Another process writes {output}."
        if isinstance(cause, OSError):
            msg = f"{output} cannot be written: {cause.strerror or cause}."
        hint = "Choose another place with --output, or wait for it."
        raise RunDirectoryError(msg, hint=hint, path=str(output)) from error
    try:
        yield lock
    finally:
        lock.release()


def free_folder(wanted: Path | None, default: Path) -> Path:
    """Return a folder that is not there yet or empty: the wanted one, or the default one with a number.

    Raises:
        RunDirectoryError: If the wanted folder holds something.
    """
    if wanted is not None:
        if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
            msg = f"{wanted} is there already; nothing is ever overwritten."
            hint = "Choose another place with --output, or move it away."
            raise RunDirectoryError(msg, hint=hint, path=str(wanted))
        return wanted
    folder, n = default, 1
    while folder.exists():
        n += 1
        folder = default.with_name(f"{default.name}-{n}")
    return folder
