"""A committee that was never trained: enough to predict with, made in milliseconds."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from fff.data.records import Label

MODEL = {
    "kind": "schnetpack",
    "representation": "schnet",
    "n_features": 4,
    "n_layers": 1,
    "cutoff_A": 3.0,
    "n_radial": 4,
}


class NeverAsked:
    """An interruption that nobody asks for; what a step does with it is remembered."""

    wait_for = ""
    at_once = None

    def is_asked(self):
        return False


@pytest.fixture
def never_asked():
    return NeverAsked()


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    from fff.models import create_force_field
    from fff.models.files import write_member

    folder = tmp_path_factory.mktemp("untrained")
    for member in range(2):
        force_field = create_force_field(
            MODEL, seed=member, elements=[1, 8], reference_energies={1: -10.0, 8: -100.0}, device="cpu"
        )
        write_member(folder / f"member-{member}", force_field.to_files())
    return folder


@pytest.fixture(scope="session")
def water_labels():
    random = np.random.default_rng(3)
    made = []
    for index in range(12):
        atoms = molecule("H2O")
        atoms.rattle(0.05, rng=random)
        forces = random.normal(size=(3, 3))
        made.append(Label(atoms, -120.0 + random.normal(), forces, segment=f"s-{index // 3}"))
    return made


@pytest.fixture
def water_file(water_labels, tmp_path):
    """The labels as extended XYZ."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    frames = []
    for label in water_labels:
        atoms = label.atoms.copy()
        atoms.info["segment"] = label.segment
        atoms.calc = SinglePointCalculator(atoms, energy=label.energy_eV, forces=label.forces_eV_per_A)
        frames.append(atoms)
    write(tmp_path / "water.xyz", frames)
    return str(tmp_path / "water.xyz")
