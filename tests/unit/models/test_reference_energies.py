from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from fff.base.errors import TrainingError
from fff.data.atomic_energies import sum_atomic_energies
from fff.data.records import Label
from fff.models.force_field import create_force_field, with_reference_energies
from fff.models.reference_energies import (
    fit_reference_energies,
    refit_reference_energies,
)

TRUE = {1: -13.5, 6: -1025.25, 8: -2035.5}


def _labels(names, energies=TRUE, extra=0.0):
    made = []
    for name in names:
        atoms = molecule(name)
        energy = sum_atomic_energies([atoms], energies)[0] + extra * len(atoms)
        made.append(Label(atoms=atoms, energy_eV=energy, forces_eV_per_A=np.zeros((len(atoms), 3))))
    return made


def test_energies_that_are_sums_are_found_again():
    found = fit_reference_energies(_labels(["H2O", "CH4", "CH3CH2OH", "CO2"]))
    assert found == pytest.approx(TRUE, abs=1e-8)


def test_one_composition_gives_the_solution_of_least_norm():
    labels = _labels(["H2O", "H2O"])
    found = fit_reference_energies(labels)
    assert sum_atomic_energies([labels[0].atoms], found)[0] == pytest.approx(labels[0].energy_eV)
    assert found[1] == pytest.approx(2 * found[8])  # along the composition, 2 H to 1 O


def test_refitting_takes_a_constant_per_element_out(model):
    force_field = create_force_field(
        model, seed=0, elements=list(TRUE), reference_energies=TRUE, device="cpu"
    )
    labels = _labels(["H2O", "CH4", "CH3CH2OH", "CO2"], {1: -10.0, 6: -1000.0, 8: -2000.0})
    refitted = with_reference_energies(force_field, refit_reference_energies(force_field, labels))
    structures = [label.atoms for label in labels]
    energies = np.array([label.energy_eV for label in labels])
    errors = np.abs(refitted.predict(structures).energy_eV - energies)
    assert errors.max() < 0.01 * np.abs(force_field.predict(structures).energy_eV - energies).max()


def test_no_labels_are_an_error(model):
    force_field = create_force_field(model, seed=0, elements=[1], reference_energies={}, device="cpu")
    with pytest.raises(TrainingError):
        fit_reference_energies([])
    with pytest.raises(TrainingError):
        refit_reference_energies(force_field, [])
