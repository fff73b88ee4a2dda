"""Dynamics with a force field keeps the physics that the network promises by construction."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet

from fff.models.calculators import MDCalculator
from fff.models.force_field import create_force_field

pytestmark = pytest.mark.science


def _dynamics(atoms, representation, timestep_fs):
    force_field = create_force_field(
        {"representation": representation, "n_features": 16, "n_layers": 2, "cutoff_A": 3.0, "n_radial": 8},
        seed=4,
        elements=[1, 6, 8, 29],
        reference_energies={},
        device="cpu",
    )
    atoms.calc = MDCalculator(force_field, skin_A=0.4)
    spread = np.sqrt(atoms.get_masses() * units.kB * 500)[:, None]
    momenta = spread * np.random.default_rng(3).normal(size=atoms.positions.shape)
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    return VelocityVerlet(atoms, timestep_fs * units.fs)


@pytest.mark.parametrize("representation", ["painn", "schnet"])
@pytest.mark.parametrize("name", ["ethanol", "copper"])
def test_total_energy_is_conserved_while_pairs_cross_the_cutoff(representation, name):
    atoms = molecule("CH3CH2OH") if name == "ethanol" else bulk("Cu", cubic=True) * (2, 2, 1)
    dynamics = _dynamics(atoms, representation, timestep_fs=0.5)
    energies = [atoms.get_total_energy() for _ in dynamics.irun(200)]
    spread = 0.5 * units.kB * 500 * 3 * len(atoms)
    # A force that were not the gradient, or a list that misses pairs, would show as a drift of this size.
    assert np.ptp(energies) < 0.02 * spread
    assert atoms.calc.pairs.n_builds > 1


@pytest.mark.parametrize("name", ["ethanol", "copper"])
def test_momentum_is_conserved(name):
    atoms = molecule("CH3CH2OH") if name == "ethanol" else bulk("Cu", cubic=True) * (2, 2, 1)
    dynamics = _dynamics(atoms, "painn", timestep_fs=0.5)
    before = atoms.get_momenta().sum(axis=0)
    dynamics.run(100)
    scale = np.abs(atoms.get_momenta()).sum()
    assert np.abs(atoms.get_momenta().sum(axis=0) - before).max() < 1e-4 * scale
