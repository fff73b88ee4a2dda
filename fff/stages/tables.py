"""Tables that grow while a stage runs: a row of names, a row of units, data; readable at any time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from fff.base.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Growing", "Table"]


class Growing(Protocol):
    """What a stage writes while it runs, in numbered pieces, and what can be cut behind one of them.

    Attributes:
        name: What messages call it.
        last: Number of the last piece; 0 if there is none.
    """

    name: str
    last: int

    def open(self, folder: Path, through: int) -> bool:
        """Go on behind the piece `through`; return whether all up to it are there.

        Raises:
            OSError: If it cannot be written.
        """

    def save(self) -> None:
        """Make sure that every piece is on the disk: a checkpoint is going to count on it.

        Raises:
            OSError: If it cannot be written.
        """


class Table:
    """A CSV file whose rows are numbered by their first column, and which can be cut behind one of them.

    Rows are kept in memory too: without a folder, or while the disk is full, nothing of the table is lost.

    Args:
        name: Of the file.
        columns: The unit of each column by its name; the first one numbers the rows.
        digits: How many digits a number has.
        folder: Where it lives, if not in the folder of the stage.
    """

    def __init__(
        self, name: str, columns: Mapping[str, str], *, digits: int = 6, folder: Path | None = None
    ) -> None:
        self.name = name
        self._digits = digits
        self._folder = folder
        self.last = 0
        self._header = [",".join(columns) + "\n", ",".join(columns.values()) + "\n"]
        self._n_columns = len(columns)
        self._rows: list[str] = []
        self._path: Path | None = None
        self._is_behind = False

    def append(self, number: int, *values: float | None) -> None:
        """Add a row, to the file as well if there is one; None is an empty cell.

        Raises:
            ValueError: If the number is not above the last one, or the row has not a value for each column.
        """
        if number <= self.last or len(values) + 1 != self._n_columns:
            msg = (
                f"Row {number} with {len(values) + 1} cells cannot follow row {self.last} of {self.name}, "
                f"which has {self._n_columns} columns."
            )
            raise ValueError(msg)
        row = ",".join(self._cell(value) for value in (number, *values)) + "\n"
        self._rows.append(row)
        self.last = number
        if self._path is None or self._is_behind:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(row)
        except OSError:
            # A full disk, perhaps with half of the row on it: `save` writes the whole table anew.
            self._is_behind = True

    def text(self) -> str:
        """Return the whole table."""
        return "".join([*self._header, *self._rows])

    def open(self, folder: Path, through: int) -> bool:
        """Let the table live in `folder`, with the rows that the file there has up to the number `through`.

        Rows beyond it, and a last one that was written by half, are cut from the file.

        Returns:
            Whether row `through` was there, so that the table is whole; always, if it is 0.

        Raises:
            OSError: If the file cannot be written.
        """
        self._path = (self._folder or folder) / self.name
        self._is_behind = True
        self._rows, self.last = [], 0
        for row in self._lines():
            number = self._number(row)
            # A process that was given up for lost may have written the same rows once more.
            if number is not None and self.last < number <= through:
                self._rows.append(row)
                self.last = number
        found, self.last = self.last == through, through
        self.save()
        return found

    def save(self) -> None:
        """Make sure that the file has every row, on the disk: a checkpoint is going to count on it.

        Raises:
            OSError: If it cannot be written.
        """
        if self._path is None:
            return
        if self._is_behind:
            write_text(self._path, self.text())
            self._is_behind = False
            return
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def _lines(self) -> list[str]:
        if self._path is None or not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return lines[2:] if lines[:2] == self._header else []

    def _number(self, row: str) -> int | None:
        """Return the number of a row, None if the row is not whole."""
        cells = row.removesuffix("\n").split(",")
        if not row.endswith("\n") or len(cells) != self._n_columns or not cells[0].isdecimal():
            return None
        return int(cells[0])

    def _cell(self, value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.{self._digits}g}" if isinstance(value, float) else str(value)
