from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from fff.base.errors import ReferenceFailure, ReferenceSetupError
from fff.reference import make_reference, xtb


def test_the_charge_changes_the_energy():
    water = molecule("H2O")

    neutral = make_reference({"kind": "xtb"}).calculate(water)
    dianion = make_reference({"kind": "xtb", "charge": -2}).calculate(water)

    assert abs(dianion.energy_eV - neutral.energy_eV) > 1


def test_the_electronic_temperature_changes_the_energy_and_the_settings():
    stretched = Atoms("H2", [(0, 0, 0), (0, 0, 3.0)])
    cold, hot = (
        make_reference({"kind": "xtb", "electronic_temperature_K": kelvin}) for kelvin in (300.0, 9000.0)
    )

    assert cold.calculate(stretched).energy_eV != pytest.approx(hot.calculate(stretched).energy_eV, abs=0.01)
    assert cold.settings != hot.settings


def test_energies_do_not_depend_on_a_shift_or_on_the_order_of_atoms():
    method = make_reference({"kind": "xtb"})
    ethanol = molecule("CH3CH2OH")
    shuffled = ethanol[np.random.default_rng(0).permutation(len(ethanol))]
    shuffled.translate((5.0, -3.0, 2.0))

    assert method.calculate(shuffled).energy_eV == pytest.approx(
        method.calculate(ethanol).energy_eV, abs=1e-6
    )


def test_the_hamiltonian_of_a_composition_is_kept(monkeypatch):
    method = make_reference({"kind": "xtb"})
    built = []
    build = xtb.XtbMethod._new_calculator
    monkeypatch.setattr(xtb.XtbMethod, "_new_calculator", lambda *a: built.append(1) or build(*a))

    for seed in range(3):
        water = molecule("H2O")
        water.rattle(0.05, seed=seed)
        method.calculate(water)
    method.calculate(molecule("CH4"))

    assert len(built) == 2


def test_only_so_many_compositions_are_kept(monkeypatch):
    monkeypatch.setattr(xtb, "_KEPT", 2)
    method = make_reference({"kind": "xtb"})

    for name in ("H2O", "CH4", "NH3", "H2"):
        method.calculate(molecule(name))

    assert len(method._kept) == 2


def test_a_failure_leaves_the_next_calculation_untouched():
    method = make_reference({"kind": "xtb"})
    before = method.calculate(molecule("H2O"))
    with pytest.raises(ReferenceFailure) as raised:
        method.calculate(Atoms("OH2", np.zeros((3, 3))))

    assert raised.value.failure_class == "structure"
    assert method.calculate(molecule("H2O")).energy_eV == before.energy_eV


def test_a_periodic_structure_needs_a_cell():
    slab = Atoms("Ar", cell=[5, 5, 0], pbc=[True, True, False])

    with pytest.raises(ReferenceSetupError, match="no volume"):
        make_reference({"kind": "xtb"}).check(slab)


def test_a_slab_has_no_stress():
    slab = Atoms("Ar", cell=[5, 5, 20], pbc=[True, True, False])

    assert make_reference({"kind": "xtb"}).calculate(slab).stress_eV_per_A3 is None


def test_f_electrons_of_lanthanides_do_not_count_for_the_multiplicity():
    method = make_reference({"kind": "xtb"})
    trichloride = Atoms("CeCl3", [(0, 0, 0), (2.5, 0, 0), (-1.25, 2.165, 0), (-1.25, -2.165, 0)])

    method.check(trichloride)

    assert method.calculate(trichloride).energy_eV < 0


def test_a_missing_library_is_a_set_up_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.interface", None)

    with pytest.raises(ReferenceSetupError, match="tblite") as raised:
        make_reference({"kind": "xtb"}).check(molecule("H2O"))

    assert "pip install" in raised.value.hint


def test_nothing_is_printed(capfd):
    make_reference({"kind": "xtb"}).calculate(molecule("H2O"))

    assert capfd.readouterr() == ("", "")
