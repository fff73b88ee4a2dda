"""Molecular dynamics driven by the reference method itself: structures for a test set, with their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fff.base.errors import NotConvergedError
from fff.data.records import Label
from fff.sampling.integrators import draw_momenta, make_integrator

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from ase.md.langevinbaoab import LangevinBAOAB

__all__ = ["reference_dynamics"]

# A relaxed structure gives half of its fresh kinetic energy away; at this friction the thermostat returns it
# within 20 fs. Such friction would slow the exploration that follows, which has a tenth of it.
_EQUILIBRATION_FRICTION_PER_fs = 0.05
_FRICTION_PER_fs = 0.005


def reference_dynamics(
    start: Atoms,
    calculator: BaseCalculator,
    *,
    temperature_K: float,
    n_frames: int,
    interval_steps: int,
    timestep_fs: float,
    equilibration_steps: int,
    seed: int,
) -> list[Label]:
    """Return frames of Langevin dynamics with the reference, each with its energy and forces as a label.

    No frame costs a calculation of its own: the labels are the numbers that drove the dynamics. The run owes
    nothing to `start` but the geometry, since fresh momenta are drawn and the first steps are thrown away.

    Args:
        start: Where to begin; momenta it may have are ignored.
        calculator: The reference method, with energy and forces (eV, eV/Å).
        temperature_K: Temperature of the thermostat.
        n_frames: Labels to return.
        interval_steps: Steps between two of them.
        timestep_fs: Time step.
        equilibration_steps: Steps before the first interval begins.
        seed: Same seed, same labels.

    Returns:
        The labels in the order of time, without a segment: the caller knows what else it labels.

    Raises:
        NotConvergedError: If an energy or force is not finite.
        Exception: Whatever the calculator raises is passed on.
    """
    if n_frames < 1:
        return []
    rng = np.random.default_rng(seed)
    atoms = start.copy()
    atoms.arrays.pop("momenta", None)
    draw_momenta(atoms, temperature_K, rng)
    atoms.calc = calculator

    def integrator(friction_per_fs: float) -> LangevinBAOAB:
        return make_integrator(
            atoms,
            "langevin",
            temperature_K=temperature_K,
            timestep_fs=timestep_fs,
            friction_per_fs=friction_per_fs,
            pressure_GPa=0.0,
            rng=rng,
        )

    equilibration = integrator(_EQUILIBRATION_FRICTION_PER_fs)
    for _ in range(equilibration_steps):
        equilibration.step()
    production = integrator(_FRICTION_PER_fs)
    labels = []
    for _ in range(n_frames):
        for _ in range(interval_steps):
            production.step()
        labels.append(_label(atoms))
    return labels


def _label(atoms: Atoms) -> Label:
    energy = float(atoms.get_potential_energy())
    forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        msg = f"The reference gave numbers that are not finite while it drove dynamics of {atoms.symbols}."
        raise NotConvergedError(msg, hint="Lower test.timestep_fs or test.temperatures_K.")
    geometry = atoms.copy()
    geometry.arrays.pop("momenta", None)
    return Label(geometry, energy, forces)
