"""The reference `xtb-cli` with scripts in the place of xtb; the contract runs the program itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from fff.base.errors import (
    NotConvergedError,
    ReferenceFailure,
    ReferenceLostError,
    ReferenceSetupError,
    TimeLimitError,
)
from fff.base.units import BOHR_A, HARTREE_eV, HARTREE_PER_BOHR_eV_PER_A
from fff.external import Workplace
from fff.reference import make_reference
from fff.reference.xtb_cli import read_gradient

HYDROGEN = molecule("H2")
# Two atoms, -1 Hartree, gradient 0.1 to 0.6 Hartree/Bohr; one number in Fortran's own notation.
GRADIENT = """\
$grad
  cycle =      1    SCF energy =    -1.00000000000   |dE/dxyz| =  0.953939
    0.00000000000000      0.00000000000000      0.69652300000000      H
    0.00000000000000      0.00000000000000     -0.69652300000000      H
   1.0000000000000E-01   2.0000000000000D-01   3.0000000000000E-01
   4.0000000000000E-01   5.0000000000000E-01   6.0000000000000E-01
$end
"""
GIVES_GRADIENT = f"cat > gradient << 'END'\n{GRADIENT}END\n"
ERROR_BLOCK = """cat << END
########################################################################
[ERROR] Program stopped due to fatal error
-2- Could not setup defaults
-1- solv_model_loadInternalParam: solvent: 'water' is not parametrized
########################################################################
END
echo 'abnormal termination of xtb' >&2
exit 1
"""


@pytest.fixture
def xtb(tmp_path):
    """Make a method that runs a script in the place of xtb."""

    def make(text, **section):
        path = tmp_path / "an xtb"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        section = {"kind": "xtb-cli", "command": [str(path)], **section}
        return make_reference(section, Workplace(tmp_path / "tasks", name="label-7"))

    return make


def failure(method, kind=ReferenceFailure):
    with pytest.raises(kind) as raised:
        method.calculate(HYDROGEN)
    assert type(raised.value) is kind
    return raised.value


def kept(error):
    return Path(error.context["work_dir"])


def test_energy_and_forces_come_in_our_units(xtb, tmp_path):
    label = xtb(GIVES_GRADIENT).calculate(HYDROGEN)
    assert label.energy_eV == pytest.approx(-HARTREE_eV)
    expected = -np.arange(1, 7).reshape(2, 3) / 10 * HARTREE_PER_BOHR_eV_PER_A
    np.testing.assert_allclose(label.forces_eV_per_A, expected)
    assert not list((tmp_path / "tasks").iterdir())


def test_the_program_gets_positions_in_bohr_and_every_option(xtb, tmp_path):
    method = xtb(
        'printf "%s " "$@" > arguments\n' + GIVES_GRADIENT,
        method="GFN1-xTB",
        charge=-1,
        multiplicity=2,
        accuracy=0.1,
        electronic_temperature_K=500.0,
        max_iterations=99,
        solvent="water",
        keep_files=True,
    )
    method.calculate(HYDROGEN)
    folder = tmp_path / "tasks" / "label-7-1"
    assert (folder / "arguments").read_text() == (
        "coord --grad --gfn 1 --chrg -1 --uhf 1 --acc 0.1 --etemp 500.0 --iterations 99 --alpb water "
    )
    lines = (folder / "coord").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("$coord", "$end")
    for line, position in zip(lines[1:-1], HYDROGEN.positions, strict=True):
        *numbers, symbol = line.split()
        np.testing.assert_allclose(np.array(numbers, dtype=float) * BOHR_A, position, atol=1e-12)
        assert symbol == "h"


def test_the_force_field_has_an_option_of_its_own(xtb):
    method = xtb('case " $* " in *" --gfnff "*) ;; *) exit 1 ;; esac\n' + GIVES_GRADIENT, method="GFN-FF")
    assert method.calculate(HYDROGEN).energy_eV == pytest.approx(-HARTREE_eV)


@pytest.mark.parametrize(
    ("section", "name"),
    [({}, "GFN2-xTB"), ({"method": "GFN-FF"}, "GFN-FF"), ({"solvent": "thf"}, "GFN2-xTB(thf)")],
)
def test_it_is_named_after_parametrisation_and_solvent(section, name):
    assert make_reference({"kind": "xtb-cli", **section}).name == name


def test_settings_name_the_version_and_no_command(xtb):
    version = "echo '   * xtb version 6.7.1 (edcfbbe) compiled by someone'"
    settings = xtb(version, keep_files=True, max_iterations=7).settings
    assert settings == xtb(version, time_limit_s=5.0).settings
    assert settings == {
        "kind": "xtb-cli",
        "method": "GFN2-xTB",
        "charge": 0,
        "multiplicity": 1,
        "accuracy": 1.0,
        "electronic_temperature_K": 300.0,
        "solvent": None,
        "version": "6.7.1",
    }


@pytest.mark.parametrize("text", ["exit 1", "echo no version here", "kill -9 $$"])
def test_a_version_that_cannot_be_had_is_none(xtb, text):
    assert xtb(text).settings["version"] is None
    assert make_reference({"kind": "xtb-cli", "command": ["no-such-xtb"]}).settings["version"] is None


def test_not_converged_is_seen_by_the_mark_that_xtb_leaves(xtb):
    error = failure(xtb("touch .sccnotconverged; exit 1"), NotConvergedError)
    assert "reference.max_iterations" in error.hint
    assert (kept(error) / ".sccnotconverged").exists()


def test_numbers_that_did_not_converge_are_no_label(xtb):
    failure(xtb(GIVES_GRADIENT + "touch .sccnotconverged"), NotConvergedError)


def test_not_converged_is_seen_by_what_xtb_says(xtb):
    text = "echo '-1- scf: Self consistent charge iterator did not converge'; exit 1"
    failure(xtb(text), NotConvergedError)


def test_the_innermost_reason_that_xtb_gives_is_in_the_failure(xtb):
    error = failure(xtb(ERROR_BLOCK))
    assert error.message.startswith(
        "GFN2-xTB of H2 ended with exit code 1: solvent: 'water' is not parametrized. Its files are in "
    )
    assert error.message.endswith("Last lines: abnormal termination of xtb")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 0", "the file gradient is missing"),
        (f"cat > gradient << 'END'\n{GRADIENT[:200]}\nEND", "incomplete"),
        (
            f"cat > gradient << 'END'\n{GRADIENT.replace('2.0000000000000D-01', '*' * 19)}END",
            "could not conv",
        ),
        ("touch gradient", "incomplete"),
    ],
)
def test_half_an_output_is_a_failure_that_keeps_it(xtb, text, reason):
    error = failure(xtb(text))
    assert "gave no readable energy and gradient" in error.message
    assert reason in error.message
    assert kept(error).is_dir()


def test_numbers_that_are_not_finite_are_no_label(xtb):
    error = failure(
        xtb(f"cat > gradient << 'END'\n{GRADIENT.replace('-1.00000000000', 'NaN')}END"), NotConvergedError
    )
    assert kept(error).is_dir()


def test_a_crash_may_be_tried_again(xtb):
    error = failure(xtb("kill -SEGV $$"), ReferenceLostError)
    assert "SIGSEGV" in error.message
    assert error.failure_class == "retry"


def test_a_calculation_that_takes_too_long_may_be_tried_again(xtb):
    error = failure(xtb("exec sleep 600", time_limit_s=0.3), TimeLimitError)
    assert kept(error).name == "failed-label-7-1"


@pytest.mark.parametrize(
    ("section", "atoms", "key"),
    [
        ({"command": ["no-such-xtb"]}, HYDROGEN, "reference.command"),
        ({}, Atoms("H2", [(0, 0, 0), (0, 0, 0.7)], cell=[5, 5, 5], pbc=True), "reference.kind"),
        (
            {},
            Atoms("H2", [(0, 0, 0), (0, 0, 0.7)], cell=[5, 5, 5], pbc=(True, False, False)),
            "reference.kind",
        ),
        ({}, Atoms("U"), "reference.method"),
        ({}, molecule("OH"), "reference.multiplicity"),
        ({"charge": 5}, HYDROGEN, "reference.charge"),
    ],
)
def test_what_does_not_fit_is_the_set_ups_fault(xtb, tmp_path, section, atoms, key):
    method = xtb("exit 0", **section)
    for attempt in (method.check, method.calculate):
        with pytest.raises(ReferenceSetupError) as raised:
            attempt(atoms)
        assert raised.value.context["key"] == key
        assert raised.value.hint
    assert not (tmp_path / "tasks").exists()


def test_lanthanides_count_three_electrons_as_in_the_library(xtb):
    # f electrons are in the core: cerium trichloride is closed-shell for GFN.
    cerium = Atoms("CeCl3", [(0, 0, 0), (2.5, 0, 0), (-1.25, 2.2, 0), (-1.25, -2.2, 0)])
    xtb("exit 0").check(cerium)


@pytest.mark.parametrize("text", ["", "$grad", "$grad\nno energy\n$end", GRADIENT + "\n$grad\n$end\n"])
def test_a_gradient_that_is_not_what_it_should_be_is_refused(text):
    with pytest.raises(ValueError, match="incomplete"):
        read_gradient(text, 2)
