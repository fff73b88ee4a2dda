from __future__ import annotations

import sys
import tempfile

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from pyscf import lib
from pyscf.dft.numint import NumInt

from fff.base.errors import ReferenceFailure, ReferenceSetupError
from fff.config.reference import PyscfReference
from fff.reference import kohn_sham, make_reference

SMALL = PyscfReference(kind="pyscf", basis="sto-3g", grid_level=1, convergence_eV=1e-8)


@pytest.mark.parametrize("functional", ["LDA,VWN", "PBE", "r2SCAN", "B3LYP"])
@pytest.mark.parametrize("multiplicity", [1, 3])
def test_what_is_kept_on_the_grid_changes_no_number(monkeypatch, functional, multiplicity):
    section = SMALL.model_copy(update={"functional": functional, "multiplicity": multiplicity})
    atoms = Atoms("H2", [(0, 0, 0), (0, 0.1, 0.8)])
    kept_energy, kept_forces, _ = kohn_sham.solve(section, atoms)
    monkeypatch.setattr(kohn_sham, "_KeptNumInt", lambda budget_MB: NumInt())
    monkeypatch.setattr(kohn_sham, "_SMALL_DENSITY", 0)

    energy, forces, _ = kohn_sham.solve(section, atoms)

    assert kept_energy == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(kept_forces, forces, atol=1e-5)


def test_the_basis_functions_are_evaluated_once_and_for_the_gradient(monkeypatch):
    evaluated = []
    block_loop = NumInt.block_loop

    def counted(self, mol, grids, nao=None, deriv=0, *args, **options):
        evaluated.append(deriv)
        return block_loop(self, mol, grids, nao, deriv, *args, **options)

    monkeypatch.setattr(NumInt, "block_loop", counted)

    kohn_sham.solve(SMALL, molecule("H2"))

    # 0 is for the pruning of the grid.
    assert sorted(evaluated) == [0, 1, 2]


def test_what_does_not_fit_into_memory_is_not_kept(monkeypatch):
    evaluated = []
    block_loop = NumInt.block_loop

    def counted(self, mol, grids, nao=None, deriv=0, *args, **options):
        evaluated.append(deriv)
        return block_loop(self, mol, grids, nao, deriv, *args, **options)

    monkeypatch.setattr(NumInt, "block_loop", counted)
    monkeypatch.setattr(kohn_sham, "_BYTES_PER_MB", 1)

    kohn_sham.solve(SMALL, molecule("H2"))

    assert evaluated.count(1) > 2


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (2.5, 0), (1, 1), (-1, 1), (0.5, 3.0)])
def test_products_are_those_of_pyscf(order, alpha, beta):
    rng = np.random.default_rng(0)
    a, b, c = (np.asarray(rng.normal(size=shape), order=order) for shape in ((5, 7), (7, 3), (5, 3)))
    expected = alpha * (a @ b) + beta * c

    assert lib.ddot is kohn_sham._ddot
    np.testing.assert_allclose(lib.ddot(a, b, alpha, c.copy(), beta), expected, atol=1e-12)
    np.testing.assert_allclose(lib.dot(a, b, alpha), alpha * (a @ b), atol=1e-12)
    into = np.ascontiguousarray(c)
    assert lib.ddot(a, b, alpha, into, beta) is into


def test_fitted_integrals_are_calculated_once_if_they_fit():
    field = kohn_sham._mean_field(SMALL, kohn_sham._molecule(SMALL, molecule("H2O")))
    small = SMALL.model_copy(update={"max_memory_MB": 0.01})
    without = kohn_sham._mean_field(small, kohn_sham._molecule(small, molecule("H2O")))

    assert field.with_df._cderi is not None
    assert without.with_df._cderi is None
    kohn_sham._close_files(field)
    kohn_sham._close_files(without)


def test_a_guess_nearby_saves_cycles_and_changes_no_number(monkeypatch):
    cycles = []
    mean_field = kohn_sham._mean_field

    def watched(section, mol):
        field = mean_field(section, mol)
        field.callback = lambda env: cycles.append(env["cycle"])
        return field

    monkeypatch.setattr(kohn_sham, "_mean_field", watched)
    first, second = molecule("H2O"), molecule("H2O")
    second.rattle(0.001, seed=1)
    section = SMALL.model_copy(update={"functional": "HF"})
    guess = kohn_sham.solve(section, first)[2]
    cycles.clear()
    cold_energy, cold_forces, _ = kohn_sham.solve(section, second)
    n_cold = len(cycles)
    cycles.clear()

    energy, forces, _ = kohn_sham.solve(section, second, guess)

    assert len(cycles) < n_cold
    assert energy == pytest.approx(cold_energy, abs=1e-7)
    np.testing.assert_allclose(forces, cold_forces, atol=1e-4)


@pytest.mark.parametrize("other", [molecule("H2"), Atoms("OH2", molecule("H2O").positions + 1.0)])
def test_a_guess_of_another_or_a_far_structure_is_not_used(other):
    section = SMALL.model_copy(update={"functional": "HF"})
    guess = kohn_sham.solve(section, molecule("H2O"))[2]

    assert kohn_sham._guessed_density(guess, other, None) is None


def test_a_guess_has_the_right_number_of_electrons():
    section = SMALL.model_copy(update={"functional": "HF", "multiplicity": 3})
    oxygen = molecule("O2")
    guess = kohn_sham.solve(section, oxygen)[2]
    oxygen.positions[0, 0] += 0.05
    mol = kohn_sham._molecule(section, oxygen)

    density = kohn_sham._guessed_density(guess, oxygen, mol)

    overlap = mol.intor("int1e_ovlp")
    assert [np.vdot(spin, overlap) for spin in density] == pytest.approx([9.0, 7.0])


def test_heavy_elements_get_the_core_potential_of_their_basis_set():
    assert kohn_sham._core_potentials("def2-SVP", {"H", "Cl", "Br", "I"}) == {"I": "def2-SVP"}
    assert kohn_sham._core_potentials("lanl2dz", {"C", "Na"}) == {"Na": "lanl2dz"}
    assert kohn_sham._core_potentials("sto-3g", {"I"}) == {}


def test_a_triplet_lies_above_the_singlet_of_water():
    singlet = kohn_sham.solve(SMALL.model_copy(update={"functional": "HF"}), molecule("H2O"))
    triplet = kohn_sham.solve(
        SMALL.model_copy(update={"functional": "HF", "multiplicity": 3}), molecule("H2O")
    )

    assert triplet[0] > singlet[0] + 1


@pytest.mark.filterwarnings("ignore:.*not strictly positive definite")
def test_atoms_in_one_place_are_a_failure():
    with pytest.raises(ReferenceFailure, match="PySCF failed"):
        make_reference(SMALL).calculate(Atoms("H2", np.zeros((2, 3))))


@pytest.mark.parametrize("module", ["pyscf.dispersion", "fff.reference.kohn_sham"])
def test_a_missing_library_is_a_set_up_error(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    if module == "fff.reference.kohn_sham":
        monkeypatch.delattr("fff.reference.kohn_sham")

    with pytest.raises(ReferenceSetupError) as raised:
        make_reference(SMALL.model_copy(update={"dispersion": "d4"})).check(molecule("H2"))

    assert "pip install pyscf" in raised.value.hint


def test_no_scratch_file_is_left_open(tmp_path, monkeypatch):
    opened = []

    def make(**options):
        opened.append(tempfile.NamedTemporaryFile(dir=tmp_path))  # noqa: SIM115 - closing it is what is tested
        return opened[-1]

    monkeypatch.setattr("pyscf.lib.NamedTemporaryFile", make)

    kohn_sham.solve(SMALL, molecule("H2"))

    assert opened
    assert all(file.closed for file in opened)
    assert not list(tmp_path.iterdir())
