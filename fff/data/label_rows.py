"""The rows of a database of labels, looked at before anything is done with it: which, and whether sound."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import ExitStack, closing
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms

from fff.base.errors import RunDirectoryError
from fff.base.ids import structure_hash
from fff.data.sqlite import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LabelRow", "open_to_read", "read_rows", "unusable"]

_TABLES = {"systems", "species", "keys", "text_key_values", "number_key_values", "information"}
_VERSION = 9
_WAL = b"\2\2"
_ROWS = """
    SELECT text.id, text.key, text.value, numbers, positions, cell, pbc, energy, forces
    FROM text_key_values AS text LEFT JOIN systems ON systems.id = text.id
    WHERE text.key IN ('request', 'structure', 'source') ORDER BY text.id
"""


class LabelRow(NamedTuple):
    """What can be told of a label without ASE, which takes a hundred times as long.

    Attributes:
        request: The request it is stored under.
        structure: Hash of its structure, as the row names it.
        source: Where it came from.
        is_sound: Whether the row holds that structure, and an energy and forces that are numbers.
    """

    request: str
    structure: str
    source: str
    is_sound: bool


def read_rows(path: Path, *, wait_s: float = 60.0) -> list[LabelRow]:
    """Return the rows of a database, oldest first; nothing is changed, not even what a killed writer left.

    Args:
        path: The database.
        wait_s: How long to wait for another process that holds the database locked.

    Raises:
        RunDirectoryError: If the file is no ASE database or stays locked.
    """
    try:
        with ExitStack() as stack:
            connection = open_to_read(path, wait_s, stack)
            return list(_rows(connection))
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> RunDirectoryError:
    """Return the error for a database that cannot be used."""
    return RunDirectoryError(
        f"The labels in {path} cannot be used: {str(error).rstrip('.')}.",
        hint="Locked: close the program that holds it open. Full: make room on that disk. "
        "Damaged: restore it from a copy.",
        path=str(path),
    )


def open_to_read(path: Path, wait_s: float, stack: ExitStack) -> sqlite3.Connection:
    """Return a connection to a database of labels, or to a copy where reading would change its folder.

    Args:
        path: The database.
        wait_s: How long to wait for another process that holds the database locked.
        stack: Closes the connection.

    Raises:
        sqlite3.Error: If the file is no ASE database or stays locked.
        OSError: If it cannot be read.
    """
    connection = _connect(path, wait_s, stack)
    _check_tables(connection)
    return connection


def _connect(path: Path, wait_s: float, stack: ExitStack) -> sqlite3.Connection:
    with path.open("rb") as file:
        is_wal = file.read(20)[18:] == _WAL
    if not is_wal and not Path(f"{path}-wal").exists():
        connection = stack.enter_context(closing(connect(path, wait_s=wait_s, read_only=True, undo=False)))
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
        else:
            return connection
    # A writer was killed in a transaction, or another program left its own. It is undone in a copy.
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fff-labels-")))
    for suffix in ("", "-journal", "-wal"):
        if (source := Path(f"{path}{suffix}")).is_file():
            shutil.copyfile(source, folder / f"{path.name}{suffix}")
    return stack.enter_context(closing(connect(folder / path.name, wait_s=wait_s)))


def _check_tables(connection: sqlite3.Connection) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if missing := _TABLES - tables:
        msg = f"it has no table {min(missing)}"
        raise sqlite3.DatabaseError(msg)
    found = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchone()
    if found is None or str(found[0]) != str(_VERSION):
        msg = f"its layout has version {found[0] if found else 'none'}, fff writes {_VERSION}"
        raise sqlite3.DatabaseError(msg)


def _rows(connection: sqlite3.Connection) -> Iterator[LabelRow]:
    texts: dict[int, dict[str, str]] = {}
    sound: dict[int, str | None] = {}
    for row, key, value, *content in connection.execute(_ROWS):
        texts.setdefault(row, {})[key] = str(value)
        if key == "request":
            sound[row] = _structure(*content)
    for row, text in texts.items():
        if "request" in text:
            structure = text.get("structure", "")
            yield LabelRow(text["request"], structure, text.get("source", ""), sound[row] == structure)


def _structure(numbers: Any, positions: Any, cell: Any, pbc: Any, energy: Any, forces: Any) -> str | None:
    """Return the hash of a row's structure, or None if the row holds no label."""
    try:
        atoms = Atoms(
            numbers=np.frombuffer(numbers, dtype="<i4"),
            positions=np.frombuffer(positions, dtype="<f8").reshape(-1, 3),
            cell=np.frombuffer(cell, dtype="<f8").reshape(3, 3),
            pbc=[bool(pbc & bit) for bit in (1, 2, 4)],
        )
        found = np.frombuffer(forces, dtype="<f8").reshape(len(atoms), 3)
        if isfinite(energy) and np.isfinite(found).all():
            return structure_hash(atoms)
    except (TypeError, ValueError):
        pass
    return None
