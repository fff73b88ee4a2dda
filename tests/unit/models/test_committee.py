"""What members say together when some of them, or some structures, give no numbers."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from fff.base.errors import ModelFileError
from fff.models.committee import Committee
from fff.models.force_field import create_force_field

REFERENCE = {1: -13.5, 8: -2035.0}
WATER = molecule("H2O")
# Two atoms at one place: no direction from one to the other, so no numbers.
COINCIDENT = Atoms("OH2", [[0, 0, 0], [0, 0, 1], [0, 0, 1]])


def member(model, seed: int, elements=(1, 8)):
    reference = {z: REFERENCE[z] for z in elements}
    return create_force_field(model, seed=seed, elements=elements, reference_energies=reference, device="cpu")


@pytest.fixture
def members(model):
    return [member(model, seed) for seed in range(3)]


@pytest.fixture
def broken(model):
    made = member(model, 9)
    next(made.network.readout.parameters()).data.fill_(float("nan"))
    return made


@pytest.fixture
def limited(model):
    """A member that raises where it meets oxygen."""
    return member(model, 8, elements=[1])


def test_a_member_that_fails_by_an_error_is_left_out(members, limited):
    answer = Committee([members[0], limited, members[1]]).predict([WATER] * 2, stress=True)
    assert answer.members_used == [0, 2]
    assert set(answer.failures) == {1}
    assert answer.energy_eV.shape == (2, 2)
    assert answer.forces_eV_per_A[0].shape == (2, 3, 3)
    assert answer.stress_eV_per_A3.shape == (2, 2, 6)


def test_a_member_without_numbers_is_kept_and_told_apart(members, broken):
    answer = Committee([members[0], broken, members[1]]).predict([WATER] * 2)
    assert answer.members_used == [0, 1, 2]
    assert answer.failures == {}
    np.testing.assert_array_equal(answer.is_finite, [[True, True], [False, False], [True, True]])


def test_a_structure_without_numbers_leaves_the_others_as_they_are_alone(members):
    committee = Committee(members)
    alone = committee.predict([WATER], features=True)
    answer = committee.predict([WATER, COINCIDENT, WATER], features=True)
    np.testing.assert_array_equal(answer.is_finite, [[True, False, True]] * 3)
    for row in (0, 2):
        np.testing.assert_allclose(answer.energy_eV[:, row], alone.energy_eV[:, 0], atol=1e-5)
        np.testing.assert_allclose(answer.forces_eV_per_A[row], alone.forces_eV_per_A[0], atol=1e-5)
        np.testing.assert_allclose(answer.features[row], alone.features[0], atol=1e-5)
    assert np.isnan(answer.features[1]).all()


def test_an_energy_that_is_not_finite_counts_as_no_numbers(members):
    answer = Committee(members).predict([WATER, WATER])
    answer.energy_eV[1, 0] = np.inf
    np.testing.assert_array_equal(answer.is_finite, [[True, True], [False, True], [True, True]])


def test_no_structures_give_no_numbers(members):
    answer = Committee(members).predict([], features=True)
    assert answer.is_finite.shape == (3, 0)
    assert len(answer.features) == 0


def test_features_are_the_first_members_or_nobodys(members, broken, limited):
    first = members[0].predict([WATER], features=True).features
    np.testing.assert_array_equal(Committee(members).predict([WATER], features=True).features, first)
    assert Committee(members).predict([WATER]).features is None
    assert np.isnan(Committee([broken, *members]).predict([WATER], features=True).features).all()
    assert Committee([limited, *members]).predict([WATER], features=True).features is None


def test_a_damaged_member_is_left_out_when_loading(members):
    files = [made.to_files() for made in members[:2]]
    committee = Committee.from_files([files[0], {}, files[1]], device="cpu")
    assert len(committee) == 2
    answer = committee.predict([WATER])
    assert answer.members_used == [0, 2]
    assert 1 in answer.failures
    assert committee.first is committee.members[0]


def test_another_member_does_not_stand_in_for_a_damaged_first_one(members):
    committee = Committee.from_files([{}, members[0].to_files()], device="cpu")
    with pytest.raises(ModelFileError, match=r"first member.*missing"):
        _ = committee.first
    assert committee.predict([WATER], features=True).features is None


def test_a_committee_of_which_nothing_is_left_is_an_error(members):
    with pytest.raises(ModelFileError, match="at least one member"):
        Committee.from_files([{}, {}], device="cpu")
    with pytest.raises(ModelFileError, match="could predict"):
        Committee(members).predict([Atoms("Xe")])
