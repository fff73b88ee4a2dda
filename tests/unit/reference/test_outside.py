"""ASE's file-based calculators with codes that are scripts: how they are called, and what their ends mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.nwchem import NWChem
from ase.config import cfg

from fff.base.errors import (
    NoSpaceError,
    NotConvergedError,
    ReferenceFailure,
    ReferenceLostError,
    ReferenceSetupError,
    TimeLimitError,
)
from fff.base.units import HARTREE_eV, HARTREE_PER_BOHR_eV_PER_A
from fff.external import Workplace
from fff.reference import make_reference
from fff.reference.outside import has_not_converged, runs_code

HYDROGEN = molecule("H2")
REPORT = 'printf "%s\\n" "$@" > arguments; pwd > place; env > environment'
# As much of ORCA's output as ASE reads: energy -1 Hartree, gradient 0.1 to 0.6 Hartree/Bohr.
ORCA = """
cat > /dev/null
cat << END
Number of atoms                             ...      2
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  H      0.000000    0.000000    0.368583
  H      0.000000    0.000000   -0.368583

FINAL SINGLE POINT ENERGY        -1.000000000000
ORCA TERMINATED NORMALLY
END
(echo '# The current gradient'; echo '#'; seq 0.1 0.1 0.6; echo '# The at') > orca.engrad
"""


@pytest.fixture
def code(tmp_path):
    """Write an executable script into a folder with a blank in its name, and return its path, quoted."""

    def write(text):
        folder = tmp_path / "my codes"
        folder.mkdir(exist_ok=True)
        path = folder / "code"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return f"'{path}'"

    return write


@pytest.fixture
def nwchem(tmp_path):
    """Make a method that runs a command in the place of NWChem."""

    def make(command, **section):
        section = {"kind": "ase", "calculator": "nwchem", "parameters": {"command": command}, **section}
        return make_reference(section, Workplace(tmp_path / "tasks", name="label-7"))

    return make


@pytest.fixture
def in_ase_config():
    """Add a command to ASE's configuration, as a user's file would."""
    added = []

    def add(name, command):
        cfg.parser[name] = {"command": command}
        added.append(name)

    yield add
    for name in added:
        cfg.parser.remove_section(name)


def failure(method, kind=ReferenceFailure):
    with pytest.raises(kind) as raised:
        method.calculate(HYDROGEN)
    assert type(raised.value) is kind
    return raised.value


def kept(error):
    return Path(error.context["work_dir"])


# --- how codes are called ----------------------------------------------------------------------------------


def test_a_command_with_a_prefix_runs_without_a_shell_in_its_folder(code, nwchem, tmp_path, monkeypatch):
    monkeypatch.setenv("GIVEN", "yes")
    here = Path.cwd()
    error = failure(nwchem(f"OWN=1 {code(REPORT + '; exit 1')} PREFIX.nwi '$HOME' > PREFIX.nwo 2> errors"))
    folder = kept(error)
    assert (folder / "arguments").read_text() == "nwchem.nwi\n$HOME\n"
    assert Path((folder / "place").read_text().strip()).parent == tmp_path / "tasks"
    assert {"OWN=1", "GIVEN=yes"} <= set((folder / "environment").read_text().splitlines())
    assert {path.name for path in folder.iterdir()} >= {"nwchem.nwi", "nwchem.nwo", "errors"}
    assert Path.cwd() == here


def test_a_command_from_ases_configuration_gets_the_arguments_that_ase_adds(code, in_ase_config, tmp_path):
    in_ase_config("nwchem", f"{code(REPORT + '; echo out; exit 1')} --fast")
    method = make_reference({"kind": "ase", "calculator": "nwchem"}, Workplace(tmp_path))
    folder = kept(failure(method))
    assert (folder / "arguments").read_text() == "--fast\nnwchem.nwi\n"
    assert (folder / "nwchem.nwo").read_text() == "out\n"


@pytest.mark.filterwarnings("ignore:Please use ase.io.read:DeprecationWarning")
def test_a_calculator_with_a_profile_runs_outside_too(code, in_ase_config, tmp_path, monkeypatch):
    monkeypatch.setattr("ase.calculators.genericfileio.BaseProfile.run", None)
    in_ase_config("orca", code(REPORT + ORCA))
    section = {"kind": "ase", "calculator": "orca", "keep_files": True}
    method = make_reference(section, Workplace(tmp_path / "tasks", name="label-7"))

    label = method.calculate(HYDROGEN)

    assert label.energy_eV == pytest.approx(-HARTREE_eV, rel=1e-6)
    expected = -np.arange(1, 7).reshape(2, 3) / 10 * HARTREE_PER_BOHR_eV_PER_A
    np.testing.assert_allclose(label.forces_eV_per_A, expected, rtol=1e-6)
    folder = tmp_path / "tasks" / "label-7-1"
    assert (folder / "arguments").read_text() == "orca.inp\n"
    assert "FINAL SINGLE POINT" in (folder / "orca.out").read_text()
    # The same again is calculated again.
    method.calculate(HYDROGEN)
    assert (tmp_path / "tasks" / "label-7-2").is_dir()


@pytest.mark.filterwarnings("ignore:Please use ase.io.read:DeprecationWarning")
def test_a_finished_calculation_leaves_nothing_unless_asked(code, in_ase_config, tmp_path):
    in_ase_config("orca", code(ORCA))
    make_reference({"kind": "ase", "calculator": "orca"}, Workplace(tmp_path / "tasks")).calculate(HYDROGEN)
    assert not list((tmp_path / "tasks").iterdir())


def test_a_code_that_cannot_bear_blanks_in_paths_sees_none(code, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    section = {"kind": "ase", "calculator": "nwchem", "parameters": {"command": code("exit 1")}}
    error = failure(make_reference(section, Workplace(tmp_path / "my runs", name="x")))
    assert kept(error) == tmp_path / "my runs" / "failed-x-1"
    text = (kept(error) / "nwchem.nwi").read_text()
    (place,) = [line.removeprefix("permanent_dir ") for line in text.splitlines() if "permanent" in line]
    assert " " not in place
    assert {path.name for path in tmp_path.iterdir()} == {"my codes", "my runs"}


def test_which_calculators_run_outside():
    assert runs_code(NWChem())
    assert not runs_code(EMT())


# --- what cannot be run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["nwchem PREFIX.nwi | tee out", "module load x; nwchem", "nwchem $OPTIONS"]
)
def test_a_command_that_needs_a_shell_is_refused_before_anything_runs(nwchem, command, tmp_path):
    with pytest.raises(ReferenceSetupError, match=r"reference\.parameters\.command is") as raised:
        nwchem(command).check(HYDROGEN)
    assert raised.value.context == {"key": "reference.parameters.command", "value": command}
    assert not (tmp_path / "tasks").exists()


def test_a_missing_executable_is_found_missing_before_anything_runs(nwchem):
    with pytest.raises(ReferenceSetupError, match="executable no-such-code was not found") as raised:
        nwchem("no-such-code PREFIX.nwi").check(HYDROGEN)
    assert "reference.parameters.command" in raised.value.hint


def test_a_command_in_ases_configuration_is_named_as_such(in_ase_config, tmp_path):
    in_ase_config("orca", "no-such-code")
    with pytest.raises(ReferenceSetupError) as raised:
        make_reference({"kind": "ase", "calculator": "orca"}, Workplace(tmp_path)).check(HYDROGEN)
    assert "section [orca] of ASE's configuration file" in raised.value.hint


def test_names_of_files_may_be_given(code, tmp_path):
    parameters = {"command": f"{code('exit 3')} PREFIX.nwi", "label": "water"}
    section = {"kind": "ase", "calculator": "nwchem", "parameters": parameters}
    error = failure(make_reference(section, Workplace(tmp_path)))
    assert (kept(error) / "water.nwi").exists()


@pytest.mark.parametrize("key", ["directory", "label", "restart"])
def test_places_of_their_own_are_refused(tmp_path, key):
    section = {"kind": "ase", "calculator": "nwchem", "parameters": {"command": "true", key: "over/here"}}
    with pytest.raises(ReferenceSetupError, match=rf"reference\.parameters\.{key} is given"):
        make_reference(section, Workplace(tmp_path)).check(HYDROGEN)


def test_a_command_that_ase_would_ignore_is_refused(in_ase_config, tmp_path):
    in_ase_config("orca", "true")
    section = {"kind": "ase", "calculator": "orca", "parameters": {"command": "orca"}}
    with pytest.raises(ReferenceSetupError, match=r"does not take reference\.parameters\.command") as raised:
        make_reference(section, Workplace(tmp_path)).check(HYDROGEN)
    assert "[orca]" in raised.value.hint


def test_commands_and_places_are_not_among_what_changes_the_numbers():
    def settings(**parameters):
        section = {"kind": "ase", "calculator": "nwchem", "parameters": parameters, "keep_files": True}
        return make_reference(section).settings

    plain = settings(basis="sto-3g")
    assert plain == settings(basis="sto-3g", command="mpirun -np 8 nwchem PREFIX.nwi", scratch="/fast")
    assert plain != settings(basis="6-31g")
    assert plain["parameters"] == {"basis": "sto-3g"}
    assert "keep_files" not in plain


# --- what their ends mean ----------------------------------------------------------------------------------


def test_a_code_that_fails_says_why_in_its_failure(code, nwchem):
    error = failure(nwchem(f"{code('echo working; echo no such basis set >&2; exit 3')} PREFIX.nwi"))
    assert error.message.startswith("H2: nwchem ended with exit code 3. Its files are in ")
    assert error.message.endswith("Last lines: no such basis set")
    assert error.failure_class == "structure"
    assert kept(error).name == "failed-label-7-1"


def test_without_messages_the_output_is_quoted(code, nwchem):
    text = "echo 'dft energy failed'; echo; exit 255"
    error = failure(nwchem(f"{code(text)} PREFIX.nwi > PREFIX.nwo"))
    assert error.message.endswith("Last lines: dft energy failed")


@pytest.mark.parametrize(
    "said",
    [
        "Calculation failed to converge",
        "most commonly associated with calculations not reaching convergence criteria",
        "SCF NOT CONVERGED AFTER 125 CYCLES",
        "Convergence failure -- run terminated.",
        "The SCF did not converge",
        "convergence has not been achieved",
    ],
)
def test_a_code_that_says_it_has_not_converged_is_believed(code, nwchem, said):
    text = f"echo '{said}'; seq 1000; exit 1"
    error = failure(nwchem(f"{code(text)} PREFIX.nwi > PREFIX.nwo"), NotConvergedError)
    assert error.failure_class == "structure"


def test_a_code_that_ends_well_without_having_converged_gives_no_label(code, nwchem):
    failure(nwchem(f"{code('echo Calculation failed to converge')} > PREFIX.nwo"), NotConvergedError)


def test_passing_remarks_on_convergence_do_not_condemn_a_code_that_ended_well(tmp_path):
    (tmp_path / "out").write_text("cycle 3: 2 eigenvalues not converged\n")
    assert not has_not_converged(tmp_path, "espresso", failed=False)
    assert not has_not_converged(tmp_path, "unknown", failed=False)
    assert has_not_converged(tmp_path, "unknown", failed=True)


@pytest.mark.parametrize(
    "text",
    ["exit 0", "echo half of an output", "echo 'Total DFT energy = -1.0'", "head -c 300 /dev/urandom"],
)
def test_an_output_without_results_is_a_failure_of_the_calculation(code, nwchem, text):
    error = failure(nwchem(f"{code(text)} > PREFIX.nwo"))
    assert "nwchem of H2 failed" in error.message
    assert (kept(error) / "nwchem.nwo").exists()


def test_a_missing_output_is_a_failure_of_the_calculation_and_not_of_the_set_up(code, nwchem):
    failure(nwchem(f"{code('exit 0')} PREFIX.nwi > elsewhere"))


def test_a_killed_code_may_be_tried_again(code, nwchem):
    error = failure(nwchem(f"{code('echo so far; kill -9 $$')} PREFIX.nwi"), ReferenceLostError)
    assert "killed by SIGKILL" in error.message
    assert error.failure_class == "retry"
    assert kept(error).is_dir()


def test_a_code_that_takes_too_long_may_be_tried_again(code, nwchem):
    method = nwchem(f"{code('echo still at it; sleep 600')} PREFIX.nwi", time_limit_s=0.5)
    error = failure(method, TimeLimitError)
    assert "its time limit, 0.5 s" in error.message
    assert error.message.endswith("Last lines: still at it")
    assert error.hint == "Raise reference.time_limit_s."


def test_a_full_disk_is_not_the_structures_fault(code, nwchem):
    text = "echo 'write error: No space left on device' >&2; exit 1"
    assert failure(nwchem(f"{code(text)} PREFIX.nwi"), NoSpaceError).failure_class == "disk"


def test_a_failed_calculation_does_not_colour_the_next(code, nwchem, monkeypatch):
    method = nwchem(f"{code('exit 3')} PREFIX.nwi")
    found = [kept(failure(method)) for _ in range(2)]
    assert [path.name for path in found] == ["failed-label-7-1", "failed-label-7-2"]


def test_nothing_of_ases_own_way_of_running_codes_is_used(code, nwchem, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", None)
    monkeypatch.setattr("ase.calculators.calculator.OldShellProfile.execute", None)
    monkeypatch.setattr("os.system", None)
    assert "exit code 3" in failure(nwchem(f"{code('exit 3')} PREFIX.nwi")).message
