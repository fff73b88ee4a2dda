"""Files that are either whole or absent: temporary name, sync, rename."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["write_bytes", "write_json", "write_text"]


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


def _umask() -> int:
    # The mask can only be read by setting it; doing so once at import keeps threads out of it.
    return _UMASK


_UMASK = os.umask(0o022)
os.umask(_UMASK)
