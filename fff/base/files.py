"""Files that are either whole or absent, folders for the user alone, paths that stay where they belong."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from fff.base.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "inside",
    "private_folder",
    "read_json",
    "refuse_links",
    "write_bytes",
    "write_json",
    "write_text",
]


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Args:
        path: Where the file goes; parent folders are made.
        data: The content.
        sync: Whether it must survive a power cut; False for files that are rewritten all the time.

    Raises:
        OSError: If the disk is full or the folder cannot be written; nothing is left behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        # mkstemp makes files for the user alone; results should be as readable as any other file.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Write UTF-8 `text` to `path` in one piece; see `write_bytes`."""
    write_bytes(path, text.encode(), sync=sync)


def write_json(path: Path, value: Mapping[str, Any] | list[Any], *, sync: bool = True) -> None:
    """Write `value` as indented JSON to `path` in one piece; see `write_bytes`."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", sync=sync)


def read_json(path: Path) -> Any:
    """Return what a file of JSON holds, as `write_json` writes it: every number is finite.

    Raises:
        ValueError: If it is no such file.
        OSError: If it cannot be read.
    """
    try:
        return _DECODER.decode(path.read_text(encoding="utf-8"))
    except RecursionError:
        msg = "It is nested too deeply."
        raise ValueError(msg) from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = f"It holds {text}, which is no finite number."
        raise ValueError(msg)
    return number


_DECODER = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)


def inside(root: Path, relative: str | Path) -> Path:
    """Return `root / relative`, which cannot lie outside `root`; for every path that a file names.

    Links are followed: users put folders that grow on another disk.

    Raises:
        RunDirectoryError: If `relative` is absolute, goes up by `..`, or can be no path.

    Example:
        >>> inside(Path("runs/water"), "frames/start.npz")
        PosixPath('runs/water/frames/start.npz')
    """
    path = PurePath(relative)
    if path.is_absolute() or ".." in path.parts or "\0" in str(relative):
        msg = f"A file of {root} names {str(relative)!r}, which leads out of that folder."
        hint = "fff writes no such name: somebody changed the folder. Go back to a copy of it."
        raise RunDirectoryError(msg, hint=hint, path=str(root))
    return root / path


def private_folder(path: Path) -> Path:
    """Make a folder that nobody but the user can look into, whatever the umask, and return it.

    One that is there already is closed to others.

    Raises:
        RunDirectoryError: If `path` is a symbolic link: what is written or removed would be elsewhere.
        OSError: If it cannot be made, or belongs to somebody else.
    """
    if path.is_symlink():
        raise _link(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o777 != 0o700:
        path.chmod(0o700)
    return path


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which a file is a symbolic link; for folders with files that fff changes in place.

    Appending would change what lies elsewhere. Links to folders are fine, as for `inside`.

    Raises:
        RunDirectoryError: If one of the entries is a link and no link to a folder.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and not _is_folder(entry):
                raise _link(Path(entry.path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def _link(path: Path) -> RunDirectoryError:
    msg = f"{path} is a symbolic link, through which fff would change what lies elsewhere."
    return RunDirectoryError(msg, hint="Put what it points to in its place.", path=str(path))


def _umask() -> int:
    # The mask can only be read by setting it; doing so once at import keeps threads out of it.
    return _UMASK


_UMASK = os.umask(0o022)
os.umask(_UMASK)
