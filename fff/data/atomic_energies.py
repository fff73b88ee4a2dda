"""Energies of atoms that add up to total energies as well as composition alone can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms
    from jaxtyping import Float

__all__ = ["fit_atomic_energies", "sum_atomic_energies"]


def fit_atomic_energies(
    structures: Sequence[Atoms], energies_eV: Float[np.ndarray, " n_structures"]
) -> dict[int, float]:
    """Return an energy in eV for each element so that their sums come closest to total energies.

    The minimum-norm least-squares solution: where compositions do not tell elements apart (all structures
    are ethanol) the energy is shared in a way that depends on nothing but the energies.
    """
    elements = sorted({int(z) for atoms in structures for z in atoms.numbers})
    counts = np.array([[(atoms.numbers == z).sum() for z in elements] for atoms in structures], dtype=float)
    # Rows divided by the number of atoms: an error of 1 meV per atom counts alike in small and large ones.
    sizes = counts.sum(axis=1, keepdims=True)
    solution = np.linalg.lstsq(counts / sizes, energies_eV / sizes[:, 0], rcond=None)[0]
    return {z: float(energy) for z, energy in zip(elements, solution, strict=True)}


def sum_atomic_energies(
    structures: Sequence[Atoms], energies_eV: Mapping[int, float]
) -> Float[np.ndarray, " n_structures"]:
    """Return the sum over atoms of the energies of their elements, in eV and in double precision."""
    table = np.zeros(max(energies_eV, default=0) + 1)
    for number, energy in energies_eV.items():
        table[number] = energy
    return np.array([table[atoms.numbers].sum() for atoms in structures], dtype=float)
