"""External codes against libraries that do the same: one method, two programs, one set of numbers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ase.build import molecule
from ase.optimize import BFGS
from ruamel.yaml import YAML

from fff.external import Workplace
from fff.reference import make_reference
from tests.conftest import ROOT

pytestmark = pytest.mark.science


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"the program {program} is not installed")


def rattled(name):
    atoms = molecule(name)
    atoms.rattle(0.05, seed=3)
    return atoms


@needs("xtb")
@pytest.mark.parametrize("parametrisation", ["GFN2-xTB", "GFN1-xTB"])
@pytest.mark.parametrize(
    ("name", "charge", "multiplicity"),
    [
        ("H2O", 0, 1),
        ("CH3CH2OH", 0, 1),
        ("CH3SH", 0, 1),
        ("OH", -1, 1),
        ("O2", 0, 3),
        ("NaCl", 0, 1),
    ],
)
def test_the_program_xtb_gives_the_numbers_of_tblite(parametrisation, name, charge, multiplicity, tmp_path):
    settings = {"method": parametrisation, "charge": charge, "multiplicity": multiplicity}
    atoms = rattled(name)
    program = make_reference({"kind": "xtb-cli", **settings}, Workplace(tmp_path)).calculate(atoms)
    library = make_reference({"kind": "xtb", **settings}).calculate(atoms)
    assert program.energy_eV == pytest.approx(library.energy_eV, abs=1e-3)
    np.testing.assert_allclose(program.forces_eV_per_A, library.forces_eV_per_A, atol=2e-3)


@needs("xtb")
def test_water_is_bound_by_its_solvent(tmp_path):
    energies = {
        solvent: make_reference({"kind": "xtb-cli", "solvent": solvent}, Workplace(tmp_path))
        .calculate(molecule("H2O"))
        .energy_eV
        for solvent in (None, "hexane", "water")
    }
    # Measured free energies of solvation of water: -0.27 eV in water, about -0.05 in alkanes.
    assert energies[None] - energies["water"] == pytest.approx(0.27, abs=0.15)
    assert energies["water"] < energies["hexane"]


@needs("xtb")
def test_the_force_field_keeps_water_near_its_measured_shape(tmp_path):
    water = rattled("H2O")
    water.calc = make_reference({"kind": "xtb-cli", "method": "GFN-FF"}, Workplace(tmp_path)).ase_calculator()
    with BFGS(water, logfile=None) as relaxation:
        assert relaxation.run(fmax=0.01, steps=60)
    # Measured: 0.958 Å, 104.5°.
    assert water.get_distance(0, 1) == pytest.approx(0.958, abs=0.02)
    assert water.get_angle(1, 0, 2) == pytest.approx(104.5, abs=5)


@needs("nwchem")
@pytest.mark.slow
def test_nwchem_gives_the_numbers_of_pyscf(tmp_path):
    preset = YAML(typ="safe").load(ROOT / "configs" / "water-nwchem.yaml")
    atoms = rattled("H2O")
    program = make_reference(dict(preset["reference"]), Workplace(tmp_path)).calculate(atoms)
    library = make_reference({"kind": "pyscf", "density_fitting": False}).calculate(atoms)
    assert program.energy_eV == pytest.approx(library.energy_eV, abs=1e-3)
    np.testing.assert_allclose(program.forces_eV_per_A, library.forces_eV_per_A, atol=2e-3)
