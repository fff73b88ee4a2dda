"""A trajectory that grows while a run of dynamics lasts, and is cut where the run goes on from."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter

from fff.base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from fff.data.records import Frame

__all__ = ["TrajectoryFile"]

_FORMATS = {".traj": "traj", ".xyz": "extxyz", ".extxyz": "extxyz"}


class TrajectoryFile:
    """A file of frames with energy, forces and momenta; see `fff.stages.Growing`.

    ASE's own format, `.traj`, keeps every bit; extended XYZ, `.xyz` or `.extxyz`, eight decimals.

    Args:
        path: The file; its ending says the format.

    Raises:
        ConfigError: If the ending is another one.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in _FORMATS:
            msg = f"`--output {path}` has an ending that says no format."
            hint = f"Give one of {', '.join(_FORMATS)}."
            raise ConfigError(msg, hint=hint, key="--output", value=str(path))
        self.name = path.name
        self.last = 0
        self._path = path
        self._format = _FORMATS[path.suffix]
        self._writer: TrajectoryWriter | None = None

    def open(self, folder: Path, through: int) -> bool:
        """Go on behind frame number `through`; what lies behind it is cut from the file."""
        del folder
        self.close()
        kept = self._cut(through) if self._path.is_file() else 0
        self.last = through
        return kept == through

    def append(self, frame: Frame, told: Mapping[str, Any]) -> None:
        """Add a frame.

        Args:
            frame: The frame.
            told: What its `info` says.
        """
        atoms = frame.atoms.copy()
        atoms.info = dict(told)
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy_eV, forces=frame.forces_eV_per_A)
        if self._format == "traj":
            self._writer = self._writer or TrajectoryWriter(str(self._path), mode="a")
            self._writer.write(atoms)
        else:
            with self._path.open("a", encoding="utf-8") as file:
                ase.io.write(file, atoms, format="extxyz")
        self.last += 1

    def save(self) -> None:
        """Make sure that every frame is on the disk."""
        if self._path.is_file():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Let go of the file; the next frame opens it again."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _cut(self, through: int) -> int:
        """Keep the first frames of the file; return how many there are now."""
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self.name}.", suffix=".part")
        os.close(handle)
        part = Path(name)
        try:
            kept = self._copy(through, part)
            part.chmod(self._path.stat().st_mode)
            if kept:
                part.replace(self._path)
            else:
                self._path.unlink()
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
        return kept

    def _copy(self, through: int, part: Path) -> int:
        if self._format == "traj":
            return _copy_traj(self._path, through, part)
        with self._path.open(encoding="utf-8") as source, part.open("w", encoding="utf-8") as copy:
            for kept in range(through):
                first = source.readline()
                if not first.strip().isdecimal():
                    return kept
                copy.write(first + "".join(source.readline() for _ in range(int(first) + 1)))
        return through


def _copy_traj(path: Path, through: int, part: Path) -> int:
    if not through:
        return 0
    with TrajectoryReader(str(path)) as reader, TrajectoryWriter(str(part), mode="w") as writer:
        kept = min(through, len(reader))
        for i in range(kept):
            atoms: Atoms = reader[i]
            writer.write(atoms)
    return kept
