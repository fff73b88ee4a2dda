"""All labels of a campaign: an ASE database that is only ever appended to, one row per request."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.core import check
from ase.db.sqlite import SQLite3Database

from fff.base.errors import RunDirectoryError
from fff.data.label_rows import open_to_read, unusable
from fff.data.records import Label
from fff.data.sqlite import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase.db.row import AtomsRow
    from jaxtyping import Float

__all__ = ["LabelOrigin", "LabelStore", "read_labels"]


class LabelOrigin(TypedDict, total=False):
    """Where a label came from, and what the committee said before it was trained on it.

    Attributes:
        source: `initial`, `audit`, `active`, `control` or `imported`.
        method: Name of the reference method.
        settings: Hash of all settings of the method that change its numbers (`settings_hash`).
        segment: Segment for bootstraps; the label's own when absent.
        wall_s: What the calculation took; the label's own when absent.
        trajectory: Id of the trajectory it was met on.
        round: Round of the committee that chose it.
        model: Hash of the member that drove the dynamics.
        deviation: The committee's largest force deviation when it was chosen (eV/Å), whatever chose it.
        predicted_energy_eV: Total energy of each member, `(n_members,)`, or of the driving model.
        predicted_forces: Mean over the members, or of the driving model (eV/Å), `(n_atoms, 3)`.
        features: The first member's features, `(n_features,)`.
    """

    source: str
    method: str
    settings: str | None
    segment: str | None
    wall_s: float | None
    trajectory: str | None
    round: int | None
    model: str | None
    deviation: float | None
    predicted_energy_eV: float | Float[np.ndarray, " n_members"] | None
    predicted_forces: Float[np.ndarray, "..."] | None
    features: Float[np.ndarray, " n_features"] | None


# What ASE's decoder stumbles over, in a row that it did not write.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_ARRAYS = ("predicted_energy_eV", "predicted_forces", "features")
_KEYS = frozenset(LabelOrigin.__annotations__)


class LabelStore:
    """The labels of a run directory, keyed by the request that asked for them.

    One process writes; any number may read meanwhile. Threads of the writing process may share a store. A
    row is on disk when `add` returns.

    Args:
        path: The database; made when absent.
        wait_s: How long to wait for another process that holds the database locked.

    Raises:
        RunDirectoryError: If the file is no ASE database or stays locked.

    Example:
        >>> import tempfile
        >>> from ase.build import molecule
        >>> path = Path(tempfile.mkdtemp()) / "labels.db"
        >>> with LabelStore(path) as store:
        ...     label = Label(molecule("H2"), -31.0, np.zeros((2, 3)), segment="start-0")
        ...     store.add("label-0", label, source="initial", method="GFN2-xTB")
        ...     store.get("label-0").energy_eV, store.requests()
        (-31.0, ['label-0'])
    """

    def __init__(self, path: Path, *, wait_s: float = 60.0) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._rows: dict[str, int] = {}
        self._last_row = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # ASE's own lock file outlives a killed process and would then block for ever; SQLite's does not.
        self._database = SQLite3Database(str(self.path), use_lock_file=False, serial=True)
        try:
            # Kept open: ASE would otherwise connect and read the schema for each row.
            self._connection = connect(self.path, wait_s=wait_s)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        self._database.connection = self._connection
        self._database.change_count = 0
        try:
            with self._transaction():
                self._database._initialize(self._connection)  # makes the tables
                self._find_new_rows()
        except RunDirectoryError:
            self._connection.close()
            raise
        except _UNREADABLE as error:
            self._connection.close()
            raise self._unusable(error) from error

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.requests())

    def add(self, request: str, label: Label, **origin: Unpack[LabelOrigin]) -> None:
        """Append a label; it is on disk when this returns.

        What is None, not finite or absent is left out of the row.

        Args:
            request: Id of the request that asked for it.
            label: The label.
            **origin: Where it came from; see `LabelOrigin`. `source` and `method` must be given.

        Raises:
            ValueError: If the request has a label already or looks like a number, or if energy or forces are
                not finite.
            TypeError: If `source` or `method` is missing, or a key is unknown.
            RunDirectoryError: If the database stays locked, or the disk is full.
        """
        _check_origin(origin)
        if _searchable("request", request) != request:
            msg = f"A request id starts with a letter; {request!r} looks like a number to the database."
            raise ValueError(msg)
        if not (isfinite(label.energy_eV) and np.isfinite(label.forces_eV_per_A).all()):
            msg = f"The label of request {request} has an energy or a force that is not finite."
            raise ValueError(msg)
        pairs, data = _split({"request": request, "structure": label.hash, **_described(label, origin)})
        atoms = label.atoms.copy()
        atoms.calc = SinglePointCalculator(
            atoms, energy=label.energy_eV, forces=label.forces_eV_per_A, stress=label.stress_eV_per_A3
        )
        with self._transaction():
            self._find_new_rows()
            if request in self._rows:
                msg = f"Request {request} has a label already; rows of {self.path.name} are never replaced."
                raise ValueError(msg)
            self._database.write(atoms, key_value_pairs=pairs, data=data)
            self._connection.commit()
            self._find_new_rows()

    def get(self, request: str) -> Label | None:
        """Return the label of `request`, or None if it has none.

        Raises:
            RunDirectoryError: If its row is damaged.
        """
        with self._transaction():
            if request not in self._rows:
                self._find_new_rows()
            if request not in self._rows:
                return None
            return self._read(request)[1]

    def __contains__(self, request: str) -> bool:
        """Whether `request` has a label."""
        with self._transaction():
            if request not in self._rows:
                self._find_new_rows()
            return request in self._rows

    def origins(self) -> list[tuple[str, str, str]]:
        """Return request, hash of the structure and source of every label, in the order they were added.

        Many rows in no time: nothing of the labels themselves is read.
        """
        with self._transaction():
            found = self._connection.execute(
                "SELECT id, key, value FROM text_key_values WHERE key IN ('request', 'structure', 'source')"
            ).fetchall()
        rows: dict[int, dict[str, str]] = {}
        for row, key, value in found:
            rows.setdefault(row, {})[key] = value
        return [
            (row["request"], row.get("structure", ""), row.get("source", ""))
            for _, row in sorted(rows.items())
            if "request" in row
        ]

    def requests(self) -> list[str]:
        """Return all requests that have a label, in the order in which they were added."""
        with self._transaction():
            self._find_new_rows()
            return list(self._rows)

    def read(self, requests: Sequence[str] | None = None) -> list[Label]:
        """Return the labels of `requests` in their order, or all labels in the order they were added.

        Raises:
            KeyError: If a request has no label.
            RunDirectoryError: If its row is damaged.
        """
        with self._transaction():
            self._find_new_rows()
            return [self._read(request)[1] for request in (self._rows if requests is None else requests)]

    def predicted(self, request: str) -> tuple[float | None, Float[np.ndarray, "n_atoms 3"] | None]:
        """Return the energy (eV) and forces (eV/Å) that one model predicted for the label of `request`.

        None stands for what its row does not hold.

        Raises:
            KeyError: If the request has no label.
            RunDirectoryError: If its row is damaged.
        """
        with self._transaction():
            row, label = self._read(request)
        energy, forces = row.data.get("predicted_energy_eV"), row.data.get("predicted_forces")
        return (
            float(energy) if energy is not None and np.ndim(energy) == 0 else None,
            forces if np.shape(forces) == np.shape(label.forces_eV_per_A) else None,
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one dict per label, for reports.

        Each holds `request`, `label`, `n_atoms` and `structure`, and the keys of `LabelOrigin` that apply
        to it; a key that does not apply is absent.
        """
        for request in self.requests():
            with self._transaction():
                row, label = self._read(request)
            yield _described_row(row, label)

    def close(self) -> None:
        """Close the connection; the store is of no use afterwards."""
        with self._lock:
            self._connection.close()

    def _read(self, request: str) -> tuple[AtomsRow, Label]:
        if request not in self._rows:
            msg = f"Request {request} has no label in {self.path}."
            raise KeyError(msg)
        try:
            row = self._database.get(id=self._rows[request])
            return row, _label(row)
        except _UNREADABLE as error:
            msg = f"The label of request {request} in {self.path} is damaged: {_reason(error)}."
            hint = "Take the file from a copy of the run directory."
            raise RunDirectoryError(msg, hint=hint, path=str(self.path)) from error

    def _find_new_rows(self) -> None:
        found = self._connection.execute(
            "SELECT id, value FROM text_key_values WHERE key = 'request' AND id > ? ORDER BY id",
            (self._last_row,),
        )
        for row, request in found:
            self._rows[request] = row
            self._last_row = row

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError, UnicodeError) as error:
                # SQLite quotes what it cannot read in its own message.
                self._connection.rollback()
                raise self._unusable(error) from error
            except BaseException:
                self._connection.rollback()
                raise

    def _unusable(self, error: Exception) -> RunDirectoryError:
        return unusable(self.path, error)


def read_labels(path: Path, *, wait_s: float = 10.0) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of a database as `LabelStore.rows` gives them, and what is wrong with the others.

    For reports: nothing is changed, a campaign may be writing, and a damaged row costs only itself.

    Args:
        path: The database.
        wait_s: How long to wait for another process that holds the database locked.

    Raises:
        RunDirectoryError: If the file is no ASE database or stays locked.
    """
    rows: list[dict[str, Any]] = []
    troubles: list[str] = []
    try:
        with ExitStack() as stack:
            connection = open_to_read(path, wait_s, stack)
            database = SQLite3Database(str(path), use_lock_file=False, serial=True)
            database.connection, database.change_count = connection, 0
            database._initialize(connection)
            # At once: whoever writes waits for milliseconds, not for all that is made of it.
            stored = deque(connection.execute("SELECT * FROM systems ORDER BY id"))
            while stored:
                # One form of each label at a time: ten thousand large cells take half a gigabyte.
                values = stored.popleft()
                try:
                    row = database._convert_tuple_to_row(values)
                    if "request" in row.key_value_pairs:
                        rows.append(_described_row(row, _label(row)))
                except _UNREADABLE as error:
                    troubles.append(f"Row {values[0]} of {path.name} is damaged: {_reason(error)}.")
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise unusable(path, error) from error
    return rows, troubles


def _described_row(row: AtomsRow, label: Label) -> dict[str, Any]:
    data = dict(row.data)
    exact = data.pop("exact", {})
    return {**row.key_value_pairs, **data, **exact, "label": label, "n_atoms": row.natoms}


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _check_origin(origin: LabelOrigin) -> None:
    unknown = origin.keys() - _KEYS
    missing = {"source", "method"} - origin.keys()
    if unknown or missing:
        msg = f"A label's origin lacks {sorted(missing)} and has unknown keys {sorted(unknown)}."
        raise TypeError(msg)


def _described(label: Label, origin: LabelOrigin) -> dict[str, Any]:
    described: dict[str, Any] = {"segment": label.segment or None, "wall_s": label.wall_s}
    described.update({key: value for key, value in origin.items() if value is not None})
    return described


def _split(described: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what ASE can search (key-value pairs) and what it only keeps (data)."""
    pairs: dict[str, Any] = {}
    data: dict[str, Any] = {}
    exact: dict[str, str] = {}
    for key, value in described.items():
        if key in _ARRAYS:
            data[key] = float(value) if np.ndim(value) == 0 else np.asarray(value, dtype=float)
        elif isinstance(value, str):
            pairs[key] = _searchable(key, value)
            if pairs[key] != value:
                exact[key] = value
        elif value is not None and isfinite(value):
            pairs[key] = int(value) if key == "round" else float(value)
    if exact:
        data["exact"] = exact
    return pairs, data


def _searchable(key: str, value: str) -> str:
    """Return `value`, or `<key> <value>` where ASE would refuse it because it looks like a number."""
    try:
        check({key: value})
    except ValueError:
        return f"{key} {value}"
    return value


def _label(row: AtomsRow) -> Label:
    atoms = row.toatoms()
    atoms.calc = None
    stress = row.get("stress")
    exact = row.data.get("exact", {})
    label = Label(
        atoms=atoms,
        energy_eV=float(row["energy"]),
        forces_eV_per_A=np.array(row["forces"]),
        stress_eV_per_A3=None if stress is None else np.array(stress),
        segment=exact.get("segment", row.get("segment", "")),
        wall_s=float(row.get("wall_s", float("nan"))),
    )
    if row.get("structure", label.hash) != label.hash:
        msg = "it holds another structure than it names"
        raise ValueError(msg)
    if not (isfinite(label.energy_eV) and np.isfinite(label.forces_eV_per_A).all()):
        msg = "its energy or a force is not finite"
        raise ValueError(msg)
    return label
