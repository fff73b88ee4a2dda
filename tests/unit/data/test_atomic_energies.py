"""What composition alone explains of total energies."""

import numpy as np
import pytest
from ase.build import molecule

from fff.data.atomic_energies import fit_atomic_energies, sum_atomic_energies


def test_energies_that_are_sums_over_atoms_are_found_again():
    structures = [molecule(name) for name in ("H2O", "H2", "H2O2")]
    energies = sum_atomic_energies(structures, {1: -13.0, 8: -2040.0})
    assert energies.tolist() == [-2066.0, -26.0, -4106.0]
    assert fit_atomic_energies(structures, energies) == pytest.approx({1: -13.0, 8: -2040.0})


def test_one_composition_is_shared_by_the_least_energies():
    found = fit_atomic_energies([molecule("H2O")], np.array([-50.0]))
    assert found == pytest.approx({1: -20.0, 8: -10.0})
