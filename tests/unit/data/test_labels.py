from __future__ import annotations

import sqlite3
import threading

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from fff.base.errors import RunDirectoryError
from fff.base.ids import settings_hash
from fff.data.labels import LabelStore, read_labels
from fff.data.records import Label

ORIGIN = {"source": "active", "method": "GFN2-xTB"}


def label(seed: int = 0, atoms: Atoms | None = None, **fields) -> Label:
    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CH2OH") if atoms is None else atoms
    atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
    forces = rng.normal(size=(len(atoms), 3))
    return Label(atoms, rng.normal() * 1e4, forces, **{"segment": "start-0", "wall_s": 0.5, **fields})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.db"


@pytest.fixture
def store(path):
    with LabelStore(path) as store:
        yield store


def test_a_label_comes_back_bit_by_bit(store):
    stress = np.random.default_rng(1).normal(size=6)
    written = label(atoms=bulk("Cu", cubic=True), stress_eV_per_A3=stress)

    store.add("label-0", written, **ORIGIN)

    read = store.get("label-0")
    assert read.hash == written.hash
    assert read.energy_eV == written.energy_eV
    assert np.array_equal(read.forces_eV_per_A, written.forces_eV_per_A)
    assert np.array_equal(read.stress_eV_per_A3, stress)
    assert (read.segment, read.wall_s) == ("start-0", 0.5)
    assert read.atoms.calc is None


def test_an_isolated_structure_has_no_stress(store):
    store.add("label-0", label(), **ORIGIN)

    assert store.get("label-0").stress_eV_per_A3 is None


def test_momenta_are_kept(store):
    atoms = molecule("H2")
    atoms.set_momenta(np.ones((2, 3)))
    store.add("label-0", label(atoms=atoms), **ORIGIN)

    assert np.array_equal(store.get("label-0").atoms.get_momenta(), np.ones((2, 3)))


def test_forces_on_fixed_atoms_are_not_zeroed(store):
    atoms = molecule("H2")
    atoms.set_constraint(FixAtoms([0, 1]))
    written = label(atoms=atoms)
    store.add("label-0", written, **ORIGIN)

    assert np.array_equal(store.get("label-0").forces_eV_per_A, written.forces_eV_per_A)


def test_a_request_that_has_no_label_gives_none(store):
    assert store.get("label-0") is None


def test_reading_a_request_that_has_no_label_is_an_error(store):
    with pytest.raises(KeyError, match="label-0"):
        store.read(["label-0"])


def test_a_request_is_answered_once(store):
    store.add("label-0", label(0), **ORIGIN)

    with pytest.raises(ValueError, match="already"):
        store.add("label-0", label(1), **ORIGIN)

    assert len(store) == 1
    assert store.get("label-0").energy_eV == label(0).energy_eV


def test_labels_are_read_in_the_order_asked_for_or_in_the_order_added(store):
    for i in (3, 1, 2):
        store.add(f"label-{i}", label(i), **ORIGIN)

    assert store.requests() == ["label-3", "label-1", "label-2"]
    assert [x.energy_eV for x in store.read()] == [label(i).energy_eV for i in (3, 1, 2)]
    assert [x.energy_eV for x in store.read(["label-2", "label-3"])] == [label(i).energy_eV for i in (2, 3)]


def test_a_new_process_finds_what_the_last_one_wrote(path):
    with LabelStore(path) as store:
        store.add("label-0", label(), **ORIGIN)

    with LabelStore(path) as store:
        assert store.requests() == ["label-0"]
        with pytest.raises(ValueError, match="already"):
            store.add("label-0", label(), **ORIGIN)


def test_a_reader_sees_what_a_writer_adds(path, store):
    with LabelStore(path) as reader:
        store.add("label-0", label(), **ORIGIN)

        assert reader.get("label-0") is not None
        assert len(reader) == 1


def test_a_row_has_the_keys_that_apply_and_no_others(store):
    forces = np.ones((4, 9, 3))
    store.add(
        "label-0",
        label(),
        **ORIGIN,
        trajectory="t-1",
        settings=settings_hash({"kind": "xtb"}),
        round=3,
        model="m1",
        deviation=0.25,
        predicted_energy_eV=np.arange(4.0),
        predicted_forces=forces,
        features=np.arange(8.0),
    )
    store.add("label-1", label(1), **ORIGIN, round=None, deviation=float("nan"), predicted_energy_eV=-1.5)

    full, bare = store.rows()

    assert {
        k: full[k] for k in ("request", "source", "method", "trajectory", "round", "model", "deviation")
    } == {
        "request": "label-0",
        "source": "active",
        "method": "GFN2-xTB",
        "trajectory": "t-1",
        "round": 3,
        "model": "m1",
        "deviation": 0.25,
    }
    assert full["settings"] == settings_hash({"kind": "xtb"})
    assert isinstance(full["round"], int)
    assert full["structure"] == full["label"].hash == label().hash
    assert (full["segment"], full["wall_s"], full["n_atoms"]) == ("start-0", 0.5, 9)
    assert np.array_equal(full["predicted_energy_eV"], np.arange(4.0))
    assert np.array_equal(full["predicted_forces"], forces)
    assert np.array_equal(full["features"], np.arange(8.0))
    assert not bare.keys() & {
        "settings",
        "trajectory",
        "round",
        "model",
        "deviation",
        "predicted_forces",
        "features",
    }
    assert bare["predicted_energy_eV"] == -1.5


def test_ase_can_search_the_rows(path, store):
    store.add("label-0", label(0), **ORIGIN, round=1)
    store.add("label-1", label(1), **{**ORIGIN, "source": "audit"}, round=2)

    with ase.db.connect(path) as database:
        assert [row.request for row in database.select(source="audit")] == ["label-1"]
        row = database.get(round=1)
        assert row.energy == label(0).energy_eV
        assert np.array_equal(row.toatoms().get_forces(), label(0).forces_eV_per_A)


@pytest.mark.parametrize("text", ["7", "1e5", "0.5", "True", "nan", "inf", "1_000"])
def test_a_text_that_looks_like_a_number_comes_back_as_it_was(store, text):
    store.add("label-0", label(segment=text), **ORIGIN, model=text, trajectory=text)

    (row,) = store.rows()
    assert (row["model"], row["trajectory"], row["segment"]) == (text, text, text)
    assert store.get("label-0").segment == text


def test_a_request_that_looks_like_a_number_is_refused(store):
    with pytest.raises(ValueError, match="starts with a letter"):
        store.add("12", label(), **ORIGIN)


def test_what_is_known_when_adding_wins_over_the_label(store):
    store.add("label-0", label(), **ORIGIN, segment="t-1/4", wall_s=2.0)

    assert (store.get("label-0").segment, store.get("label-0").wall_s) == ("t-1/4", 2.0)


def test_a_label_without_segment_and_time_is_kept_without(store):
    store.add("label-0", label(segment="", wall_s=float("nan")), **ORIGIN)

    read = store.get("label-0")
    assert read.segment == ""
    assert np.isnan(read.wall_s)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_never_stored(store, number):
    forces = np.zeros((2, 3))
    forces[1, 2] = number

    for broken in (Label(molecule("H2"), number, np.zeros((2, 3))), Label(molecule("H2"), 0.0, forces)):
        with pytest.raises(ValueError, match="not finite"):
            store.add("label-0", broken, **ORIGIN)

    assert len(store) == 0


def test_a_label_needs_source_and_method_and_knows_its_keys(store):
    with pytest.raises(TypeError, match="method"):
        store.add("label-0", label(), source="active")
    with pytest.raises(TypeError, match="rounds"):
        store.add("label-0", label(), **ORIGIN, rounds=3)


def test_threads_may_share_a_store(store):
    def work(n):
        for i in range(5):
            store.add(f"label-{n}-{i}", label(i), **ORIGIN)
            assert store.get(f"label-{n}-{i}") is not None

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store) == 20


def test_a_reader_that_holds_the_database_is_waited_for(path, store):
    reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM systems").fetchall()
    timer = threading.Timer(0.3, reader.close)
    timer.start()

    store.add("label-0", label(), **ORIGIN)

    timer.join()
    assert len(store) == 1


def test_a_database_that_stays_locked_is_an_error_with_a_repair_and_adds_nothing(path):
    with LabelStore(path, wait_s=0.1) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(RunDirectoryError, match="locked") as raised:
            store.add("label-0", label(), **ORIGIN)

        assert "close the program" in raised.value.hint
        assert raised.value.context["path"] == str(path)
        other.execute("ROLLBACK")
        other.close()
        assert len(store) == 0
        store.add("label-0", label(), **ORIGIN)
        assert len(store) == 1


def test_a_file_that_is_no_database_is_an_error_that_says_so(path):
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)

    with pytest.raises(RunDirectoryError, match="not a database"):
        LabelStore(path)


def test_no_lock_file_is_written(path, store):
    store.add("label-0", label(), **ORIGIN)

    assert [p.name for p in path.parent.iterdir()] == ["labels.db"]


def test_rows_are_read_for_a_report_while_a_campaign_writes_and_nothing_is_changed(path, store):
    store.add("label-0", label(0), deviation=0.5, predicted_forces=np.ones((9, 3)), **ORIGIN)
    store.add("label-1", label(1), round=2, **{**ORIGIN, "source": "audit"})
    before = path.read_bytes()

    rows, troubles = read_labels(path)

    assert troubles == []
    assert [row["label"].hash for row in rows] == [row["label"].hash for row in store.rows()]
    assert [row["request"] for row in rows] == ["label-0", "label-1"]
    assert (rows[0]["deviation"], rows[0]["predicted_forces"].sum(), rows[1]["round"]) == (0.5, 27.0, 2)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["labels.db"]
    store.add("label-2", label(2), **ORIGIN)


def test_a_damaged_row_costs_a_report_only_itself(path, store):
    for i in range(3):
        store.add(f"label-{i}", label(i), **ORIGIN)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE systems SET positions = x'00' WHERE id = 2")
    connection.close()

    rows, troubles = read_labels(path)

    assert [row["request"] for row in rows] == ["label-0", "label-2"]
    assert len(troubles) == 1
    assert troubles[0].startswith("Row 2 of labels.db is damaged: ")


def test_what_is_no_database_of_labels_is_an_error_for_a_report_too(path):
    path.write_bytes(b"no database" * 100)
    with pytest.raises(RunDirectoryError, match=r"labels\.db cannot be used"):
        read_labels(path)
