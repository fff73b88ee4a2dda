from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from fff.sampling import guards
from fff.sampling.guards import DistanceGuard, Guards


def crowd(n_atoms: int, cell, pbc, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = Atoms(numbers=rng.choice([1, 8, 29], n_atoms), cell=cell, pbc=pbc)
    # Also outside of the cell, where dynamics takes atoms.
    atoms.positions = (rng.random((n_atoms, 3)) * 3 - 1) @ atoms.cell.complete().array
    return atoms


def pairs_by_list(atoms: Atoms, factor: float) -> set[tuple[int, int]]:
    i, j, d = neighbor_list("ijd", atoms, 5.0)
    close = d < factor * (guards.covalent_radii[atoms.numbers[i]] + guards.covalent_radii[atoms.numbers[j]])
    return {(min(a, b), max(a, b)) for a, b in zip(i[close].tolist(), j[close].tolist(), strict=True)}


@pytest.mark.parametrize(
    "cell",
    [
        [12.0, 13.0, 14.0],
        [[12.0, 0, 0], [5.0, 12.0, 0], [-4.0, 5.0, 13.0]],
        [[0.0, 9.0, 9.0], [9.0, 0.0, 9.0], [9.0, 9.0, 0.0]],
        [3.0, 3.0, 3.0],
    ],
    ids=["orthorhombic", "triclinic", "fcc", "narrow"],
)
@pytest.mark.parametrize("pbc", [True, False, [True, False, True]])
@pytest.mark.parametrize("seed", range(3))
def test_close_pairs_are_those_of_a_neighbour_list(cell, pbc, seed):
    atoms = crowd(40, cell, pbc, seed)
    guard = DistanceGuard(atoms, 0.6)
    found = {divmod(code, 40) for code in guard._close_pairs(atoms)[0].tolist()}
    assert found == pairs_by_list(atoms, 0.6)


def test_large_structures_are_searched_by_list(monkeypatch):
    atoms = crowd(60, [12.0, 13.0, 14.0], True, 0)
    few = DistanceGuard(atoms, 0.6)._close_pairs(atoms)
    monkeypatch.setattr(guards, "_MAX_DENSE_ATOMS", 59)
    many = DistanceGuard(atoms, 0.6)._close_pairs(atoms)
    assert np.array_equal(many[0], few[0])
    np.testing.assert_allclose(many[1], few[1], atol=1e-12)


def test_an_atom_that_meets_its_own_image_is_too_close():
    atoms = bulk("Cu")
    guard = DistanceGuard(atoms, 0.6)
    squeezed = atoms.copy()
    squeezed.set_cell(atoms.cell * 0.55, scale_atoms=True)
    assert not guard(atoms)
    assert guard(squeezed)


def test_molecules_at_rest_are_not_too_close():
    for name in ("H2O", "CH3CH2OH", "H2", "C6H6", "LiF", "SO2"):
        atoms = molecule(name)
        alone = atoms.copy()
        alone.positions *= 10
        assert not DistanceGuard(alone, 0.6)(atoms)


def test_only_the_pair_that_was_short_at_the_start_may_be():
    atoms = Atoms("H3", positions=[[0, 0, 0], [0, 0, 0.3], [0, 0, 2]])
    guard = DistanceGuard(atoms, 0.6)
    nearer = atoms.copy()
    nearer.positions[1, 2] = 0.28
    assert not guard(nearer)
    nearer.positions[2, 2] = 0.5
    assert guard(nearer)


@pytest.mark.parametrize("limit", [500, 0], ids=["all pairs", "by list"])
def test_a_pair_that_was_short_at_the_start_may_come_a_tenth_closer(limit, monkeypatch):
    monkeypatch.setattr(guards, "_MAX_DENSE_ATOMS", limit)
    atoms = Atoms("H4", positions=[[0, 0, 0], [0, 0, 0.3], [0, 5, 0], [0, 5, 0.2]])
    guard = DistanceGuard(atoms, 0.6)
    assert not guard(atoms)
    for distance, too_close in ((0.27 + 1e-6, False), (0.27 - 1e-6, True), (0.0, True)):
        nearer = atoms.copy()
        nearer.positions[1, 2] = distance
        assert guard(nearer) is too_close


def guards_of(atoms: Atoms, **changes) -> Guards:
    limits = {
        "temperature_K": 300.0,
        "max_temperature_factor": 2.0,
        "max_force_eV_per_A": 30.0,
        "min_distance_factor": 0.6,
    }
    return Guards(atoms, **(limits | changes))


def test_the_temperature_limit_allows_for_the_fluctuation_of_small_systems():
    small, large = (Atoms(f"Ar{n}", positions=np.arange(3 * n).reshape(n, 3)) for n in (2, 200))
    assert guards_of(small).max_temperature_K == pytest.approx(600 + 900 * math.sqrt(2 / 6))
    assert guards_of(large).max_temperature_K == pytest.approx(600 + 900 * math.sqrt(2 / 600))


def test_a_trajectory_from_a_hotter_run_may_cool():
    atoms = molecule("H2O")
    atoms.set_momenta(np.ones((3, 3)))
    temperature = atoms.get_temperature()
    assert temperature > 2 * 300
    assert guards_of(atoms).check_structure(atoms) is None
    atoms.set_momenta(np.full((3, 3), 2.0))
    assert guards_of(molecule("H2O")).check_structure(atoms) == "temperature"


def test_the_force_limit_is_on_the_length_of_one_atoms_force():
    watch = guards_of(molecule("H2O"))
    assert watch.check_forces(0.0, np.full((3, 3), 17.0)) is None  # 29.4 each, 51 together
    assert watch.check_forces(0.0, np.full((3, 3), 18.0)) == "force"
    assert watch.check_forces(math.nan, np.full((3, 3), 17.0)) == "non-finite"


@pytest.mark.parametrize("where", ["positions", "momenta", "cell"])
def test_a_structure_that_is_not_finite_is_found(where):
    atoms = molecule("H2O")
    atoms.set_momenta(np.zeros((3, 3)))
    watch = guards_of(atoms)
    (atoms.cell.array if where == "cell" else atoms.arrays[where])[0, 0] = math.nan
    assert watch.check_structure(atoms) == "non-finite"
