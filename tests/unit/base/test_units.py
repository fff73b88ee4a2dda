from __future__ import annotations

import pytest
import scipy.constants

from fff.base import units


@pytest.mark.parametrize(
    ("value", "name", "unit"),
    [
        (units.HARTREE_eV, "Hartree energy in eV", "eV"),
        (units.BOHR_A, "Bohr radius", "m"),
        (units.kB_eV_PER_K, "Boltzmann constant in eV/K", "eV K^-1"),
    ],
)
def test_constants_are_those_of_codata(value, name, unit):
    expected, found_unit, _ = scipy.constants.physical_constants[name]

    assert found_unit == unit
    # Revisions of CODATA differ in the tenth digit.
    assert value == pytest.approx(expected * (1e10 if unit == "m" else 1), rel=1e-8)


def test_derived_units_follow_from_the_others():
    assert units.HARTREE_PER_BOHR_eV_PER_A == pytest.approx(51.42206747, rel=1e-9)
