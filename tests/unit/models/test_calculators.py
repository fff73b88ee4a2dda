from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet

from fff.base.errors import ModelFileError, StructureError
from fff.data.deviation import force_deviation
from fff.models.calculators import CommitteeCalculator, MDCalculator, open_calculator
from fff.models.committee import Committee
from fff.models.files import write_member
from fff.models.force_field import create_force_field

REFERENCE = {1: -13.5, 6: -1025.0, 8: -2035.0, 29: -5.0}


def _member(model, seed=0):
    return create_force_field(
        model, seed=seed, elements=list(REFERENCE), reference_energies=REFERENCE, device="cpu"
    )


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.rattle(0.05, seed=4)
    return atoms


@pytest.fixture
def ethanol():
    return molecule("CH3CH2OH")


@pytest.mark.parametrize("name", ["copper", "ethanol"])
def test_along_a_trajectory_the_skin_changes_no_number(name, model, request):
    atoms = request.getfixturevalue(name)
    force_field = _member(model)
    atoms.calc = MDCalculator(force_field, skin_A=0.5)
    spread = np.sqrt(atoms.get_masses() * units.kB * 900)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=atoms.positions.shape))
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    steps = 0
    for _ in dynamics.irun(60):
        steps += 1
        if steps % 6:
            continue
        fresh = force_field.predict([atoms])
        assert atoms.get_potential_energy() == pytest.approx(fresh.energy_eV[0], abs=1e-4)
        np.testing.assert_allclose(atoms.get_forces(), fresh.forces_eV_per_A[0], atol=2e-5)
    assert 1 < atoms.calc.pairs.n_builds < steps / 2


def test_a_list_is_made_anew_only_when_an_atom_moved_more_than_half_the_skin(ethanol, model):
    calculator = MDCalculator(_member(model), skin_A=0.4)
    ethanol.calc = calculator
    ethanol.get_forces()
    ethanol.positions[3, 0] += 0.19
    ethanol.get_forces()
    assert calculator.pairs.n_builds == 1
    ethanol.positions[3, 0] += 0.02
    ethanol.get_forces()
    assert calculator.pairs.n_builds == 2


def test_another_cell_other_elements_or_other_periodicity_make_the_list_anew(copper, model):
    force_field = _member(model)
    calculator = MDCalculator(force_field)
    copper.calc = calculator
    copper.get_potential_energy()
    copper.set_cell(1.02 * copper.cell.array)
    energies = [copper.get_potential_energy()]
    expected = [force_field.predict([copper]).energy_eV[0]]
    copper.pbc = [True, True, False]
    energies.append(copper.get_potential_energy())
    expected.append(force_field.predict([copper]).energy_eV[0])
    copper.numbers[0] = 6
    energies.append(copper.get_potential_energy())
    expected.append(force_field.predict([copper]).energy_eV[0])
    assert calculator.pairs.n_builds == 4
    np.testing.assert_allclose(energies, expected, atol=1e-4)


def test_nothing_is_calculated_twice(ethanol, model, monkeypatch):
    calculator = MDCalculator(_member(model))
    ethanol.calc = calculator
    ethanol.get_forces()
    monkeypatch.setattr(calculator, "_ask", None)
    ethanol.get_forces()
    ethanol.get_potential_energy()
    assert not calculator.calculation_required(ethanol, ["energy"])


def test_results_cannot_be_spoiled_from_outside(ethanol, model):
    ethanol.calc = MDCalculator(_member(model))
    ethanol.get_forces()[:] = 0.0
    assert np.abs(ethanol.get_forces()).max() > 0.0


def test_stress_is_that_of_predict_and_absent_for_molecules(copper, ethanol, model):
    force_field = _member(model)
    copper.calc = MDCalculator(force_field)
    copper.get_potential_energy()
    expected = force_field.predict([copper], stress=True).stress_eV_per_A3[0]
    np.testing.assert_allclose(copper.get_stress(), expected, atol=1e-6)
    ethanol.calc = MDCalculator(force_field)
    with pytest.raises(PropertyNotImplementedError):
        ethanol.get_stress()


def test_positions_that_are_no_numbers_give_results_that_are_none_and_no_error(ethanol, model):
    ethanol.calc = MDCalculator(_member(model))
    ethanol.get_forces()
    ethanol.positions[0] = np.nan
    assert np.isnan(ethanol.get_forces()).all()
    assert np.isnan(ethanol.get_potential_energy())
    ethanol.positions[0] = [0.0, 0.0, 0.1]
    assert np.isfinite(ethanol.get_forces()).all()


def test_a_foreign_element_is_refused(model):
    atoms = Atoms("Xe2", positions=[[0, 0, 0], [0, 0, 4]], calculator=MDCalculator(_member(model)))
    with pytest.raises(StructureError, match="Xe"):
        atoms.get_potential_energy()


def test_heavy_atoms_keep_their_meV(model):  # noqa: N802 - the unit
    gold = bulk("Au", cubic=True) * (4, 2, 2)
    gold.rattle(0.05, seed=1)
    assert len(gold) == 64
    settings = {"seed": 1, "elements": [79], "device": "cpu"}
    light = create_force_field(model, reference_energies={79: 0.0}, **settings)
    heavy = create_force_field(model, reference_energies={79: -1e5}, **settings)
    expected = light.predict([gold]).energy_eV[0]
    assert abs(expected) > 1e-2
    assert heavy.predict([gold]).energy_eV[0] + 64e5 == pytest.approx(expected, abs=1e-6)
    gold.calc = MDCalculator(heavy)
    assert gold.get_potential_energy() + 64e5 == pytest.approx(expected, abs=1e-4)


def test_the_committee_gives_means_and_its_deviation(copper, model):
    members = [_member(model, seed) for seed in range(3)]
    answers = [member.predict([copper], stress=True) for member in members]
    forces = np.stack([answer.forces_eV_per_A[0] for answer in answers])
    copper.calc = CommitteeCalculator(Committee(members))
    np.testing.assert_allclose(copper.get_forces(), forces.mean(axis=0), atol=2e-5)
    energies = np.array([answer.energy_eV[0] for answer in answers])
    assert copper.get_potential_energy() == pytest.approx(energies.mean(), abs=1e-4)
    stresses = np.array([answer.stress_eV_per_A3[0] for answer in answers])
    np.testing.assert_allclose(copper.get_stress(), stresses.mean(axis=0), atol=1e-6)
    results = copper.calc.results
    deviation = force_deviation(forces)
    assert results["deviation"] == pytest.approx(deviation.max(), rel=1e-3)
    assert results["deviations"]["max_force"] == results["deviation"]
    assert results["deviations"]["mean_force"] == pytest.approx(deviation.mean(), rel=1e-3)
    found = results["deviations"]["energy_per_atom"]
    assert found == pytest.approx(energies.std() / len(copper), rel=1e-3)


def _write_round(directory, model, count=2):
    for index in range(count):
        write_member(directory / f"member-{index}", _member(model, index).to_files())


def test_a_calculator_opens_from_a_run_a_round_or_a_member(tmp_path, ethanol, model):
    models = tmp_path / "models"
    _write_round(models / "round-001", model)
    _write_round(models / "round-002", model, count=3)
    _write_round(models / "round-003", model, count=1)

    def members(path):
        return len(open_calculator(path, "cpu").committee)

    assert members(models / "round-001" / "member-1") == 1
    assert members(models / "round-001") == 2
    assert members(tmp_path) == 3  # the newest with at least two
    (models / "committee.json").write_text(json.dumps({"members": ["round-001/member-0"]}))
    assert members(tmp_path) == 1
    ethanol.calc = open_calculator(tmp_path, "cpu")
    assert np.isfinite(ethanol.get_potential_energy())


@pytest.mark.parametrize("pointer", ["{}", "no json", '{"members": []}', '{"members": ["gone/member-0"]}'])
def test_a_pointer_that_leads_nowhere_is_named(tmp_path, pointer):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "committee.json").write_text(pointer)
    with pytest.raises(ModelFileError, match=r"committee\.json"):
        open_calculator(tmp_path, "cpu")


def test_a_folder_without_models_is_an_error(tmp_path):
    with pytest.raises(ModelFileError, match="No trained model"):
        open_calculator(tmp_path, "cpu")


def test_stress_costs_no_evaluation_of_its_own_once_it_was_asked_for(copper, model, monkeypatch):
    calls = []
    calculate = MDCalculator.calculate

    def counted(self, *arguments, **keywords):
        calls.append(1)
        calculate(self, *arguments, **keywords)

    monkeypatch.setattr(MDCalculator, "calculate", counted)
    copper.calc = MDCalculator(_member(model))
    copper.get_stress()
    copper.positions[0, 0] += 0.05
    copper.get_forces()
    copper.get_stress()
    assert len(calls) == 2


def test_a_single_member_claims_no_certainty(copper, model):
    copper.calc = CommitteeCalculator(Committee([_member(model)]))
    assert np.isfinite(copper.get_forces()).all()
    assert np.isnan(copper.calc.results["deviation"])


def test_members_of_different_cutoffs_make_a_committee(copper, model):
    members = [_member(model, seed=0), _member({**model, "cutoff_A": 3.0}, seed=1)]
    copper.calc = CommitteeCalculator(Committee(members))
    expected = np.mean([member.predict([copper]).forces_eV_per_A[0] for member in members], axis=0)
    np.testing.assert_allclose(copper.get_forces(), expected, atol=2e-5)
