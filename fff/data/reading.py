"""Reads structures and labels from files of the formats that chemistry uses, and from ASE databases.

Files may come from anybody. The formats are those whose readers in ASE 3.29 were read for this: they take in
numbers and text, and start no program, connect to no server, unpickle and evaluate nothing.
"""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase import Atoms
from ase.db.jsondb import JSONDatabase
from ase.db.sqlite import SQLite3Database
from ase.io.formats import UnknownFileTypeError, filetype, ioformats, string2index
from ase.stress import full_3x3_to_voigt_6_stress

from fff.base.errors import InputFileError, StructureError
from fff.config import nearest
from fff.data.records import Label
from fff.data.sqlite import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ase.db.row import AtomsRow

__all__ = ["FORMATS", "bare", "load_labels", "read_frames", "read_labels", "split_index"]

# fmt: off
FORMATS = frozenset({
    "abinit-in", "abinit-out", "aims", "aims-output", "castep-castep", "castep-geom", "castep-md",
    "castep-phonon", "cfg", "cif", "cjson", "cp2k-dcd", "cp2k-restart", "crystal", "cube", "db", "dftb",
    "dlp-history", "dlp4", "dmol-arc", "dmol-car", "elk", "eon", "espresso-in", "espresso-out", "extxyz",
    "gamess-us-out", "gamess-us-punch", "gaussian-in", "gaussian-out", "gen", "gpaw-out", "gpumd", "gromacs",
    "gromos", "json", "lammps-data", "lammps-dump-binary", "lammps-dump-text", "magres", "mol",
    "netcdftrajectory", "nwchem-in", "nwchem-out", "onetep-out", "orca-output", "proteindatabank", "qbox",
    "res", "rmc6f", "runnerdata", "sdf", "siesta-xv", "struct", "traj", "turbomole", "turbomole-gradient",
    "v-sim", "vasp", "vasp-out", "vasp-xdatcar", "vasp-xml", "wout", "xsd", "xsf", "xyz",
})
# fmt: on
"""ASE's names of the formats that are read.

ASE has readers of others. `castep-cell` starts the program CASTEP, `octopus-in` reads any file that it names,
`mysql` and `postgresql` connect to servers, plug-ins do what they like; the rest is hardly used.
"""

_INDEX = re.compile(r"-?\d+|(-?\d*):(-?\d*)(:(-?\d*))?")
_WIDE = re.compile(rb":[A-Za-z]:\d{5}")
_LOCKED_S = 20.0
_SEGMENT_LENGTH = 10
_SEGMENT_KEYS = ("segment", "trajectory")


def split_index(source: str) -> tuple[Path, str]:
    """Return the path and the ASE index of `path@index`; all frames, `:`, where there is no index."""
    path, at, index = source.rpartition("@")
    if at and path and _INDEX.fullmatch(index) and not Path(source).exists():
        return Path(path), index
    return Path(source), ":"


def read_frames(source: str) -> list[Atoms]:
    """Return the structures of a file, as ASE reads them, with their calculators' results.

    Rows of an ASE database keep their key-value pairs in `info`.

    Args:
        source: Path, with an ASE index behind `@` where not all frames are meant.

    Raises:
        InputFileError: If the file is missing, empty, of no format that is read, or damaged.
        StructureError: If the index is out of range.
    """
    path, index = split_index(source)
    frames = _read_all(path)
    if not frames:
        msg = f"The file {path} holds no structure."
        hint = "Give a file with at least one structure."
        raise InputFileError(msg, hint=hint, path=str(path), no_structures=True)
    try:
        wanted = string2index(index)
        chosen = frames[wanted] if isinstance(wanted, slice) else [frames[int(wanted)]]
    except (IndexError, ValueError):
        # None of that number, or every zeroth of them.
        chosen = []
    if not chosen:
        msg = f"`{source}` asks for frames that are not there: the file holds {len(frames)}."
        hint = f"Frames are counted from 0 to {len(frames) - 1}."
        raise StructureError(msg, hint=hint, source=source)
    return chosen


def _read_all(path: Path) -> list[Atoms]:
    _check_readable(path)
    try:
        # Absolute: a name that begins with `mysql` would be the address of a server to ASE.
        name = _format(path.absolute())
        if name == "db":
            return _read_sqlite(path)
        if name == "json":
            return _of_rows(JSONDatabase(str(path.absolute()), use_lock_file=False, serial=True).select())
        if name in {"xyz", "extxyz"}:
            _check_xyz(path)
        # ASE reads `name@text` as an index; a path object it takes literally only if this is off.
        frames = ase.io.read(path, index=":", format=name, do_not_split_by_at_sign=True)
    except InputFileError:
        raise
    except UnknownFileTypeError:
        msg = f"The file {path} is of no type that ASE reads."
        hint = "Give for example extended XYZ, CIF, POSCAR or an ASE database."
        raise InputFileError(msg, hint=hint, path=str(path), no_structures=True) from None
    except KeyError as error:
        msg = f"The file {path} holds {error}, which is no element."
        raise InputFileError(msg, hint="Check the element symbols.", path=str(path)) from None
    except Exception as error:  # noqa: BLE001 - ASE's readers raise whatever their parsers stumble over
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        msg = f"The file {path} cannot be read: {reason}."
        raise InputFileError(msg, hint="Check that it is complete and of one type.", path=str(path)) from None
    return [frames] if isinstance(frames, Atoms) else list(frames)


def _format(path: Path) -> str:
    """Return ASE's name of a file's format, by its name and content.

    Raises:
        UnknownFileTypeError: If ASE has no reader of it.
        InputFileError: If ASE has one that is not used here.
    """
    name = filetype(str(path))
    if name in FORMATS:
        return name
    if name not in ioformats or not ioformats[name].can_read:
        raise UnknownFileTypeError(name)
    msg = (
        f"The file {path} has the format {name}, which fff does not read: its reader does more than to read."
    )
    hint = f"If you trust the file, convert it: ase convert -i {name} {path.name} {path.stem}.extxyz"
    raise InputFileError(msg, hint=hint, path=str(path))


def _check_readable(path: Path) -> None:
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        found = nearest(path.name, siblings)
        hint = f"Did you mean {path.parent / found}?" if found else "Check the path."
        msg = f"There is no file {path}."
        raise InputFileError(msg, hint=hint, path=str(path))
    if path.is_dir():
        msg = f"{path} is a folder, not a file."
        raise InputFileError(msg, hint="Name a file in it.", path=str(path))
    if not path.is_file():
        # A pipe would be waited for, and a device never ends.
        msg = f"{path} is no regular file."
        raise InputFileError(msg, hint="Give a file.", path=str(path))
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        msg = f"The file {path} cannot be read: {error.strerror or error}."
        raise InputFileError(msg, hint="Check its permissions.", path=str(path)) from None
    if empty:
        msg = f"The file {path} is empty."
        hint = "Give a file with at least one structure."
        raise InputFileError(msg, hint=hint, path=str(path), no_structures=True)


def _check_xyz(path: Path) -> None:
    """Refuse counts that no file of this size can hold: ASE would count to them, line by line.

    Raises:
        InputFileError: If there is such a count.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for line in file:
            try:
                n_atoms = int(line)
            except ValueError:
                return  # none of atoms: ASE says what it is
            comment = file.readline()
            if n_atoms > size or _WIDE.search(comment):
                msg = f"The file {path} announces more numbers than it holds."
                raise InputFileError(msg, hint="Check that it is complete and of one type.", path=str(path))
            for _ in range(n_atoms):
                file.readline()


def _read_sqlite(path: Path) -> list[Atoms]:
    with closing(connect(path, wait_s=_LOCKED_S, read_only=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        if ("systems",) not in tables:
            msg = f"The file {path} is an SQLite database, but none of ASE."
            raise InputFileError(msg, hint="Give a database that ASE wrote.", path=str(path))
        # Its lock file survives a killed writer, and reading would wait for it for ever.
        database = SQLite3Database(str(path), use_lock_file=False, serial=True)
        database.connection, database.change_count = connection, 0
        return _of_rows(database.select())


def _of_rows(rows: Iterable[AtomsRow]) -> list[Atoms]:
    frames = []
    for row in rows:
        atoms = row.toatoms()
        atoms.info = dict(row.key_value_pairs)
        frames.append(atoms)
    return frames


def load_labels(sources: Sequence[str]) -> list[Label]:
    """Return the structures with energies and forces of some files, constraints and momenta left out.

    Labels that carry a `segment` or `trajectory` (in the file's info or the database's keys) belong to
    that segment; of the others every ten that follow each other make one.

    Args:
        sources: Paths, with an ASE index behind `@` where not all frames are meant.

    Raises:
        InputFileError: If a file is missing or unreadable.
        StructureError: If a structure has no energy or forces, or numbers that are not finite.
    """
    return [label for source in sources for label, _ in read_labels(source)]


def read_labels(source: str) -> list[tuple[Label, dict[str, Any]]]:
    """Return the labels of one file as `load_labels` does, each with what the file says besides.

    Args:
        source: Path, with an ASE index behind `@` where not all frames are meant.

    Raises:
        InputFileError: If the file is missing or unreadable.
        StructureError: If a structure has no energy or forces, or numbers that are not finite.
    """
    stem = split_index(source)[0].stem
    return [
        (_label(atoms, f"Structure {i} of {source}", _segment(atoms, stem, i)), dict(atoms.info))
        for i, atoms in enumerate(read_frames(source))
    ]


def _segment(atoms: Atoms, stem: str, index: int) -> str:
    for key in _SEGMENT_KEYS:
        if key in atoms.info:
            return str(atoms.info[key])
    return f"{stem}-{index // _SEGMENT_LENGTH}"


def _label(atoms: Atoms, where: str, segment: str) -> Label:
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    # Forces belong to the free energy where electrons are smeared.
    energy_key = "free_energy" if results.get("free_energy") is not None else "energy"
    absent = [key for key in (energy_key, "forces") if results.get(key) is None]
    if absent:
        present = sorted({*results, *atoms.info, *atoms.arrays} - {"numbers", "positions"})
        msg = f"{where} has no {' and no '.join(absent)}."
        hint = (
            "Labels need `energy` (eV) and `forces` (eV/Å) under these names"
            f"{'; it has ' + ', '.join(present) if present else ''}."
        )
        raise StructureError(msg, hint=hint)
    try:
        energy = float(results[energy_key])
        forces = np.asarray(results["forces"], dtype=float)
    except (TypeError, ValueError):
        msg = f"{where} has an energy or forces that are no numbers."
        raise StructureError(msg, hint="Check the columns and their names.") from None
    if forces.shape != (len(atoms), 3):
        msg = f"{where} has forces of shape {forces.shape}, where its {len(atoms)} atoms need three each."
        raise StructureError(msg, hint="Check the columns and their names.")
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        msg = f"{where} has an energy or a force that is not a finite number."
        raise StructureError(msg, hint="Remove it: calculations that failed are no labels.")
    return Label(
        atoms=bare(atoms),
        energy_eV=energy,
        forces_eV_per_A=forces,
        stress_eV_per_A3=_stress(results),
        segment=segment,
    )


def _stress(results: dict[str, Any]) -> np.ndarray | None:
    if results.get("stress") is None:
        return None
    stress = np.asarray(results["stress"], dtype=float)
    voigt = full_3x3_to_voigt_6_stress(stress) if stress.size == 9 else stress
    return voigt if np.isfinite(voigt).all() else None


def bare(atoms: Atoms) -> Atoms:
    """Return elements, positions, cell and periodicity alone: no momenta, constraints or results."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
