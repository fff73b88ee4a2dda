"""Atomic reference energies: what is taken out of total energies before a network learns the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fff.base.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms
    from jaxtyping import Float

    from fff.data.records import Label
    from fff.models.protocol import ForceField

__all__ = ["fit_reference_energies", "refit_reference_energies", "sum_reference_energies"]


def fit_reference_energies(labels: Sequence[Label]) -> dict[int, float]:
    """Return an energy in eV for each element so that their sums come closest to the labels' energies.

    The minimum-norm least-squares solution: where compositions do not tell elements apart (all labels are
    ethanol) the energy is shared in a way that depends on nothing but the labels.

    Raises:
        TrainingError: If there are no labels.
    """
    if not labels:
        msg = "Atomic reference energies need at least one label; there are none."
        raise TrainingError(msg)
    energies = np.array([label.energy_eV for label in labels])
    return _least_squares([label.atoms for label in labels], energies)


def refit_reference_energies(force_field: ForceField, labels: Sequence[Label]) -> dict[int, float]:
    """Return new reference energies in eV: the force field's own plus the shift that fits it to `labels`.

    A model made with another reference method is wrong by a constant per element first of all; this takes
    that out without training. Hand the result to `with_reference_energies`.

    Raises:
        TrainingError: If there are no labels.
    """
    if not labels:
        msg = "Refitting reference energies needs at least one label; there are none."
        raise TrainingError(msg)
    structures = [label.atoms for label in labels]
    predicted = force_field.predict(structures).energy_eV
    energies = np.array([label.energy_eV for label in labels])
    shifts = _least_squares(structures, energies - predicted)
    present = force_field.reference_energies_eV
    return {z: present.get(z, 0.0) + shifts.get(z, 0.0) for z in sorted({*present, *shifts})}


def sum_reference_energies(
    structures: Sequence[Atoms], energies_eV: Mapping[int, float]
) -> Float[np.ndarray, " n_structures"]:
    """Return the sum over atoms of the reference energies, in eV and in double precision."""
    table = np.zeros(max(energies_eV, default=0) + 1)
    for number, energy in energies_eV.items():
        table[number] = energy
    return np.array([table[atoms.numbers].sum() for atoms in structures], dtype=float)


def _least_squares(
    structures: Sequence[Atoms], energies_eV: Float[np.ndarray, " n_structures"]
) -> dict[int, float]:
    elements = sorted({int(z) for atoms in structures for z in atoms.numbers})
    counts = np.array([[(atoms.numbers == z).sum() for z in elements] for atoms in structures], dtype=float)
    # Rows divided by the number of atoms: an error of 1 meV per atom counts alike in small and large ones.
    sizes = counts.sum(axis=1, keepdims=True)
    solution = np.linalg.lstsq(counts / sizes, energies_eV / sizes[:, 0], rcond=None)[0]
    return {z: float(energy) for z, energy in zip(elements, solution, strict=True)}
