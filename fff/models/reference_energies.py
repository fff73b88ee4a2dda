"""Atomic reference energies: what is taken out of total energies before a network learns the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fff.base.errors import TrainingError
from fff.data.atomic_energies import fit_atomic_energies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fff.data.records import Label
    from fff.models.protocol import ForceField

__all__ = ["fit_reference_energies", "refit_reference_energies"]


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
    return fit_atomic_energies([label.atoms for label in labels], energies)


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
    shifts = fit_atomic_energies(structures, energies - predicted)
    present = force_field.reference_energies_eV
    return {z: present.get(z, 0.0) + shifts.get(z, 0.0) for z in sorted({*present, *shifts})}
