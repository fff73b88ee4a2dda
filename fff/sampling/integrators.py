"""Equations of motion: NVE, NVT and NPT from one integrator of ASE.

`LangevinBAOAB` was chosen over the other classes of ASE 3.29 because

* it is one scheme for all three thermostats: without noise it is velocity Verlet, and with a piston it
  samples the NPT distribution, which Berendsen's barostat (`NPTBerendsen`) does not;
* a short run of few atoms is ergodic, which Nosé-Hoover chains (`IsotropicMTKNPT`) do not promise;
* its error in the positions it samples is the smallest at a given step, and one step costs about 60 % of
  one of `ase.md.langevin.Langevin`, since it looks up the forces once.

Noise acts on all 3N degrees of freedom, the centre of mass included, so temperatures count 3N of them.
(Keeping the centre of mass still, `Langevin`'s deprecated `fixcm`, distorts what small structures sample.)

Source:
    Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013), doi:10.1063/1.4802990 (BAOAB);
    Quigley and Probert, J. Chem. Phys. 120, 11432 (2004), doi:10.1063/1.1755657 (Langevin piston).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from ase import units
from ase.md.langevinbaoab import LangevinBAOAB

from fff.base.errors import StructureError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

__all__ = ["Thermostat", "draw_momenta", "integrator_arrays", "make_integrator", "restore_integrator"]

Thermostat = Literal["langevin", "nve", "npt"]

# What a step of the integrator takes over from the one before, beside the structure and the generator.
_CARRIED = ("accel", "p_eps", "force_eps", "gamma_mod")

# The piston must be slow beside the atoms and quick beside a run. Its mass below gives copper a period of
# 0.2 and water one of 2 of these times; short steps do not need a slower one.
_PISTON_TIME_fs = 200.0
_PISTON_STEPS = 100.0


def draw_momenta(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> None:
    """Give `atoms` Maxwell-Boltzmann momenta unless it has some already.

    Momenta that are all zero (as relaxations write them) count as none. Momenta are drawn for all 3N degrees
    of freedom and not scaled to the exact temperature, which would not be the canonical distribution.

    Args:
        atoms: The structure; changed in place.
        temperature_K: Temperature of the distribution.
        rng: Where the random numbers come from.
    """
    if atoms.has("momenta") and np.any(atoms.arrays["momenta"]):
        return
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature_K)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * spread[:, None])


def make_integrator(
    atoms: Atoms,
    thermostat: Thermostat,
    *,
    temperature_K: float,
    timestep_fs: float,
    friction_per_fs: float,
    pressure_GPa: float,
    rng: np.random.Generator,
) -> LangevinBAOAB:
    """Return an integrator of `atoms`, which has momenta and a calculator; `step()` moves it one step.

    Making it evaluates the forces once. With `npt` the volume changes and the shape of the cell does not;
    the piston starts with a momentum drawn from its own canonical distribution, so that a trajectory cut into
    many short runs samples the same volumes as one long run.

    Args:
        atoms: The structure; changed in place by every step.
        thermostat: What is kept constant besides the number of atoms.
        temperature_K: Target temperature; without meaning for `nve`.
        timestep_fs: Time step.
        friction_per_fs: Friction of the thermostat; without meaning for `nve`.
        pressure_GPa: Target pressure, kinetic part included; without meaning but for `npt`.
        rng: Where the noise comes from.

    Raises:
        StructureError: If `npt` is asked of a structure that is not periodic in all three directions.
    """
    timestep = timestep_fs * units.fs
    if thermostat == "nve":
        # Hydrostatic spares the integrator a matrix exponential per step; it says nothing without a piston.
        return LangevinBAOAB(atoms, timestep, hydrostatic=True)
    damping = units.fs / friction_per_fs
    if thermostat == "langevin":
        return LangevinBAOAB(
            atoms, timestep, temperature_K=temperature_K, T_tau=damping, hydrostatic=True, rng=rng
        )
    if not all(atoms.pbc):
        msg = f"Constant pressure needs a structure that is periodic in all directions; pbc is {atoms.pbc}."
        raise StructureError(msg, hint="Set sampling.thermostat to langevin, or give periodic structures.")
    piston_time = max(_PISTON_TIME_fs * units.fs, _PISTON_STEPS * timestep)
    # Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994), doi:10.1063/1.467468.
    piston_mass = (3 * len(atoms) + 3) * units.kB * temperature_K * piston_time**2
    integrator = LangevinBAOAB(
        atoms,
        timestep,
        temperature_K=temperature_K,
        T_tau=damping,
        externalstress=-pressure_GPa * units.GPa,
        hydrostatic=True,
        P_tau=piston_time,
        P_mass=piston_mass,
        rng=rng,
    )
    integrator.p_eps = rng.standard_normal() * np.sqrt(piston_mass * units.kB * temperature_K)
    return integrator


def integrator_arrays(integrator: LangevinBAOAB) -> dict[str, np.ndarray]:
    """Return what an integrator carries from one step to the next: accelerations, and the piston's state."""
    return {name: np.array(getattr(integrator, name)) for name in _CARRIED if hasattr(integrator, name)}


def restore_integrator(integrator: LangevinBAOAB, arrays: Mapping[str, np.ndarray]) -> None:
    """Give an integrator what `integrator_arrays` returned for one of the same kind."""
    for name, array in integrator_arrays(integrator).items():
        setattr(integrator, name, arrays[name].reshape(array.shape)[()])
