"""Tiny models and labels: enough to be wrong, small enough for milliseconds."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from fff.data.records import Label

MODEL = {"representation": "painn", "n_features": 8, "n_layers": 2, "cutoff_A": 3.5, "n_radial": 6}
TRAINING = {
    "max_epochs": 5,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "energy_weight": 0.05,
    "force_weight": 0.95,
    "plateau_patience": 15,
    "plateau_factor": 0.5,
    "stop_patience": 40,
    "min_learning_rate": 1e-5,
    "ema_decay": 0.9,
    "gradient_clip": 10.0,
    "time_limit_s": 600,
}


@pytest.fixture(scope="session")
def model() -> dict:
    return dict(MODEL)


@pytest.fixture(scope="session")
def training() -> dict:
    return dict(TRAINING)


@pytest.fixture(scope="session")
def labels() -> list[Label]:
    """Six-atom argon-like clusters under Lennard-Jones forces, in segments of two."""
    random = np.random.default_rng(7)
    octahedron = 1.12 * np.array(
        [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float
    )
    made = []
    for index in range(16):
        atoms = Atoms("Ar6", positions=octahedron + random.normal(scale=0.06, size=(6, 3)))
        made.append(_label(atoms, LennardJones(rc=5.0), f"segment-{index // 2}"))
    return made


@pytest.fixture(scope="session")
def copper_labels() -> list[Label]:
    """Periodic copper under EMT, each label a segment of its own."""
    random = np.random.default_rng(8)
    made = []
    for index in range(6):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        made.append(_label(atoms, EMT(), f"cu-{index}"))
    return made


def _label(atoms: Atoms, calculator, segment: str) -> Label:
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = None
    return Label(atoms=atoms, energy_eV=float(energy), forces_eV_per_A=forces, segment=segment)
