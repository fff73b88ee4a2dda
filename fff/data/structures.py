"""Start structures: from files, folders and names, and whether they can be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list

from fff.base.errors import ConfigError, InputFileError, StructureError
from fff.config import PyscfReference, XtbReference
from fff.data.electrons import LAST_XTB_ELEMENT, find_spin_problem
from fff.data.named import KINDS, build_named
from fff.data.reading import bare, load_labels, read_frames, split_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    from fff.config import AseReference

__all__ = ["check_structures", "load_labels", "load_structures", "source_files"]

_LEAST_DISTANCE_A = 0.4


def load_structures(sources: Sequence[str], *, relax: Callable[[Atoms], Atoms], seed: int) -> list[Atoms]:
    """Return the structures that the sources stand for, each with its source in `info["source"]`.

    Momenta, constraints and results are left out: dynamics draws its own momenta, and moves every atom.

    Args:
        sources: Files (with an ASE index behind `@`), folders, or names such as `cluster:H2O:6`.
        relax: Moves the atoms of a packed cluster to a minimum nearby.
        seed: Of the packing of clusters.

    Raises:
        InputFileError: If a file or folder is missing, unreadable or without structures.
        StructureError: If a name or an index is unknown.
    """
    structures = []
    for source in sources:
        for i, atoms in enumerate(_load(source, relax, seed)):
            clean = bare(atoms)
            clean.info["source"] = f"{source} ({i})" if i else source
            structures.append(clean)
    return structures


def _load(source: str, relax: Callable[[Atoms], Atoms], seed: int) -> list[Atoms]:
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    is_name = ":" in source and not path.is_absolute() and not split_index(source)[0].exists()
    if source.partition(":")[0] in KINDS or is_name:
        return build_named(source, relax=relax, seed=seed)
    return read_frames(source)


def _read_folder(path: Path) -> list[Atoms]:
    structures: list[Atoms] = []
    for file in _files(path):
        try:
            structures += read_frames(str(file))
        except InputFileError as error:
            # A folder may hold notes and tables beside its structures.
            if "no_structures" not in error.context:
                raise
    if not structures:
        msg = f"The folder {path} holds no file with a structure that ASE reads."
        raise InputFileError(msg, hint="Name a folder of structure files, or a file.", path=str(path))
    return structures


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def source_files(sources: Sequence[str]) -> list[Path]:
    """Return the files that the sources read, folders opened; names of structures read none."""
    files = []
    for source in sources:
        path = split_index(source)[0]
        if path.is_dir():
            files += _files(path)
        elif path.is_file():
            files.append(path)
    return list(dict.fromkeys(files))


def check_structures(
    structures: Sequence[Atoms],
    reference: XtbReference | PyscfReference | AseReference,
    *,
    thermostat: str = "langevin",
) -> None:
    """Check that every structure can be sampled and calculated.

    Args:
        structures: The structures; `info["source"]` names one in errors.
        reference: The section of the config.
        thermostat: `sampling.thermostat`; npt needs periodic structures.

    Raises:
        StructureError: If there is none, or one is empty, has unknown elements, no volume, atoms on top
            of each other or elements that the method lacks.
        ConfigError: If charge and multiplicity cannot be, or the method or thermostat needs another
            periodicity.
    """
    if not structures:
        msg = "`structures` is empty: there is nothing to sample."
        raise StructureError(msg, hint="Give at least one structure, for example `molecule:CH3CH2OH`.")
    for i, atoms in enumerate(structures):
        name = f"Structure {atoms.info.get('source', i)} ({atoms.get_chemical_formula()})"
        _check_geometry(atoms, name)
        _check_elements(atoms, name, reference)
        _check_periodicity(atoms, name, reference, thermostat)
        _check_spin(atoms, name, reference)


def _check_geometry(atoms: Atoms, name: str) -> None:
    if len(atoms) == 0:
        msg = f"{name} has no atoms."
        raise StructureError(msg, hint="Remove it.")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        msg = f"{name} has positions or a cell that are not finite numbers."
        raise StructureError(msg, hint="Check the file.")
    if (atoms.pbc & (atoms.cell.lengths() == 0)).any() or (atoms.pbc.all() and atoms.cell.volume < 1e-3):
        msg = f"{name} is periodic, but its cell has no volume."
        raise StructureError(msg, hint="Give a cell, or make it non-periodic.")
    first, second, distances = neighbor_list("ijd", atoms, _LEAST_DISTANCE_A)
    if len(distances):
        k = int(np.argmin(distances))
        msg = (
            f"{name}: atoms {first[k]} and {second[k]} are {distances[k]:.2f} Å apart; "
            f"the least is {_LEAST_DISTANCE_A} Å."
        )
        raise StructureError(msg, hint="Repair the structure; are its positions in Å, and its cell right?")


def _check_elements(atoms: Atoms, name: str, reference: XtbReference | PyscfReference | AseReference) -> None:
    numbers = sorted({int(z) for z in atoms.numbers})
    if numbers[0] < 1 or numbers[-1] >= len(chemical_symbols):
        msg = f"{name} holds atoms of no element (X)."
        raise StructureError(msg, hint="Replace the dummy atoms by real ones, or remove them.")
    if isinstance(reference, XtbReference) and numbers[-1] > LAST_XTB_ELEMENT:
        lacking = ", ".join(chemical_symbols[z] for z in numbers if z > LAST_XTB_ELEMENT)
        msg = f"{name} holds {lacking}, which {reference.method} does not treat."
        raise StructureError(msg, hint="Choose another `reference.kind`, or another structure.")


def _check_periodicity(
    atoms: Atoms, name: str, reference: XtbReference | PyscfReference | AseReference, thermostat: str
) -> None:
    if thermostat == "npt" and not atoms.pbc.all():
        msg = f"`sampling.thermostat` is npt, but {name} is not periodic in all directions."
        hint = "Set `sampling.thermostat: langevin`, or give periodic structures."
        raise ConfigError(msg, hint=hint, key="sampling.thermostat", value=thermostat)
    if isinstance(reference, PyscfReference) and atoms.pbc.any():
        msg = f"`reference.kind` is pyscf, which treats isolated structures, but {name} is periodic."
        hint = "Set `reference.kind: xtb` or another method for periodic structures."
        raise ConfigError(msg, hint=hint, key="reference.kind", value=reference.kind)


def _check_spin(atoms: Atoms, name: str, reference: XtbReference | PyscfReference | AseReference) -> None:
    if not isinstance(reference, XtbReference | PyscfReference):
        return
    if problem := find_spin_problem(atoms, name, reference):
        raise ConfigError(problem.message, hint=problem.hint, key=problem.key, value=problem.value)
