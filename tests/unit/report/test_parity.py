"""Parity: what is drawn, what is counted, and per element."""

import csv
import io

import numpy as np
import pytest
from ase.build import molecule

from fff.data.records import Label
from fff.report.parity import draw_parity, errors_by_element


def labels_of(n, name="CH3CH2OH"):
    random = np.random.default_rng(1)
    found = []
    for _ in range(n):
        atoms = molecule(name)
        atoms.rattle(0.05, rng=random)
        found.append(Label(atoms, -4209.0 + random.normal(), random.normal(size=(len(atoms), 3))))
    return found


def rows_of(drawn):
    names, units, *rows = csv.reader(io.StringIO(drawn.csv()))
    return names, units, rows


def test_errors_by_element_are_those_of_its_atoms():
    labels = labels_of(2)
    forces = [label.forces_eV_per_A.copy() for label in labels]
    forces[0][labels[0].atoms.numbers == 8] += [0.3, 0.0, 0.0]
    errors = errors_by_element(labels, forces)
    assert list(errors) == ["H", "C", "O"]
    assert errors["H"] == {"n_atoms": 12, "force_mae_meV_per_A": 0.0, "force_rmse_meV_per_A": 0.0}
    assert errors["O"]["force_mae_meV_per_A"] == pytest.approx(50.0)
    assert errors["O"]["force_rmse_meV_per_A"] == pytest.approx(300 / np.sqrt(6), abs=1e-3)
    assert errors_by_element([], []) == {}


def test_the_numbers_beside_the_picture_are_those_given():
    labels = [*labels_of(2), *labels_of(1, "H2O")]
    energy = np.array([label.energy_eV for label in labels]) + 0.09
    names, units, rows = rows_of(draw_parity(labels, energy, [label.forces_eV_per_A for label in labels]))
    assert len(rows) == 9 + 9 + 3
    column = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    assert units[names.index("reference_force_x")] == "eV/Å"
    assert float(column["predicted_force_z"][-1]) == pytest.approx(labels[-1].forces_eV_per_A[-1, 2])
    firsts = [i for i, atom in enumerate(column["atom"]) if atom == "0"]
    shifts = [float(column["predicted_energy"][i]) - float(column["reference_energy"][i]) for i in firsts]
    assert shifts == pytest.approx([10.0, 10.0, 30.0])
    assert [i for i, text in enumerate(column["reference_energy"]) if text] == firsts


def test_of_many_points_some_are_drawn_and_all_are_counted():
    labels = labels_of(900)
    forces = [label.forces_eV_per_A + 0.05 for label in labels]
    drawn = draw_parity(labels, np.array([label.energy_eV for label in labels]), forces)
    rows = rows_of(drawn)[2]
    assert 6_000 < len(rows) < 8_100
    assert {row[0] for row in rows} == {str(i) for i in range(900)}
    assert "of 8100 atoms" in drawn.caption
    assert "MAE 50 meV/Å" in drawn.figure.axes[1].texts[0].get_text()


def test_one_structure_and_a_prediction_that_is_no_number_are_drawn():
    labels = labels_of(1, "H2O")
    drawn = draw_parity(labels, np.array([np.nan]), [np.full((3, 3), np.nan)])
    assert drawn.png().startswith(b"\x89PNG")


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        draw_parity([], np.zeros(0), [])
