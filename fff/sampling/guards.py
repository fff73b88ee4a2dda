"""Guards against unphysical structures: what a run must never hand on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from scipy.spatial.distance import pdist

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float

__all__ = ["DistanceGuard", "Guards", "Violation"]

Violation = Literal["temperature", "force", "distance", "non-finite"]

# Above this many atoms a neighbour list is quicker than all pairs.
_MAX_DENSE_ATOMS = 500
# Part of its distance at the start to which a pair that was too close then may come.
_ALLOWED_APPROACH = 0.9


class DistanceGuard:
    """Finds pairs that are too close, except those that already were in the structure it starts with.

    Too close is less than `factor` times the sum of the covalent radii (Cordero et al., Dalton Trans. 2008,
    2832, doi:10.1039/b801115j). A pair that a user's structure has that short is meant to be so, but may
    come only a tenth closer.

    Args:
        start: The structure whose short pairs are allowed.
        factor: Part of the sum of the covalent radii.
    """

    def __init__(self, start: Atoms, factor: float) -> None:
        self._radii = covalent_radii[start.numbers]
        self._factor = factor
        self._reach_A = 2.0 * factor * float(self._radii.max(initial=0.0))
        self._rows, self._columns = np.triu_indices(len(start) if len(start) <= _MAX_DENSE_ATOMS else 0, k=1)
        self._limits_A = factor * (self._radii[self._rows] + self._radii[self._columns])
        self._allowed, distances = self._close_pairs(start)
        self._allowed_limits_A = _ALLOWED_APPROACH * distances

    def __call__(self, atoms: Atoms) -> bool:
        """Whether a pair has come too close; positions must be finite."""
        close, distances = self._close_pairs(atoms)
        if close.size == 0:
            return False
        place = np.searchsorted(self._allowed, close)
        place[place == self._allowed.size] = 0
        is_allowed = self._allowed[place] == close if self._allowed.size else np.zeros(close.size, dtype=bool)
        if not is_allowed.all():
            return True
        return bool((distances < self._allowed_limits_A[place]).any())

    def _close_pairs(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Pairs closer than their limit: codes `i * n_atoms + j`, i <= j, ascending, and distances (Å)."""
        n_atoms = len(atoms)
        dense = self._dense_distances(atoms) if n_atoms <= _MAX_DENSE_ATOMS else None
        if dense is not None:
            close = dense < self._limits_A
            return self._rows[close] * n_atoms + self._columns[close], dense[close]
        i, j, distances = neighbor_list("ijd", atoms, self._reach_A)
        close = (i <= j) & (distances < self._factor * (self._radii[i] + self._radii[j]))
        codes, which = np.unique(i[close] * n_atoms + j[close], return_inverse=True)
        # A pair can be close through several images.
        least = np.full(codes.size, np.inf)
        np.minimum.at(least, which, distances[close])
        return codes, least

    def _dense_distances(self, atoms: Atoms) -> Float[np.ndarray, " n_pairs"] | None:
        """All distances up to the reach (longer ones may be too long); None where that takes a list."""
        if not atoms.pbc.any():
            return np.asarray(pdist(atoms.positions))
        cell = atoms.cell.complete().array
        inverse = np.linalg.inv(cell)
        heights = 1.0 / np.linalg.norm(inverse, axis=0)
        # A vector shorter than half of every height has no fractional coordinate beyond one half, so rounding
        # finds it in a cell of any shape. In narrower cells a pair can be close through several images.
        if heights[atoms.pbc].min() < 2.0 * self._reach_A:
            return None
        fractional = (atoms.positions[self._rows] - atoms.positions[self._columns]) @ inverse
        fractional -= np.rint(fractional) * atoms.pbc
        vectors = fractional @ cell
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)))


class Guards:
    """The limits of one run.

    Args:
        start: The frame the run starts from, with momenta: pairs that are short in it may stay so, and a
            trajectory that comes from a hotter run is given the time to cool.
        temperature_K: Target temperature T of the run.
        max_temperature_factor: Temperatures above this times T, plus three standard deviations of the
            canonical distribution (T times sqrt(2 / degrees of freedom)), are unphysical; without the second
            part three atoms at rest would break the rule by chance.
        max_force_eV_per_A: Longest force on an atom.
        min_distance_factor: Shortest distance as part of the sum of the covalent radii.
    """

    def __init__(
        self,
        start: Atoms,
        *,
        temperature_K: float,
        max_temperature_factor: float,
        max_force_eV_per_A: float,
        min_distance_factor: float,
    ) -> None:
        freedom = max(start.get_number_of_degrees_of_freedom(), 1)
        limit = max(max_temperature_factor * temperature_K, start.get_temperature())
        self.max_temperature_K = limit + 3.0 * temperature_K * math.sqrt(2.0 / freedom)
        self._max_force_squared = max_force_eV_per_A**2
        self._too_close = DistanceGuard(start, min_distance_factor)

    def check_forces(self, energy_eV: float, forces: Float[np.ndarray, "n_atoms 3"]) -> Violation | None:
        """Return what is wrong with an evaluation; cheap enough for every step."""
        # If all forces together are below the limit each of them is: true nearly always, and one call.
        if np.vdot(forces, forces) <= self._max_force_squared and math.isfinite(energy_eV):
            return None
        longest = float(np.einsum("ij,ij->i", forces, forces).max())
        if longest <= self._max_force_squared and math.isfinite(energy_eV):
            return None
        return "force" if math.isfinite(longest) and math.isfinite(energy_eV) else "non-finite"

    def check_structure(self, atoms: Atoms) -> Violation | None:
        """Return what is wrong with positions, cell or momenta."""
        temperature = atoms.get_temperature()
        finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
        if not (finite and math.isfinite(temperature)):
            return "non-finite"
        if temperature > self.max_temperature_K:
            return "temperature"
        return "distance" if self._too_close(atoms) else None
