"""PBE/def2-SVP against published labels of the same level, from another code."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import read

from fff.reference import make_reference

pytestmark = [pytest.mark.science, pytest.mark.slow, pytest.mark.timeout(600)]

PBE = {"kind": "pyscf", "functional": "PBE", "basis": "def2-SVP"}


@pytest.fixture(scope="module")
def published(data_dir):
    return read(data_dir / "ethanol-dft" / "test_MD.xyz", index="::500")


def test_forces_of_ethanol_agree_with_published_ones(published):
    method = make_reference(PBE)

    for atoms in published:
        label = method.calculate(atoms)
        error = label.forces_eV_per_A - atoms.get_forces()

        # The published grid is finer: at level 4 the error is a third. Measured 0.5 to 0.7 meV/Å.
        assert np.sqrt(np.mean(error**2)) < 0.0012
        assert np.abs(error).max() < 0.006
        assert label.energy_eV == pytest.approx(atoms.get_potential_energy(), abs=0.002)


def test_dynamics_starts_each_step_from_the_last_and_gives_the_same_forces(published):
    method = make_reference({**PBE, "grid_level": 1})
    atoms = published[0].copy()
    atoms.calc = method.ase_calculator()
    atoms.get_forces()
    atoms.rattle(0.01, seed=1)

    followed = atoms.get_forces()

    cold = method.calculate(atoms)
    assert np.abs(followed - cold.forces_eV_per_A).max() < 0.002
    assert atoms.get_potential_energy() == pytest.approx(cold.energy_eV, abs=1e-5)
