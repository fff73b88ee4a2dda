from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import molecule

from fff.config import PyscfReference, XtbReference
from fff.data.electrons import find_spin_problem


def sections(**keys):
    return XtbReference(kind="xtb", **keys), PyscfReference(kind="pyscf", **keys)


@pytest.mark.parametrize(("name", "charge", "multiplicity"), [("H2O", 0, 1), ("O2", 0, 3), ("OH", -1, 1)])
def test_what_can_be_has_no_problem(name, charge, multiplicity):
    for section in sections(charge=charge, multiplicity=multiplicity):
        assert find_spin_problem(molecule(name), name, section) is None


@pytest.mark.parametrize(
    ("charge", "multiplicity", "key", "parts"),
    [
        (0, 2, "reference.multiplicity", ["is 2", "water has 10 electrons", "1, 3, 5"]),
        (1, 1, "reference.multiplicity", ["9 electrons at charge 1", "2, 4, 6"]),
        (0, 13, "reference.multiplicity", ["is 13"]),
        (10, 1, "reference.charge", ["no electrons", "below 10"]),
    ],
)
def test_what_cannot_be_is_told_with_key_value_and_repair(charge, multiplicity, key, parts):
    for section in sections(charge=charge, multiplicity=multiplicity):
        problem = find_spin_problem(molecule("H2O"), "water", section)
        assert problem.key == key
        assert problem.value == (charge if key == "reference.charge" else multiplicity)
        for part in parts:
            assert part in problem.message + problem.hint


def test_f_electrons_of_lanthanides_count_for_pyscf_alone():
    xtb, pyscf = sections(multiplicity=2)
    assert find_spin_problem(Atoms("Ce"), "Ce", xtb) is None
    assert find_spin_problem(Atoms("Ce"), "Ce", pyscf) is not None
