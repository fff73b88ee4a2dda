"""Structures that need no file: `molecule:CH3CH2OH`, `s22:Water_dimer`, `cluster:H2O:3..6`, `bulk:Cu`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import ase.build
import numpy as np
from ase.build.molecule import extra
from ase.collections import g2, s22
from ase.data import atomic_numbers, covalent_radii, vdw_radii
from ase.formula import Formula

from fff.base.draws import seed_for
from fff.base.errors import StructureError
from fff.config import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ase import Atoms
    from jaxtyping import Float

__all__ = ["KINDS", "build_named", "pack_cluster"]

_CONTACT = 0.7
"""Least distance between atoms of two molecules, as a part of the sum of their van der Waals radii.

Hydrogen bonds are the shortest contacts of a liquid: O-H in water is 1.9 Å, 0.70 of 1.52 Å + 1.20 Å.
"""
_ATTEMPTS = 200
_GROWTH = 1.03
_MAX_MOLECULES = 1000
_MAX_ATOMS = 20_000
_CELLS = re.compile(r"(\d{1,3})x(\d{1,3})x(\d{1,3})")
_COUNT = re.compile(r"(\d{1,4})(?:\.\.(\d{1,4}))?")


def build_named(source: str, *, relax: Callable[[Atoms], Atoms], seed: int) -> list[Atoms]:
    """Return the structures that a name such as `cluster:H2O:3..6` stands for.

    Args:
        source: Kind and name, with a colon between.
        relax: Moves the atoms of a packed cluster to a minimum nearby; other kinds are taken as they are.
        seed: Clusters are packed at random; one seed and source give one packing.

    Raises:
        StructureError: If there is no such kind or name.
    """
    kind, _, name = source.partition(":")
    if kind not in _BUILDERS:
        found = nearest(kind, _BUILDERS)
        hint = (
            f"Did you mean `{found}:{name}`?" if found else f"There are {', '.join(f'{k}:' for k in KINDS)}."
        )
        raise _error(source, f"there is no kind `{kind}:` of named structures, and no such file", hint)
    return _BUILDERS[kind](source, name, relax, seed)


def pack_cluster(monomer: Atoms, n: int, rng: np.random.Generator) -> Atoms:
    """Return `n` randomly turned copies of a molecule in a sphere about as dense as a liquid.

    The sphere holds the van der Waals volume of all atoms: in molecular liquids overlap and gaps about
    cancel (29 Å³ for water, measured 30; 99 Å³ for ethanol, measured 97). It grows by 3 % whenever a
    molecule finds no place without a clash.

    Args:
        monomer: The molecule.
        n: How many.
        rng: Source of the positions and rotations.
    """
    radii = _radii(monomer)
    radius = (n * float(np.sum(radii**3))) ** (1 / 3)
    centred = monomer.positions - monomer.get_center_of_mass()
    positions = np.empty((0, 3))
    for i in range(n):
        placed = None
        while placed is None:
            placed = _place(centred, positions, (np.tile(radii, i), radii), radius, rng)
            radius *= 1.0 if placed is not None else _GROWTH
        positions = np.concatenate([positions, placed])
    cluster = monomer * (1, 1, 1)
    for _ in range(n - 1):
        cluster += monomer
    cluster.positions = positions
    return cluster


def _place(
    molecule: Float[np.ndarray, "n 3"],
    others: Float[np.ndarray, "m 3"],
    radii: tuple[Float[np.ndarray, " m"], Float[np.ndarray, " n"]],
    sphere: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n 3"] | None:
    """Return positions (Å) of one more molecule that touches none, or None after many attempts."""
    least = _CONTACT * (radii[0][:, None] + radii[1][None, :])
    for _ in range(_ATTEMPTS):
        direction = rng.normal(size=3)
        centre = sphere * rng.random() ** (1 / 3) * direction / np.linalg.norm(direction)
        placed = molecule @ _rotation(rng).T + centre
        distances = np.linalg.norm(others[:, None, :] - placed[None, :, :], axis=-1)
        if np.all(distances >= least):
            return placed
    return None


def _rotation(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """Return a rotation drawn evenly from all rotations.

    Source: a normalised vector of four normal numbers is an evenly drawn unit quaternion, Marsaglia,
    Ann. Math. Stat. 43, 645 (1972), doi:10.1214/aoms/1177692644.
    """
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _radii(atoms: Atoms) -> Float[np.ndarray, " n"]:
    """Return van der Waals radii (Å); where none is known, covalent radius + 0.8 Å, which is close."""
    known = vdw_radii[atoms.numbers]
    return np.where(np.isnan(known), covalent_radii[atoms.numbers] + 0.8, known)


def _molecule(source: str, name: str, _relax: Callable[[Atoms], Atoms], _seed: int) -> list[Atoms]:
    return [_find_molecule(source, name)]


def _find_molecule(source: str, name: str) -> Atoms:
    names = [*g2.names, *extra]
    if name in names:
        return ase.build.molecule(name)
    raise _error(source, f"ASE knows no molecule `{name}`", _suggest_molecule(name, names))


def _suggest_molecule(name: str, names: Iterable[str]) -> str:
    known = list(names)
    same = _same_composition(name, known)
    if same:
        return f"Of this composition there {'is' if len(same) == 1 else 'are'} {', '.join(same)}."
    found = nearest(name, known)
    near = f"Did you mean `{found}`? " if found else ""
    return f"{near}The names are those of ase.build.molecule; any other molecule can come from a file."


def _same_composition(name: str, names: Iterable[str]) -> list[str]:
    try:
        wanted = Formula(name).count()
    except ValueError:
        return []
    return [known for known in names if _count(known) == wanted]


def _count(name: str) -> dict[str, int]:
    # Names carry marks of isomers and states (`C4H4NH`, `si2H6`, `CH2_s1A1d`): the atoms decide.
    return dict(ase.build.molecule(name).symbols.formula.count())


def _s22(source: str, name: str, _relax: Callable[[Atoms], Atoms], _seed: int) -> list[Atoms]:
    if name in s22.names:
        return [s22[name]]
    found = nearest(name, s22.names)
    near = f"Did you mean `{found}`? " if found else ""
    raise _error(source, f"the S22 set holds no `{name}`", f"{near}It holds {', '.join(s22.names)}.")


def _cluster(source: str, name: str, relax: Callable[[Atoms], Atoms], seed: int) -> list[Atoms]:
    formula, _, count = name.partition(":")
    found = _COUNT.fullmatch(count)
    if not found:
        hint = "Write cluster:FORMULA:N or cluster:FORMULA:N..M, for example `cluster:H2O:6`."
        raise _error(source, f"`{count}` is no number of molecules", hint)
    first = int(found.group(1))
    last = int(found.group(2) or first)
    if not 1 <= first <= last <= _MAX_MOLECULES:
        hint = f"Give 1 to {_MAX_MOLECULES} molecules, the smaller number first."
        raise _error(source, f"`{count}` is no number of molecules", hint)
    monomer = _find_molecule(source, formula)
    if (n_atoms := len(monomer) * (last - first + 1) * (first + last) // 2) > _MAX_ATOMS:
        raise _error(source, f"it would hold {n_atoms} atoms", f"Ask for at most {_MAX_ATOMS} atoms.")
    clusters = []
    for n in range(first, last + 1):
        rng = np.random.default_rng(seed_for(seed, "cluster", formula, n))
        clusters.append(relax(pack_cluster(monomer, n, rng)))
    return clusters


def _bulk(source: str, name: str, _relax: Callable[[Atoms], Atoms], _seed: int) -> list[Atoms]:
    element, colon, text = name.partition(":")
    cells = _CELLS.fullmatch(text) if colon else _CELLS.fullmatch("2x2x2")
    repeats = tuple(int(x) for x in cells.groups()) if cells else ()
    if not repeats or min(repeats) < 1:
        hint = "Write bulk:ELEMENT or bulk:ELEMENT:AxBxC, for example `bulk:Cu:3x3x3`."
        raise _error(source, f"`{text}` is no number of cells", hint)
    cell = _unit_cell(source, element)
    if (n_atoms := len(cell) * int(np.prod(repeats))) > _MAX_ATOMS:
        raise _error(source, f"it would hold {n_atoms} atoms", f"Ask for at most {_MAX_ATOMS} atoms.")
    return [cell * repeats]


def _unit_cell(source: str, element: str) -> Atoms:
    """Return the crystal of an element, by a right-angled cell where there is one."""
    if element not in atomic_numbers or element == "X":
        found = nearest(element, atomic_numbers)
        hint = f"Did you mean `bulk:{found}`? " if found else ""
        raise _error(source, f"`{element}` is no element", f"{hint}Compounds can come from a file.")
    for cubic, orthorhombic in ((True, False), (False, True), (False, False)):
        try:
            return ase.build.bulk(element, cubic=cubic, orthorhombic=orthorhombic)
        except (ValueError, RuntimeError, KeyError):
            continue
    raise _error(source, f"ASE knows no simple crystal of {element}", "Give the crystal in a file.")


def _error(source: str, what: str, hint: str) -> StructureError:
    return StructureError(f"Structure `{source}`: {what}.", hint=hint, source=source)


_BUILDERS: dict[str, Callable[[str, str, Callable[[Atoms], Atoms], int], list[Atoms]]] = {
    "molecule": _molecule,
    "s22": _s22,
    "cluster": _cluster,
    "bulk": _bulk,
}
KINDS = tuple(_BUILDERS)
"""The words before the colon that name a structure instead of a file."""
