"""What `ForceField` promises, held against every implementation there is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from fff.base.errors import ModelFileError, StructureError
from fff.models.files import DESCRIPTION, WEIGHTS
from fff.models.force_field import create_force_field
from fff.models.loading import load_model

SETTINGS = {"n_features": 16, "n_layers": 2, "cutoff_A": 4.0, "n_radial": 8}
REFERENCE = {1: -13.5, 6: -1025.0, 8: -2035.0, 29: -5.0}
# Single precision: a few units in the last place of numbers of the size 1.
TOLERANCE = 5e-5


def _schnetpack(representation):
    # Backends of other packages add their maker to BACKENDS.
    return create_force_field(
        {**SETTINGS, "representation": representation},
        seed=3,
        elements=list(REFERENCE),
        reference_energies=REFERENCE,
        device="cpu",
    )


BACKENDS = {
    "painn": lambda: (_schnetpack("painn"), load_model),
    "schnet": lambda: (_schnetpack("schnet"), load_model),
}


@pytest.fixture(scope="module", params=list(BACKENDS))
def backend(request):
    return BACKENDS[request.param]()


@pytest.fixture(scope="module")
def force_field(backend):
    return backend[0]


@pytest.fixture
def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(1).normal(scale=0.05, size=atoms.positions.shape)
    return atoms


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.positions += np.random.default_rng(2).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


def _one(force_field, atoms, **asked):
    answer = force_field.predict([atoms], **asked)
    return answer.energy_eV[0], answer.forces_eV_per_A[0]


def test_two_copies_far_apart_have_twice_the_energy(force_field, ethanol):
    far = ethanol.copy()
    far.translate([0, 0, 50])
    energy, forces = _one(force_field, ethanol)
    both, both_forces = _one(force_field, ethanol + far)
    assert both == pytest.approx(2 * energy, abs=TOLERANCE)
    np.testing.assert_allclose(both_forces, np.concatenate([forces, forces]), atol=TOLERANCE)


@pytest.mark.parametrize("name", ["ethanol", "copper"])
def test_forces_are_the_negative_gradient_of_the_energy(force_field, name, request):
    atoms = request.getfixturevalue(name)
    _, forces = _one(force_field, atoms)
    step = 0.02
    moved = []
    for atom, axis in [(0, 0), (1, 1), (2, 2), (4, 0), (7, 2)]:
        for shift in (-2, -1, 1, 2):
            other = atoms.copy()
            other.positions[atom, axis] += shift * step
            moved.append(other)
    energy = force_field.predict(moved).energy_eV.reshape(-1, 4)
    gradient = (energy @ [1, -8, 8, -1]) / (12 * step)
    found = [forces[0, 0], forces[1, 1], forces[2, 2], forces[4, 0], forces[7, 2]]
    np.testing.assert_allclose(found, -gradient, atol=2e-3 * np.abs(forces).max() + 1e-4)


def test_forces_sum_to_zero(force_field, ethanol, copper):
    for atoms in (ethanol, copper):
        assert np.abs(_one(force_field, atoms)[1].sum(axis=0)).max() < TOLERANCE


def test_moving_and_turning_a_structure_turns_its_forces_and_keeps_its_energy(force_field, ethanol):
    energy, forces = _one(force_field, ethanol)
    turned = ethanol.copy()
    turned.rotate(53, (1, 2, 3))
    turned.translate([12.0, -7.0, 3.0])
    turned_energy, turned_forces = _one(force_field, turned)
    probe = Atoms("H9", positions=forces)
    probe.rotate(53, (1, 2, 3))
    assert turned_energy == pytest.approx(energy, abs=TOLERANCE)
    np.testing.assert_allclose(turned_forces, probe.positions, atol=TOLERANCE)


def test_the_order_of_atoms_does_not_matter(force_field, ethanol):
    energy, forces = _one(force_field, ethanol)
    order = np.random.default_rng(3).permutation(len(ethanol))
    other, other_forces = _one(force_field, ethanol[order])
    assert other == pytest.approx(energy, abs=TOLERANCE)
    np.testing.assert_allclose(other_forces, forces[order], atol=TOLERANCE)


def test_a_mixed_batch_gives_the_numbers_of_single_structures(force_field, ethanol, copper):
    structures = [ethanol, copper, Atoms("H"), molecule("H2O"), ethanol]
    together = force_field.predict(structures, stress=True, features=True)
    for index, atoms in enumerate(structures):
        alone = force_field.predict([atoms], stress=True, features=True)
        assert together.energy_eV[index] == pytest.approx(alone.energy_eV[0], abs=TOLERANCE)
        np.testing.assert_allclose(together.forces_eV_per_A[index], alone.forces_eV_per_A[0], atol=TOLERANCE)
        np.testing.assert_allclose(
            together.stress_eV_per_A3[index], alone.stress_eV_per_A3[0], atol=TOLERANCE
        )
        np.testing.assert_allclose(together.features[index], alone.features[0], atol=TOLERANCE)


def test_shapes_and_types_are_as_promised(force_field, ethanol, copper):
    answer = force_field.predict([ethanol, copper], stress=True, features=True)
    assert answer.energy_eV.shape == (2,)
    assert answer.energy_eV.dtype == np.float64
    assert [forces.shape for forces in answer.forces_eV_per_A] == [(9, 3), (8, 3)]
    assert answer.stress_eV_per_A3.shape == (2, 6)
    assert answer.features.shape[0] == 2
    assert force_field.predict([ethanol]).stress_eV_per_A3 is None
    assert force_field.predict([]).energy_eV.shape == (0,)


def test_a_supercell_has_the_energy_per_atom_and_stress_of_its_cell(force_field, copper):
    cell = force_field.predict([copper], stress=True)
    large = force_field.predict([copper * (1, 2, 2)], stress=True)
    assert large.energy_eV[0] == pytest.approx(4 * cell.energy_eV[0], abs=4 * TOLERANCE)
    np.testing.assert_allclose(
        large.forces_eV_per_A[0], np.tile(cell.forces_eV_per_A[0], (4, 1)), atol=TOLERANCE
    )
    np.testing.assert_allclose(large.stress_eV_per_A3, cell.stress_eV_per_A3, atol=1e-6)


def test_stress_is_the_derivative_of_the_energy_with_respect_to_strain(force_field, copper):
    stress = force_field.predict([copper], stress=True).stress_eV_per_A3[0]
    step = 5e-3
    for index, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strained = []
        for sign in (-1, 1):
            strain = np.eye(3)
            strain[a, b] += 0.5 * sign * step
            strain[b, a] += 0.5 * sign * step
            other = copper.copy()
            other.set_cell(copper.cell.array @ strain, scale_atoms=True)
            strained.append(other)
        energy = force_field.predict(strained).energy_eV
        slope = (energy[1] - energy[0]) / (2 * step) / copper.get_volume()
        assert stress[index] == pytest.approx(slope, abs=2e-2 * np.abs(stress).max() + 1e-6)


def test_structures_without_a_volume_have_no_stress(force_field, ethanol):
    assert np.isnan(force_field.predict([ethanol], stress=True).stress_eV_per_A3).all()


def test_energy_is_smooth_where_a_pair_crosses_the_cutoff(force_field):
    cutoff = force_field.cutoff_A
    pairs = [Atoms("H2", positions=[[0, 0, 0], [0, 0, cutoff + d]]) for d in (-1e-3, 1e-3)]
    answer = force_field.predict(pairs)
    assert answer.energy_eV[0] == pytest.approx(answer.energy_eV[1], abs=1e-6)
    assert np.abs(answer.forces_eV_per_A[0]).max() < 1e-3


def test_reference_energies_are_part_of_the_total(force_field):
    alone = force_field.predict([Atoms("C", positions=[[0, 0, 0]])]).energy_eV[0]
    assert abs(alone - REFERENCE[6]) < 10.0


def test_files_give_back_the_same_numbers(backend, ethanol, copper):
    force_field, load = backend
    files = force_field.to_files()
    assert set(files) == {DESCRIPTION, WEIGHTS}
    again = load(files, device="cpu")
    before, after = force_field.predict([ethanol, copper]), again.predict([ethanol, copper])
    np.testing.assert_array_equal(before.energy_eV, after.energy_eV)
    for one, other in zip(before.forces_eV_per_A, after.forces_eV_per_A, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.to_files() == files
    assert again.cutoff_A == force_field.cutoff_A


def test_files_hold_no_pickle(backend):
    files = backend[0].to_files()
    json.loads(files[DESCRIPTION])
    assert b"torch" not in files[WEIGHTS]
    assert not files[WEIGHTS].startswith((b"PK", b"\x80"))


def test_damaged_weights_are_refused(backend):
    force_field, load = backend
    files = force_field.to_files()
    broken = bytearray(files[WEIGHTS])
    broken[-3] ^= 0xFF
    with pytest.raises(ModelFileError, match="SHA-256"):
        load({**files, WEIGHTS: bytes(broken)})


def test_an_unknown_element_is_refused_by_name(force_field):
    with pytest.raises(StructureError, match="Xe"):
        force_field.predict([Atoms("Xe")])


def test_its_calculator_for_dynamics_gives_the_numbers_of_predict(force_field, copper):
    calculator = force_field.md_calculator(skin_A=0.4)
    for seed in range(3):
        copper.positions += np.random.default_rng(seed).normal(scale=0.02, size=copper.positions.shape)
        predicted = force_field.predict([copper], stress=True)
        copper.calc = calculator
        assert copper.get_potential_energy() == pytest.approx(predicted.energy_eV[0], abs=TOLERANCE)
        np.testing.assert_allclose(copper.get_forces(), predicted.forces_eV_per_A[0], atol=TOLERANCE)
        np.testing.assert_allclose(copper.get_stress(), predicted.stress_eV_per_A3[0], atol=TOLERANCE)


def test_a_model_of_an_unknown_kind_is_refused_with_the_kinds_there_are(force_field):
    files = force_field.to_files()
    description = json.loads(files[DESCRIPTION])
    foreign = {**files, DESCRIPTION: json.dumps({**description, "kind": "mystery"}).encode()}
    with pytest.raises(ModelFileError, match=r"'mystery'; known are schnetpack"):
        load_model(foreign)
