"""What `ReferenceMethod` promises, asked of every implementation."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from fff.base.errors import NotConvergedError, ReferenceFailure, ReferenceSetupError
from fff.base.ids import structure_hash
from fff.external import Workplace
from fff.reference import ReferenceMethod, make_reference


@dataclass(frozen=True)
class Case:
    """A method, a structure it knows, and what to expect of it.

    Attributes:
        section: The section `reference`.
        atoms: The structure.
        energy_eV: Its energy from another source: the library's documentation, or its own command line.
        force_error_eV_per_A: Bound on the finite-difference error; integration grids need a wide one.
        other: Another structure, to calculate in between.
        unconverged: Options that keep it from converging, or None for methods that have nothing to converge.
    """

    section: dict[str, Any]
    atoms: Atoms
    energy_eV: float | None
    force_error_eV_per_A: float
    other: Atoms
    unconverged: dict[str, Any] | None = field(default=None)


def rattled(atoms: Atoms, sigma_A: float = 0.05) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(sigma_A, seed=7)
    return atoms


def argon() -> Atoms:
    return rattled(bulk("Ar", "fcc", a=5.3, cubic=True), 0.2)


WATER, HYDROGEN = molecule("H2O"), molecule("H2")
OXYGEN = molecule("O2")
XTB = {"kind": "xtb"}
PYSCF = {"kind": "pyscf", "basis": "sto-3g", "convergence_eV": 1e-8}
CYCLES = {"max_cycles": 1}
ITERATIONS = {"max_iterations": 1}
XTB_CLI = {"kind": "xtb-cli"}
NWCHEM = {
    "kind": "ase",
    "calculator": "nwchem",
    "parameters": {"theory": "scf", "basis": "sto-3g", "scf": {"thresh": 1e-7}},
}
NWCHEM_CYCLES = {"parameters": {"theory": "scf", "basis": "6-31g", "scf": {"maxiter": 1}}}
CASES = {
    # Energy of the first: the documentation of tblite's ASE calculator.
    "gfn2": Case(XTB, WATER, -137.96777, 1e-4, molecule("CH4"), ITERATIONS),
    "gfn2-rattled": Case(XTB, rattled(molecule("CH3CH2OH")), None, 1e-4, WATER, ITERATIONS),
    "gfn1": Case({**XTB, "method": "GFN1-xTB"}, WATER, -156.96750, 1e-4, molecule("CH4"), ITERATIONS),
    "gfn2-anion": Case({**XTB, "charge": -1}, molecule("OH"), None, 1e-4, molecule("OH"), ITERATIONS),
    "gfn2-triplet": Case({**XTB, "multiplicity": 3}, OXYGEN, None, 1e-4, OXYGEN, None),
    "gfn1-crystal": Case({**XTB, "method": "GFN1-xTB"}, argon(), None, 1e-3, WATER, None),
    "emt": Case(
        {"kind": "ase", "calculator": "emt"}, rattled(bulk("Cu", cubic=True)), None, 1e-5, bulk("Ni")
    ),
    "lj": Case(
        {"kind": "ase", "calculator": "lj", "parameters": {"sigma": 3.4, "epsilon": 0.01, "smooth": True}},
        argon(),
        None,
        1e-5,
        bulk("Ar", "fcc", a=5.3),
    ),
    "xtb-cli": Case(XTB_CLI, rattled(WATER), None, 1e-4, molecule("CH4"), ITERATIONS),
    "xtb-cli-water": Case(
        {**XTB_CLI, "solvent": "water"}, rattled(WATER), None, 1e-4, molecule("CH4"), ITERATIONS
    ),
    "xtb-cli-anion": Case({**XTB_CLI, "charge": -1}, molecule("OH"), None, 1e-4, molecule("OH"), ITERATIONS),
    "gfn-ff": Case({**XTB_CLI, "method": "GFN-FF"}, rattled(WATER), None, 1e-4, molecule("CH4"), None),
    # Energy: PySCF, RHF/STO-3G of the same structure.
    "nwchem-hf": Case(NWCHEM, HYDROGEN, -30.39241, 1e-4, WATER, NWCHEM_CYCLES),
    "hf": Case({**PYSCF, "functional": "HF", "density_fitting": False}, WATER, None, 1e-4, HYDROGEN, CYCLES),
    "pbe": Case(PYSCF, rattled(WATER), None, 5e-3, HYDROGEN, CYCLES),
    "pbe-triplet": Case({**PYSCF, "multiplicity": 3}, OXYGEN, None, 5e-3, OXYGEN, CYCLES),
    "lda-whole-integrals": Case(
        {**PYSCF, "functional": "LDA,VWN", "density_fitting": False}, HYDROGEN, None, 5e-3, WATER, CYCLES
    ),
    "b3lyp-d4": Case(
        {**PYSCF, "functional": "B3LYP", "dispersion": "d4"}, WATER, None, 5e-3, HYDROGEN, CYCLES
    ),
    "pbe-d3bj": Case({**PYSCF, "dispersion": "d3bj"}, HYDROGEN, None, 5e-3, HYDROGEN, None),
    "r2scan": Case({**PYSCF, "functional": "r2SCAN"}, HYDROGEN, None, 5e-3, HYDROGEN, None),
}


# Programs that the cases need; where one is not installed, its cases are skipped.
PROGRAMS = {"xtb-cli": "xtb", "nwchem": "nwchem"}
SLOW = {"nwchem-hf", "pbe", "pbe-triplet", "pbe-d3bj", "b3lyp-d4", "r2scan", "xtb-cli-water", "xtb-cli-anion"}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def case(request) -> Case:
    case = CASES[request.param]
    program = PROGRAMS.get(case.section.get("calculator", case.section["kind"]))
    if program and not shutil.which(program):
        pytest.skip(f"the program {program} is not installed")
    return case


@pytest.fixture
def make(tmp_path) -> Callable[[dict[str, Any]], ReferenceMethod]:
    return lambda section: make_reference(section, Workplace(tmp_path / "tasks"))


@pytest.fixture
def method(case, make) -> ReferenceMethod:
    return make(case.section)


def test_a_label_has_the_shapes_and_the_structure_that_was_asked_for(case, method):
    label = method.calculate(case.atoms)

    assert isinstance(label.energy_eV, float)
    assert label.forces_eV_per_A.shape == (len(case.atoms), 3)
    assert label.forces_eV_per_A.dtype == np.float64
    assert label.hash == structure_hash(case.atoms)
    assert label.atoms.calc is None
    assert label.wall_s > 0
    if case.atoms.pbc.all():
        assert label.stress_eV_per_A3.shape == (6,)
    else:
        assert label.stress_eV_per_A3 is None
    if case.energy_eV is not None:
        assert label.energy_eV == pytest.approx(case.energy_eV, abs=1e-4)


def test_forces_are_the_derivative_of_the_energy(case, method):
    direction = np.random.default_rng(3).normal(size=(len(case.atoms), 3))
    direction /= np.linalg.norm(direction)
    step_A = 2e-3
    energies = []
    for sign in (1, -1):
        moved = case.atoms.copy()
        moved.positions += sign * step_A * direction
        energies.append(method.calculate(moved).energy_eV)

    slope = (energies[0] - energies[1]) / (2 * step_A)

    forces = method.calculate(case.atoms).forces_eV_per_A
    assert -np.vdot(forces, direction) == pytest.approx(slope, abs=case.force_error_eV_per_A)


def test_stress_is_the_derivative_of_the_energy(case, method):
    if not case.atoms.pbc.all():
        pytest.skip("isolated")
    strain = np.zeros((3, 3))
    strain[0, 0], strain[0, 1], strain[1, 0] = 1.0, 0.5, 0.5
    size = 1e-4
    energies = []
    for sign in (1, -1):
        strained = case.atoms.copy()
        strained.set_cell(strained.cell.array @ (np.eye(3) + sign * size * strain), scale_atoms=True)
        energies.append(method.calculate(strained).energy_eV)

    slope = (energies[0] - energies[1]) / (2 * size) / case.atoms.get_volume()

    stress = method.calculate(case.atoms).stress_eV_per_A3
    # Voigt: xx + xy, the off-diagonal pair counted twice with one half each.
    assert stress[0] + stress[5] == pytest.approx(slope, abs=2e-4)


def test_a_label_does_not_depend_on_what_was_calculated_before(case, method):
    first = method.calculate(case.atoms)
    method.calculate(case.other)
    second = method.calculate(case.atoms)

    assert second.energy_eV == pytest.approx(first.energy_eV, abs=1e-9)
    np.testing.assert_allclose(second.forces_eV_per_A, first.forces_eV_per_A, atol=1e-8)


def test_what_the_hash_does_not_see_does_not_change_the_label(case, method):
    dressed = case.atoms.copy()
    dressed.set_constraint(FixAtoms([0]))
    dressed.set_initial_charges(np.full(len(dressed), 0.5))
    dressed.set_tags(1)

    label = method.calculate(dressed)

    np.testing.assert_allclose(label.forces_eV_per_A, method.calculate(case.atoms).forces_eV_per_A, atol=1e-8)
    assert not label.atoms.constraints


def test_momenta_stay_with_the_structure(case, method):
    moving = case.atoms.copy()
    moving.set_momenta(np.ones((len(moving), 3)))

    assert np.array_equal(method.calculate(moving).atoms.get_momenta(), moving.get_momenta())


def test_the_ase_calculator_gives_the_numbers_of_the_label(case, method):
    label = method.calculate(case.atoms)
    atoms = case.atoms.copy()
    atoms.calc = method.ase_calculator()

    assert atoms.get_potential_energy() == pytest.approx(label.energy_eV, abs=1e-7)
    np.testing.assert_allclose(atoms.get_forces(), label.forces_eV_per_A, atol=1e-6)
    if label.stress_eV_per_A3 is not None:
        np.testing.assert_allclose(atoms.get_stress(), label.stress_eV_per_A3, atol=1e-6)


def test_not_converged_is_a_failure_that_pickles_and_no_label(case, make):
    if case.unconverged is None:
        pytest.skip("nothing to converge, or converged at once")
    method = make({**case.section, **case.unconverged})

    with pytest.raises(NotConvergedError) as raised:
        method.calculate(case.atoms)

    copy = pickle.loads(pickle.dumps(raised.value))
    assert type(copy) is NotConvergedError
    assert (copy.message, copy.hint, copy.context) == (
        raised.value.message,
        raised.value.hint,
        raised.value.context,
    )
    assert copy.failure_class == "structure"


def test_the_ase_calculator_raises_what_the_method_raises(case, make):
    if case.unconverged is None:
        pytest.skip("nothing to converge, or converged at once")
    atoms = case.atoms.copy()
    atoms.calc = make({**case.section, **case.unconverged}).ase_calculator()

    with pytest.raises(NotConvergedError):
        atoms.get_forces()


def test_a_position_that_is_not_finite_is_a_failure(case, method):
    broken = case.atoms.copy()
    broken.positions[0, 0] = np.nan

    with pytest.raises(ReferenceFailure):
        method.calculate(broken)


def test_a_structure_without_atoms_is_a_failure(method):
    with pytest.raises(ReferenceFailure):
        method.calculate(Atoms())


def test_settings_are_json_and_name_no_limits(case, method):
    settings = method.settings

    assert json.loads(json.dumps(settings)) == settings
    assert settings["kind"] == case.section["kind"]
    assert not settings.keys() & {"time_limit_s", "max_memory_MB", "max_cycles", "max_iterations"}
    assert not settings.keys() & {"command", "keep_files"}
    assert make_reference({**case.section, "time_limit_s": 5.0}).settings == settings


def test_a_method_is_what_the_protocol_says(case, method):
    assert isinstance(method, ReferenceMethod)
    assert method.name
    assert method.elements is None or set(case.atoms.get_chemical_symbols()) <= method.elements
    method.check(case.atoms)


@pytest.mark.parametrize(
    ("section", "atoms", "key"),
    [
        ({"kind": "xtb"}, Atoms("U"), "reference.method"),
        ({"kind": "xtb"}, molecule("OH"), "reference.multiplicity"),
        ({"kind": "xtb", "charge": 1}, molecule("H2O"), "reference.multiplicity"),
        ({"kind": "xtb", "multiplicity": 2}, molecule("H2O"), "reference.multiplicity"),
        ({"kind": "xtb", "multiplicity": 5}, molecule("H2"), "reference.multiplicity"),
        ({"kind": "pyscf"}, molecule("OH"), "reference.multiplicity"),
        ({"kind": "pyscf"}, bulk("Cu"), "reference.kind"),
        ({"kind": "pyscf", "functional": "PBEE"}, molecule("H2"), "reference.functional"),
        ({"kind": "pyscf", "basis": "def2-SPV"}, molecule("H2"), "reference.basis"),
        ({"kind": "pyscf", "basis": "def2-SVP"}, Atoms("Am", [(0, 0, 0)]), "reference.multiplicity"),
        ({"kind": "pyscf", "basis": "def2-SVP"}, Atoms("U"), "reference.basis"),
        ({"kind": "pyscf", "functional": "LDA,VWN", "dispersion": "d4"}, HYDROGEN, "reference.dispersion"),
        ({"kind": "xtb-cli", "command": ["no-such-xtb"]}, HYDROGEN, "reference.command"),
        ({"kind": "ase", "calculator": "emt"}, bulk("Fe"), "reference.calculator"),
        ({"kind": "ase", "calculator": "lennard"}, bulk("Ar"), "reference.calculator"),
        ({"kind": "ase", "calculator": "asap"}, bulk("Cu"), "reference.calculator"),
        ({"kind": "ase", "calculator": "orca"}, HYDROGEN, "reference.calculator"),
        (
            {"kind": "ase", "calculator": "lj", "parameters": {"sigmo": 3.0}},
            bulk("Ar"),
            "reference.calculator",
        ),
        (
            {"kind": "ase", "calculator": "nwchem", "parameters": {"command": "no-such-code PREFIX.nwi"}},
            HYDROGEN,
            "reference.parameters.command",
        ),
    ],
)
def test_what_does_not_fit_is_a_set_up_error_that_names_key_value_and_repair(section, atoms, key):
    method = make_reference(section)

    for attempt in (method.check, method.calculate):
        with pytest.raises(ReferenceSetupError) as raised:
            attempt(atoms)
        assert raised.value.context["key"] == key
        assert str(raised.value.context["value"]) in str(raised.value)
        assert raised.value.hint
        assert raised.value.failure_class == "setup"
