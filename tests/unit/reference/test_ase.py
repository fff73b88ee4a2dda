from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import (
    Calculator,
    InputError,
    SCFError,
    all_changes,
    external_calculators,
    register_calculator_class,
)

from fff.base.errors import NotConvergedError, ReferenceFailure, ReferenceSetupError
from fff.external import Workplace
from fff.reference import make_reference


@pytest.fixture
def register():
    """Register calculator classes with ASE for one test."""
    before = dict(external_calculators)

    def add(name, behaviour, implemented=("energy", "forces")):
        class Registered(Calculator):
            implemented_properties = list(implemented)  # noqa: RUF012 - as ASE declares it

            def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
                super().calculate(atoms, list(properties), list(system_changes))
                self.results = behaviour(self)

        register_calculator_class(name, Registered)
        return make_reference({"kind": "ase", "calculator": name})

    yield add
    external_calculators.clear()
    external_calculators.update(before)


def fail(error):
    def behaviour(calculator):
        raise error

    return behaviour


def numbers(**results):
    return lambda calculator: {"energy": 1.0, "forces": np.zeros((len(calculator.atoms), 3)), **results}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SCFError("no"), NotConvergedError),
        (InputError("no pseudopotential"), ReferenceSetupError),
        (NotImplementedError("no such element"), ReferenceSetupError),
        (FileNotFoundError("no code"), ReferenceSetupError),
        (ZeroDivisionError("whatever"), ReferenceFailure),
        (RuntimeError("whatever"), ReferenceFailure),
    ],
)
def test_what_a_calculator_raises_is_named(register, error, kind):
    with pytest.raises(ReferenceFailure) as raised:
        register("failing", fail(error)).calculate(molecule("H2"))

    assert type(raised.value) is kind
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "results",
    [{"energy": np.nan}, {"forces": np.full((2, 3), np.inf)}, {"forces": np.zeros((3, 3))}],
    ids=["energy", "forces", "shape"],
)
def test_numbers_that_are_none_are_no_label(register, results):
    with pytest.raises(NotConvergedError):
        register("strange", numbers(**results)).calculate(molecule("H2"))


def test_a_calculator_that_failed_is_made_anew(register):
    calls = []

    def once(calculator):
        calls.append(calculator)
        if len(calls) == 1:
            raise RuntimeError
        return numbers()(calculator)

    method = register("once", once)
    with pytest.raises(ReferenceFailure):
        method.calculate(molecule("H2"))
    method.calculate(molecule("H2"))

    assert calls[0] is not calls[1]


def test_the_energy_is_the_one_that_the_forces_belong_to(register):
    method = register("smeared", numbers(free_energy=0.75), ("energy", "free_energy", "forces"))

    assert method.calculate(molecule("H2")).energy_eV == 0.75


def test_stress_is_taken_where_it_is_there_and_means_something(register):
    method = register("stressed", numbers(stress=np.arange(6.0)), ("energy", "forces", "stress"))

    assert np.array_equal(method.calculate(bulk("Cu")).stress_eV_per_A3, np.arange(6.0))
    assert method.calculate(molecule("H2")).stress_eV_per_A3 is None


def test_a_name_near_a_known_one_is_suggested():
    with pytest.raises(ReferenceSetupError) as raised:
        make_reference({"kind": "ase", "calculator": "emtt"}).check(bulk("Cu"))

    assert "emt" in raised.value.hint


def test_a_parameter_near_a_known_one_is_suggested():
    with pytest.raises(ReferenceSetupError) as raised:
        make_reference({"kind": "ase", "calculator": "lj", "parameters": {"sigm": 1.0}}).check(bulk("Ar"))

    assert "sigma" in raised.value.hint


def test_parameters_reach_the_calculator_and_the_settings():
    near, far = (
        make_reference({"kind": "ase", "calculator": "lj", "parameters": {"sigma": s}}) for s in (3.0, 3.4)
    )
    argon = bulk("Ar", "fcc", a=5.3)

    assert near.calculate(argon).energy_eV != far.calculate(argon).energy_eV
    assert near.settings != far.settings


def test_emt_knows_few_elements():
    assert "Cu" in make_reference({"kind": "ase", "calculator": "emt"}).elements
    assert make_reference({"kind": "ase", "calculator": "lj"}).elements is None


def test_a_code_that_exchanges_files_works_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trace = tmp_path / "trace"
    code = tmp_path / "code.sh"
    code.write_text(f"#!/bin/sh\npwd > {trace}\nexit 1\n")
    code.chmod(0o755)
    section = {"kind": "ase", "calculator": "nwchem", "parameters": {"command": f"{code} PREFIX.nwi"}}
    method = make_reference(section, Workplace(tmp_path / "tasks", name="label-7"))

    with pytest.raises(ReferenceFailure, match="H2: nwchem ended with exit code 1") as raised:
        method.calculate(molecule("H2"))

    folder = Path(trace.read_text().strip())
    kept = tmp_path / "tasks" / "failed-label-7-1"
    assert folder.parent == tmp_path / "tasks"
    assert folder.name.startswith("running-label-7-")
    assert not folder.exists()
    assert raised.value.context["work_dir"] == str(kept)
    assert (kept / "nwchem.nwi").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"trace", "code.sh", "tasks"}


@pytest.mark.filterwarnings("ignore:Loaded VASP_PP_PATH from environment")
def test_a_code_that_only_ase_can_run_works_in_a_folder_of_its_own_too(tmp_path, monkeypatch):
    potential = tmp_path / "potpaw" / "Cu" / "POTCAR"
    potential.parent.mkdir(parents=True)
    potential.write_text("a potential\n")
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    trace = tmp_path / "trace"
    code = tmp_path / "vasp.sh"
    code.write_text(f"#!/bin/sh\npwd > {trace}\nexit 1\n")
    code.chmod(0o755)
    parameters = {"command": str(code), "xc": "PW91", "pp": "LDA"}
    section = {"kind": "ase", "calculator": "vasp", "parameters": parameters}
    method = make_reference(section, Workplace(tmp_path / "tasks", name="label-7"))

    with pytest.raises(ReferenceFailure, match="vasp of Cu failed") as raised:
        method.calculate(bulk("Cu"))

    folder = Path(trace.read_text().strip())
    assert folder.parent == tmp_path / "tasks"
    assert folder.name.startswith("running-label-7-")
    assert raised.value.context["work_dir"] == str(tmp_path / "tasks" / "failed-label-7-1")
    assert (tmp_path / "tasks" / "failed-label-7-1" / "INCAR").exists()


@pytest.mark.parametrize(
    "command", ["vasp_std; rm -rf here", "vasp_std | tee out", "vasp_std && date", "$(date)"]
)
def test_no_command_can_hold_shell_syntax_whoever_starts_it(command, tmp_path):
    with pytest.raises(ReferenceSetupError, match=r"reference\.parameters\.command"):
        make_reference({"kind": "ase", "calculator": "vasp", "parameters": {"command": command}}).check(
            bulk("Cu")
        )
