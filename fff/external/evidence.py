"""What a failed calculation left behind: its last lines, and whether the disk was full."""

from __future__ import annotations

import errno
import os
import re
import shutil
from typing import TYPE_CHECKING

from fff.base.errors import NoSpaceError, ReferenceFailure, ReferenceSetupError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["STDERR", "STDOUT", "last_lines", "space_error", "tail"]

STDOUT, STDERR = "stdout.txt", "stderr.txt"
"""Where a code's output goes unless its command says otherwise."""

_LINES = 6
_LONGEST = 400
_TAIL_BYTES = 20_000
_LITTLE_SPACE_BYTES = 1_000_000
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SAYS_NO_SPACE = re.compile("no space left on device|disk quota exceeded", re.IGNORECASE)


def last_lines(folder: Path) -> str:
    """Return the last lines of standard error, of the output where it is empty, else of the newest text."""
    for path in (folder / STDERR, folder / STDOUT, *_newest_first(folder)):
        lines = [stripped for line in tail(path).splitlines() if (stripped := line.strip())]
        if lines:
            text = "\n".join(lines[-_LINES:])
            return text if len(text) <= _LONGEST else "…" + text[-_LONGEST:]
    return ""


def _newest_first(folder: Path) -> list[Path]:
    """Return the files that were written since the code started; what went before is its input."""
    try:
        times = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    except OSError:
        return []
    # Empty, or it would have been taken, and so as old as the code's start.
    started = times.get(folder / STDERR, 0)
    return sorted((path for path in times if times[path] > started), key=lambda path: -times[path])


def tail(path: Path, n_bytes: int = _TAIL_BYTES) -> str:
    """Return the end of a text file; nothing for one that is missing or no text.

    Args:
        path: The file.
        n_bytes: How much of it.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - n_bytes))
            data = file.read(n_bytes)
    except OSError:
        return ""
    return "" if b"\0" in data else data.decode(errors="replace")


def space_error(error: BaseException, folder: Path) -> NoSpaceError | None:
    """Return the error for a full disk where that is what an exception is about, else None.

    Codes rarely say so: besides the exception and what it came from, the last lines in the folder and the
    free space are looked at.

    Args:
        error: What was raised.
        folder: Where the calculation ran.
    """
    reasons: list[BaseException] = [error]
    while (reason := reasons[-1].__cause__ or reasons[-1].__context__) is not None and reason not in reasons:
        reasons.append(reason)
    is_full = any(isinstance(reason, OSError) and reason.errno in _NO_SPACE for reason in reasons)
    if not is_full and isinstance(error, ReferenceFailure) and not isinstance(error, ReferenceSetupError):
        is_full = bool(_SAYS_NO_SPACE.search(last_lines(folder))) or _free_bytes(folder) < _LITTLE_SPACE_BYTES
    if not is_full:
        return None
    return NoSpaceError(
        f"The disk that holds {folder} is full, or a quota is used up: {error}",
        hint="Free some space; nothing that was finished is lost.",
        path=str(folder),
    )


def _free_bytes(folder: Path) -> float:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return float("inf")
