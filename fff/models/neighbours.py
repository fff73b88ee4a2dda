"""Pairs of atoms within a cutoff, isolated or periodic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import vesin

from fff.base.errors import StructureError

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float, Int

__all__ = ["Pairs", "find_pairs"]


@dataclass(frozen=True)
class Pairs:
    """All ordered pairs of a structure, each pair of atoms in both directions, sorted by the first.

    Attributes:
        first: Index of the atom that sees.
        second: Index of the atom that is seen.
        shift_A: What is added to the second atom's position to reach the image that is meant.
    """

    first: Int[np.ndarray, " n_pairs"]
    second: Int[np.ndarray, " n_pairs"]
    shift_A: Float[np.ndarray, "n_pairs 3"]

    def vectors(self, positions_A: Float[np.ndarray, "n_atoms 3"]) -> Float[np.ndarray, "n_pairs 3"]:
        """Return the vectors in Å from first to second atom of each pair."""
        vectors: np.ndarray = positions_A[self.second] - positions_A[self.first] + self.shift_A
        return vectors


def find_pairs(atoms: Atoms, cutoff_A: float) -> Pairs:
    """Return all pairs of `atoms` closer than `cutoff_A`, images of an atom itself included.

    Raises:
        StructureError: If a position or the cell is not finite, or the cell cannot be repeated.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        msg = f"The positions or the cell of {atoms.symbols} are not finite."
        raise StructureError(msg, hint="Take the structure out.")
    if atoms.pbc.any() and np.linalg.matrix_rank(atoms.cell.array[atoms.pbc]) < atoms.pbc.sum():
        msg = f"{atoms.symbols} is periodic along a cell vector that is zero or lies along another."
        raise StructureError(msg, hint="Set its cell, or pbc to false.")
    # One thread: workers share the cores, and vesin would start one for each core.
    finder = vesin.NeighborList(cutoff=cutoff_A, full_list=True, sorted=True, n_threads=1)
    cell = atoms.cell.array
    first, second, images = finder.compute(
        points=atoms.positions, box=cell, periodic=atoms.pbc, quantities="ijS"
    )
    return Pairs(
        first=first.astype(np.int64),
        second=second.astype(np.int64),
        shift_A=images.astype(float) @ cell,
    )
