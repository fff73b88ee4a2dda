from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fff.data.frames import FrameStore
from fff.data.packing import frames_from_bytes, frames_to_bytes, labels_from_bytes, labels_to_bytes
from fff.data.records import Frame, Label

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)


@st.composite
def structures(draw) -> Atoms:
    n_atoms = draw(st.integers(0, 6))
    atoms = Atoms(
        numbers=draw(st.lists(st.integers(1, 118), min_size=n_atoms, max_size=n_atoms)),
        positions=draw(arrays(float, (n_atoms, 3), elements=NUMBERS)),
        cell=draw(arrays(float, (3, 3), elements=NUMBERS)),
        pbc=draw(st.lists(st.booleans(), min_size=3, max_size=3)),
    )
    if draw(st.booleans()):
        atoms.set_momenta(draw(arrays(float, (n_atoms, 3), elements=NUMBERS)))
    return atoms


@st.composite
def frames(draw) -> Frame:
    atoms = draw(structures())
    return Frame(
        atoms=atoms,
        energy_eV=draw(st.floats()),
        forces_eV_per_A=draw(st.none() | arrays(float, (len(atoms), 3), elements=NUMBERS))
        if len(atoms)
        else None,
        deviation_eV_per_A=draw(st.floats()),
        step=draw(st.integers(0, 2**40)),
    )


@st.composite
def labels(draw) -> Label:
    atoms = draw(structures())
    return Label(
        atoms=atoms,
        energy_eV=draw(NUMBERS),
        forces_eV_per_A=draw(arrays(float, (len(atoms), 3), elements=NUMBERS)),
        stress_eV_per_A3=draw(st.none() | arrays(float, 6, elements=NUMBERS)),
        segment=draw(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)),
        wall_s=draw(st.floats()),
    )


def assert_same_atoms(one: Atoms, two: Atoms) -> None:
    for name in ("numbers", "positions", "pbc"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert np.array_equal(one.cell.array, two.cell.array)
    assert one.has("momenta") == two.has("momenta")
    assert np.array_equal(one.get_momenta(), two.get_momenta())


@given(st.lists(frames(), max_size=4))
def test_frames_come_back_bit_by_bit(written):
    read = frames_from_bytes(frames_to_bytes(written))

    assert len(read) == len(written)
    for one, two in zip(read, written, strict=True):
        assert_same_atoms(one.atoms, two.atoms)
        assert np.array_equal(
            [one.energy_eV, one.deviation_eV_per_A], [two.energy_eV, two.deviation_eV_per_A], equal_nan=True
        )
        assert one.step == two.step
        assert (one.forces_eV_per_A is None) == (two.forces_eV_per_A is None)
        if two.forces_eV_per_A is not None:
            assert np.array_equal(one.forces_eV_per_A, two.forces_eV_per_A)


@given(st.lists(labels(), max_size=4))
def test_labels_come_back_bit_by_bit(written):
    read = labels_from_bytes(labels_to_bytes(written))

    assert len(read) == len(written)
    for one, two in zip(read, written, strict=True):
        assert_same_atoms(one.atoms, two.atoms)
        assert one.hash == two.hash
        assert np.array_equal([one.energy_eV, one.wall_s], [two.energy_eV, two.wall_s], equal_nan=True)
        assert np.array_equal(one.forces_eV_per_A, two.forces_eV_per_A)
        assert (one.stress_eV_per_A3 is None) == (two.stress_eV_per_A3 is None)
        if two.stress_eV_per_A3 is not None:
            assert np.array_equal(one.stress_eV_per_A3, two.stress_eV_per_A3)
        assert one.segment == two.segment


def test_constraints_and_info_do_not_travel():
    atoms = molecule("H2")
    atoms.set_constraint(FixAtoms([0]))
    atoms.info["note"] = "mine"

    (frame,) = frames_from_bytes(frames_to_bytes([Frame(atoms)]))

    assert not frame.atoms.constraints
    assert not frame.atoms.info


def test_momenta_of_fixed_atoms_come_back_too():
    atoms = molecule("H2")
    atoms.set_momenta(np.ones((2, 3)))
    atoms.set_constraint(FixAtoms([0]))

    (frame,) = frames_from_bytes(frames_to_bytes([Frame(atoms)]))

    assert np.array_equal(frame.atoms.get_momenta(), np.ones((2, 3)))


@pytest.mark.parametrize("unpack", [frames_from_bytes, labels_from_bytes])
def test_pickled_objects_are_refused(unpack):
    buffer = io.BytesIO()
    np.savez(buffer, schema_version=np.array(1), n_atoms=np.array([{"a": 1}], dtype=object))

    with pytest.raises(ValueError, match="pickle"):
        unpack(buffer.getvalue())


@pytest.mark.parametrize("version", [None, 2])
@pytest.mark.parametrize("unpack", [frames_from_bytes, labels_from_bytes])
def test_another_schema_version_is_refused_and_named(unpack, version):
    buffer = io.BytesIO()
    np.savez(buffer, **({} if version is None else {"schema_version": np.array(version)}))

    with pytest.raises(ValueError, match=f"schema version {version}"):
        unpack(buffer.getvalue())


def test_frames_are_found_by_request_and_place(tmp_path):
    store = FrameStore(tmp_path / "frames")
    first = [Frame(bulk("Cu"), step=i) for i in range(3)]
    second = [Frame(molecule("H2"), step=i) for i in range(10, 12)]

    ids = store.write("run-1", first) + store.write("run-2:a", second)

    assert ids == ["run-1:0", "run-1:1", "run-1:2", "run-2:a:0", "run-2:a:1"]
    assert [f.step for f in store.read_many(["run-2:a:1", "run-1:2", "run-2:a:0"])] == [11, 2, 10]
    assert store.read("run-1:1").step == 1


def test_frames_that_were_never_written_are_an_error(tmp_path):
    store = FrameStore(tmp_path)
    store.write("run-1", [Frame(bulk("Cu"))])

    with pytest.raises(FileNotFoundError):
        store.read("run-2:0")
    with pytest.raises(IndexError):
        store.read("run-1:1")
