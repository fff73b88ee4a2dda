from __future__ import annotations

import hashlib

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from hypothesis import given
from hypothesis import strategies as st

from fff.base.ids import settings_hash, sha256_bytes, sha256_file, structure_hash


def test_a_structure_has_the_same_hash_as_its_copy():
    assert structure_hash(bulk("Cu")) == structure_hash(bulk("Cu").copy())


def test_a_hash_never_changes_between_versions():
    # Labels are found again by it.
    assert structure_hash(Atoms("H", [(0.5, 0, 0)])) == "s930c9b3a58984eca5e1797b7"
    assert settings_hash({"a": 1}) == "habd04f5426c58fe48d04555e"


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.positions.__setitem__((0, 0), np.nextafter(a.positions[0, 0], 1)),
        lambda a: a.numbers.__setitem__(0, 28),
        lambda a: a.set_pbc([True, True, False]),
        lambda a: a.set_cell(a.cell.array * 1.001),
    ],
    ids=["position", "element", "periodicity", "cell"],
)
def test_what_makes_another_geometry_makes_another_hash(change):
    atoms = bulk("Cu", cubic=True)
    changed = atoms.copy()
    change(changed)

    assert structure_hash(changed) != structure_hash(atoms)


def test_the_order_of_atoms_counts():
    water = molecule("H2O")

    assert structure_hash(water[[1, 0, 2]]) != structure_hash(water)


def test_what_a_method_does_not_see_does_not_count():
    atoms = bulk("Cu", cubic=True)
    dressed = atoms.copy()
    dressed.set_momenta(np.ones((4, 3)))
    dressed.set_constraint(FixAtoms([0]))
    dressed.set_tags(3)
    dressed.info["note"] = "mine"
    dressed.calc = EMT()

    assert structure_hash(dressed) == structure_hash(atoms)


def test_minus_zero_is_zero():
    assert structure_hash(Atoms("H", [(-0.0, 0, 0)])) == structure_hash(Atoms("H", [(0, 0, 0)]))


def test_a_hash_starts_with_a_letter():
    assert structure_hash(Atoms()).startswith("s")
    assert settings_hash({}).startswith("h")


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=3)


@given(st.dictionaries(st.text(), VALUES | st.dictionaries(st.text(), VALUES, max_size=3), max_size=5))
def test_the_order_of_settings_does_not_count(settings):
    assert settings_hash(dict(reversed(settings.items()))) == settings_hash(settings)


def test_other_settings_have_another_hash():
    assert settings_hash({"a": 1, "b": 2}) != settings_hash({"a": 2, "b": 1})


def test_the_sum_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)

    assert sha256_file(path) == sha256_bytes(b"abc" * 100_000) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_file_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(OSError, match="gone"):
        sha256_file(tmp_path / "gone")
