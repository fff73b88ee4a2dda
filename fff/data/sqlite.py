"""SQLite files that may be anybody's: nothing that lies in one is carried out."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["connect"]


def connect(path: Path, *, wait_s: float, read_only: bool = False, undo: bool = True) -> sqlite3.Connection:
    """Return a connection that any thread may use, and that passes over the triggers and views of the file.

    Args:
        path: The file.
        wait_s: How long to wait for another process that holds it locked.
        read_only: Whether the file must be there and stays as it is; what a killed writer left half done is
            undone all the same.
        undo: Whether that is so; where it is not, reading such a file raises an `sqlite3.OperationalError`.

    Raises:
        sqlite3.Error: If the file cannot be opened.
    """
    mode = ("rw" if undo else "ro") if read_only else "rwc"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=wait_s, check_same_thread=False)
    # ASE's databases have neither; a file that has them wants something else.
    for setting in (sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW):
        connection.setconfig(setting, False)
    connection.setconfig(sqlite3.SQLITE_DBCONFIG_TRUSTED_SCHEMA, False)
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    return connection
