"""What workers run, called here as plain functions on a run directory of their own."""

from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from fff.base.errors import (
    ModelFileError,
    NoSpaceError,
    NotConvergedError,
    ReferenceLostError,
    ReferenceSetupError,
    TimeLimitError,
)
from fff.base.ids import sha256_bytes
from fff.compute import tasks
from fff.compute.stores import ModelShelf, open_store
from fff.compute.tasks import Call
from fff.config import config_from_dict
from fff.data.deviation import force_deviation
from fff.data.frames import FrameStore
from fff.data.packing import labels_from_bytes, labels_to_bytes
from fff.data.records import Frame, Label
from fff.external import Launch
from fff.models import Committee, create_force_field
from fff.models.files import DESCRIPTION, WEIGHTS

CONFIG = config_from_dict(
    {
        "structures": ["bulk:Cu"],
        "model": {"n_features": 8, "n_layers": 2, "cutoff_A": 3.5, "n_radial": 6},
        "training": {"max_epochs": 2},
        "reference": {"kind": "ase", "calculator": "emt"},
        "sampling": {"n_frames": 3, "min_steps": 5, "check_every": 5, "stop_deviation_eV_per_A": 1e6},
        "test": {"interval_steps": 2, "equilibration_steps": 2, "timestep_fs": 2.0},
    }
).model_dump(mode="json")
COMMITTEE = "committee:round-000:0-1-2"
# Two atoms at one place: no direction from one to the other, so no numbers from any model.
COINCIDENT = Atoms("Cu4", [[0, 0, 0], [0, 0, 0], [0, 2, 0], [2, 0, 0]])


def copper(seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def labelled(seed: int, segment: str = "") -> Label:
    atoms = copper(seed)
    energy, forces = EMT().get_potential_energy(atoms), EMT().get_forces(atoms)
    return Label(atoms, float(energy), forces, segment=segment)


@pytest.fixture(scope="module")
def members():
    made = [
        create_force_field(CONFIG["model"], seed=i, elements=[29], reference_energies={29: 0.0}, device="cpu")
        for i in range(3)
    ]
    return [force_field.to_files() for force_field in made]


@pytest.fixture(scope="module")
def broken(members):
    """A member that can be loaded and gives no numbers: its finite parameters overflow."""
    weights = safetensors.torch.load(members[0][WEIGHTS])
    changed = safetensors.torch.save({name: tensor * 1e30 for name, tensor in weights.items()})
    description = {**json.loads(members[0][DESCRIPTION]), "weights_sha256": sha256_bytes(changed)}
    return {DESCRIPTION: json.dumps(description).encode(), WEIGHTS: changed}


@pytest.fixture(autouse=True)
def fresh_worker(monkeypatch):
    """A worker that has loaded nothing yet; its reference's child goes with it."""
    monkeypatch.setattr(tasks, "_models", type(tasks._models)())
    monkeypatch.setattr(tasks, "_references", {})
    yield
    for reference in tasks._references.values():
        reference.close()


@pytest.fixture
def run(tmp_path):
    """A run directory with six frames of which the one in the middle, `start:3`, cannot be scored."""
    structures = [copper(0), copper(1), copper(2), COINCIDENT, copper(4), copper(5)]
    FrameStore(tmp_path / "frames").write("start", [Frame(atoms) for atoms in structures])
    return tmp_path


def parcel(*members):
    files = {}
    for index, member in enumerate(members):
        files |= {f"round-000/member-{index}/{name}": content for name, content in member.items()}
    return files


def call(run, args, *models, request="request-1", **settings) -> Call:
    return Call(request, str(run), args=args, settings={"mpi_launch": None, **settings}, models=models)


def done(envelope):
    assert envelope["outcome"] == "done", envelope["values"]
    return envelope["values"]


def failed(envelope):
    assert envelope["outcome"] == "failed", envelope["values"]
    return envelope["values"]


def score(run, *members, frames=range(6), deviation="max-force", request="score-1"):
    args = {"round": 0, "frames": [f"start:{i}" for i in frames]}
    envelope = tasks.score(call(run, args, COMMITTEE, request=request, deviation=deviation), parcel(*members))
    return envelope, run / "scores" / f"{request}.npz"


def scored(run, *members, **options):
    envelope, file = score(run, *members, **options)
    with np.load(file) as arrays:
        return done(envelope)["deviations"], dict(arrays)


def predicted(members, atoms):
    return Committee.from_files(members, device="cpu").predict([atoms], features=True)


# --- score ----------------------------------------------------------------------------------------------


def test_a_frame_that_cannot_be_scored_costs_only_itself(run, members):
    deviations, table = scored(run, *members)
    assert [value is None for value in deviations] == [False, False, False, True, False, False]
    np.testing.assert_array_equal(np.isnan(table["deviation"]), [0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(np.isnan(table["features"]).all(axis=1), [0, 0, 0, 1, 0, 0])
    for i in (2, 4):
        alone = predicted(members, copper(i))
        expected = force_deviation(alone.forces_eV_per_A[0]).max()
        assert deviations[i] == pytest.approx(expected, rel=1e-3)
        np.testing.assert_allclose(table["energy_eV"][:, i], alone.energy_eV[:, 0], atol=1e-4)
        np.testing.assert_allclose(table["features"][i], alone.features[0], atol=1e-4)
        forces = table["forces_eV_per_A"][4 * i : 4 * i + 4]
        np.testing.assert_allclose(forces, alone.forces_eV_per_A[0].mean(axis=0), atol=1e-4)
    np.testing.assert_array_equal(table["n_atoms"], [4] * 6)


def test_frames_are_chosen_by_one_kind_of_deviation_and_labels_described_by_another(run, members):
    by_force, first = scored(run, *members, frames=[0, 1], request="score-1")
    by_energy, second = scored(run, *members, frames=[0, 1], request="score-2", deviation="energy")
    np.testing.assert_array_equal(first["deviation"], first["max_force_deviation"])
    np.testing.assert_array_equal(second["max_force_deviation"], first["max_force_deviation"])
    np.testing.assert_allclose(second["deviation"], second["energy_eV"].std(axis=0) / 4)
    assert by_energy != by_force


def test_a_member_without_numbers_is_left_to_the_others(run, members, broken):
    deviations, table = scored(run, members[0], broken, members[2], frames=[0, 1])
    forces = predicted([members[0], members[2]], copper(1)).forces_eV_per_A[0]
    assert deviations[1] == pytest.approx(force_deviation(forces).max(), rel=1e-3)
    np.testing.assert_array_equal(table["members_used"], [0, 1, 2])
    np.testing.assert_array_equal(np.isnan(table["energy_eV"]).any(axis=1), [False, True, False])
    assert np.isfinite(table["forces_eV_per_A"]).all()


def test_one_member_with_numbers_is_no_committee(run, members, broken):
    deviations, _ = scored(run, members[0], broken, broken, frames=[0, 1])
    assert deviations == [None, None]


def test_without_the_first_members_features_nothing_is_scored(run, members, broken):
    deviations, table = scored(run, broken, *members[1:], frames=[0, 1])
    assert deviations == [None, None]
    assert np.isnan(table["features"]).all()


@pytest.mark.parametrize("damaged", [[0], [1, 2]])
def test_scoring_fails_with_the_reason_where_a_member_that_it_needs_cannot_be_loaded(run, members, damaged):
    given = [{DESCRIPTION: b"{"} if i in damaged else member for i, member in enumerate(members)]
    envelope, file = score(run, *given, frames=[0, 1])
    assert "first member and one more" in failed(envelope)["message"]
    assert not file.exists()


# --- choose ---------------------------------------------------------------------------------------------


def choose(run, candidates, *members, taken=(), n=3, **selection):
    settings = {**CONFIG["selection"], **selection}
    args = {"round": 0, "candidates": candidates, "taken": list(taken), "n": n, "seed": 1}
    return tasks.choose(call(run, args, COMMITTEE, selection=settings), parcel(*members))


def write_scores(run, request, deviations):
    folder = run / "scores"
    folder.mkdir(exist_ok=True)
    features = np.arange(8.0 * len(deviations)).reshape(-1, 8)
    np.savez(folder / f"{request}.npz", deviation=deviations, features=features, energy_eV=np.zeros((3, 1)))


def test_chosen_frames_are_those_with_the_largest_products_of_deviation_and_distance(run, members):
    deviations, _ = scored(run, *members)
    candidates = {f"start:{i}": ["score-1", i] for i in (0, 1, 2, 4, 5)}
    chosen = done(choose(run, candidates, *members, n=5))["frames"]
    assert chosen[0] == f"start:{max((0, 1, 2, 4, 5), key=lambda i: deviations[i])}"
    assert sorted(chosen) == sorted(candidates)
    # What is on its way to a label is at no distance from itself; that without features is near nothing.
    chosen = done(choose(run, candidates, *members, n=5, taken=[chosen[0], "start:3"]))["frames"]
    assert chosen[-1] == f"start:{max((0, 1, 2, 4, 5), key=lambda i: deviations[i])}"


def test_each_file_of_scores_is_read_once(run, members, monkeypatch):
    write_scores(run, "score-1", np.full(20, 0.5))
    write_scores(run, "score-2", np.full(20, 0.5))
    read = []
    load = np.load
    monkeypatch.setattr(tasks.np, "load", lambda path, **options: read.append(path) or load(path, **options))
    candidates = {f"{file}:{row}": [file, row] for row in range(20) for file in ("score-1", "score-2")}
    assert len(done(choose(run, candidates, *members, rule="random"))["frames"]) == 3
    assert sorted(path.stem for path in read) == ["score-1", "score-2"]


def test_a_damaged_first_member_is_not_replaced_where_features_are_compared(run, members):
    write_scores(run, "score-1", [0.5])
    envelope = choose(run, {"a": ["score-1", 0]}, {DESCRIPTION: b"{"}, *members, taken=["start:0"])
    assert "first member" in failed(envelope)["message"]


def test_many_values_come_in_a_file_that_the_envelope_names(run, members):
    write_scores(run, "score-1", np.full(300, 0.5))
    candidates = {f"dynamics-00001:{row}": ["score-1", row] for row in range(300)}
    values = done(choose(run, candidates, *members, n=300, rule="random"))
    assert values["values_file"] == "tasks/request-1.values.json"
    text = (run / values["values_file"]).read_bytes()
    assert sha256_bytes(text) == values["sha256"]
    assert sorted(json.loads(text)["frames"]) == sorted(candidates)
    assert len(json.dumps(values)) < 200


# --- dynamics -------------------------------------------------------------------------------------------


def dynamics(run, driver, *members, **sampling):
    settings = {**CONFIG["sampling"], **sampling}
    args = {"frame": "start:1", "n_steps": 10, "temperature_K": 300.0, "seed": 1}
    models, parcels = ["member:round-000:0"], [parcel(driver)]
    if members:
        models.append(COMMITTEE)
        parcels.append(parcel(*members))
    return tasks.dynamics(call(run, args, *models, sampling=settings), *parcels)


def test_dynamics_write_their_frames_and_describe_them(run, members):
    values = done(dynamics(run, members[0], *members))
    assert set(values) == {"reason", "steps", "temperature_K", "last", "others"}
    assert (values["reason"], values["steps"], values["temperature_K"]) == ("completed", 10, 300.0)
    described = [*values["others"], values["last"]]
    frames = FrameStore(run / "frames").read_many([item["id"] for item in described])
    assert [frame.hash for frame in frames] == [item["hash"] for item in described]
    assert len(values["others"]) == 3
    forces = predicted(members, frames[-1].atoms).forces_eV_per_A[0]
    assert values["last"]["deviation"] == pytest.approx(force_deviation(forces).max(), rel=1e-3)
    np.testing.assert_allclose(frames[-1].forces_eV_per_A, forces[0], atol=1e-4)


def test_without_a_committee_dynamics_go_unwatched(run, members):
    values = done(dynamics(run, members[0]))
    assert (values["reason"], values["last"]["deviation"]) == ("completed", None)


@pytest.mark.parametrize("n_broken", [1, 2, 3])
def test_dynamics_end_where_fewer_than_two_members_give_numbers(run, members, broken, n_broken):
    committee = [*members[: 3 - n_broken], *[broken] * n_broken]
    values = done(dynamics(run, members[0], *committee))
    if n_broken == 1:
        assert (values["reason"], values["steps"]) == ("completed", 10)
        assert values["last"]["deviation"] > 0
    else:
        assert (values["reason"], values["steps"]) == ("non-finite", 0)
        assert values["last"]["deviation"] is None
        assert len(values["others"]) >= 1


# --- evaluate -------------------------------------------------------------------------------------------


def evaluate(run, labels, *members, key=COMMITTEE):
    (run / "test").mkdir(exist_ok=True)
    (run / "test" / "testset-0000.npz").write_bytes(labels_to_bytes(labels))
    args = {"name": "round-000", "n_labels": 4, "files": ["test/testset-0000.npz"]}
    return tasks.evaluate(call(run, args, key), parcel(*members))


def test_the_error_is_that_of_the_mean_prediction(run, members):
    labels = [labelled(i, f"segment-{i // 2}") for i in range(4)]
    values = done(evaluate(run, labels, *members))
    errors = [
        predicted(members, label.atoms).forces_eV_per_A[0].mean(axis=0) - label.forces_eV_per_A
        for label in labels
    ]
    assert values["force_mae_meV_per_A"] == pytest.approx(1000 * np.abs(errors).mean(), rel=1e-4)
    assert (values["n_structures"], values["members_used"]) == (4, [0, 1, 2])


def test_a_member_that_fails_on_the_test_set_is_left_out_and_the_values_say_so(run, members, broken):
    labels = [labelled(i) for i in range(3)]
    values = done(evaluate(run, labels, members[0], broken, members[2]))
    assert values["members_used"] == [0, 2]
    tasks._models.clear()
    without = done(evaluate(run, labels, members[0], members[2]))
    assert values["force_mae_meV_per_A"] == without["force_mae_meV_per_A"]


def test_what_was_predicted_on_the_test_set_is_kept_for_reports(run, members, broken):
    labels = [labelled(i) for i in range(3)]
    done(evaluate(run, labels, members[0], broken, members[2]))
    with np.load(run / "scores" / "request-1.npz") as arrays:
        kept = dict(arrays)
    assert [name.decode() for name in kept["structures"]] == [label.hash for label in labels]
    assert kept["members_used"].tolist() == [0, 2]
    assert kept["n_atoms"].tolist() == [4, 4, 4]
    expected = predicted([members[0], members[2]], labels[1].atoms)
    np.testing.assert_allclose(kept["energy_eV"][:, 1], expected.energy_eV[:, 0], rtol=0, atol=1e-5)
    forces = expected.forces_eV_per_A[0]
    np.testing.assert_allclose(kept["forces_eV_per_A"][4:8], forces.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(kept["force_deviation_eV_per_A"][4:8], force_deviation(forces), atol=1e-5)
    np.testing.assert_allclose(kept["features"][1], expected.features[0], atol=1e-5)


@pytest.mark.parametrize(("arrived", "has_features"), [("2-0-1", True), ("1-2", False)])
def test_features_of_the_test_set_are_of_member_0_whoever_arrived_first(run, members, arrived, has_features):
    order = [int(member) for member in arrived.split("-")]
    key = f"committee:round-000:{arrived}"
    done(evaluate(run, [labelled(0)], *(members[member] for member in order), key=key))
    with np.load(run / "scores" / "request-1.npz") as arrays:
        assert arrays["features_member"] == 0
        features = arrays["features"]
    if has_features:
        expected = predicted([members[0]], labelled(0).atoms).features
        np.testing.assert_allclose(features, expected, atol=1e-5)
    else:
        assert features.shape == (1, 0)


def test_one_sound_member_predicts_without_a_deviation(run, members, broken):
    done(evaluate(run, [labelled(0)], broken, members[1]))
    with np.load(run / "scores" / "request-1.npz") as arrays:
        assert np.isnan(arrays["force_deviation_eV_per_A"]).all()
        assert np.isnan(arrays["features"]).all()


def test_a_test_structure_on_which_every_member_fails_is_an_error_that_counts_them(run, members):
    odd = Label(COINCIDENT, 0.0, np.zeros((4, 3)))
    message = failed(evaluate(run, [labelled(0), odd], *members))["message"]
    assert "all 2 test structures" in message
    assert "[1, 1, 1]" in message


# --- train and refit ------------------------------------------------------------------------------------


def training_parcel(labels):
    return {"labels.npz": labels_to_bytes(labels), "reference_energies.json": b'{"29": -0.1}'}


def test_a_trained_member_is_written_whole_and_named_by_its_hash(run):
    args = {"member": 0, "seed": 3, "split_seed": 4, "directory": "round-000/member-0"}
    sections = {"model": CONFIG["model"], "training": CONFIG["training"]}
    labels = [labelled(i, f"segment-{i}") for i in range(4)]
    values = done(tasks.train(call(run, args, "labels:4", **sections), training_parcel(labels)))
    folder = run / "models" / "round-000" / "member-0"
    assert values["sha256"] == sha256_bytes((folder / WEIGHTS).read_bytes())
    names = ["features.npz", "history.csv", DESCRIPTION, WEIGHTS]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert values["epochs"] == 2


def test_the_first_members_features_of_all_labels_lie_beside_it(run):
    sections = {"model": CONFIG["model"], "training": CONFIG["training"]}
    labels = [labelled(i, f"segment-{i}") for i in range(4)]
    for member in (0, 1):
        args = {"member": member, "seed": 3, "split_seed": 4, "directory": f"round-000/member-{member}"}
        done(tasks.train(call(run, args, "labels:4", **sections), training_parcel(labels)))
    folder = run / "models" / "round-000"
    files = {name: (folder / "member-0" / name).read_bytes() for name in (DESCRIPTION, WEIGHTS)}
    with np.load(folder / "member-0" / "features.npz") as arrays:
        assert [name.decode() for name in arrays["structures"]] == [label.hash for label in labels]
        assert arrays["features_member"] == 0
        for row, label in zip(arrays["features"], labels, strict=True):
            np.testing.assert_allclose(row, predicted([files], label.atoms).features[0], atol=1e-5)
    assert not (folder / "member-1" / "features.npz").exists()


def test_a_training_that_is_asked_to_stop_is_interrupted_and_goes_on_when_asked_again(run):
    args = {"member": 0, "seed": 3, "split_seed": 4, "directory": "round-000/member-0"}
    sections = {"model": CONFIG["model"], "training": CONFIG["training"]}
    labels = [labelled(i, f"segment-{i}") for i in range(4)]
    told = call(run, args, "labels:4", **sections)
    stopping = run / "tasks" / "stopping"
    stopping.parent.mkdir()
    stopping.touch()
    envelope = tasks.train(told, training_parcel(labels))
    assert (envelope["outcome"], envelope["values"]) == ("interrupted", {})
    assert not (run / "models").exists()
    assert (run / "tasks" / "request-1.stage").is_dir()
    stopping.unlink()
    resumed = done(tasks.train(told, training_parcel(labels)))
    assert not (run / "tasks" / "request-1.stage").exists()
    anew = call(run, {**args, "directory": "x"}, "labels:4", **sections)
    straight = done(tasks.train(anew, training_parcel(labels)))
    assert resumed["sha256"] == straight["sha256"]


def test_refitting_gives_the_shift_between_two_reference_methods(run, members):
    structures = [copper(i) for i in range(3)]
    energies = [predicted(members[:1], atoms).energy_eV[0, 0] for atoms in structures]
    labels = [
        Label(atoms, energy + 4 * 2.5, np.zeros((4, 3)))
        for atoms, energy in zip(structures, energies, strict=True)
    ]
    envelope = tasks.refit(call(run, {}, "labels:3", "start"), training_parcel(labels), parcel(members[0]))
    assert done(envelope)["shifts_eV"] == {"29": pytest.approx(2.5, abs=1e-4)}


# --- calculate and reference dynamics -------------------------------------------------------------------


def test_a_label_is_written_and_an_audit_compares_it_with_the_driving_model(run):
    label = labelled(1)
    frame = Frame(label.atoms, label.energy_eV - 0.4, label.forces_eV_per_A + 0.1)
    FrameStore(run / "frames").write("dynamics", [frame])
    args = {"frame": "dynamics:0", "source": "audit", "energy_shifts_eV": {"29": 0.05}}
    settings = {"reference": CONFIG["reference"]}
    values = done(tasks.calculate(call(run, args, **settings)))
    (found,) = labels_from_bytes((run / values["file"]).read_bytes())
    assert found.energy_eV == pytest.approx(label.energy_eV, abs=1e-10)
    np.testing.assert_allclose(found.forces_eV_per_A, label.forces_eV_per_A, atol=1e-10)
    # Four atoms, each 0.1 eV too low, of which the refitted reference energies give back half.
    assert values["energy_error"] == pytest.approx(0.05, abs=1e-9)
    assert values["force_error"] == pytest.approx(0.1, abs=1e-9)

    values = done(tasks.calculate(call(run, args | {"source": "active"}, **settings)))
    assert set(values) == {"file", "wall_s"}
    bare = call(run, args | {"frame": "start:0"}, **settings)
    assert "carries the energy and forces" in failed(tasks.calculate(bare))["message"]
    xenon = FrameStore(run / "frames").write("odd", [Frame(Atoms("Xe"))])[0]
    values = failed(tasks.calculate(call(run, args | {"frame": xenon}, **settings)))
    assert (values["error"], values["failure_class"]) == ("ReferenceSetupError", "setup")


def encrypted(file: bytes) -> bytes:
    """Return a zip file whose first entry has the flag that says so."""
    place = file.index(b"PK\x01\x02") + 8
    return file[:place] + bytes([file[place] | 1]) + file[place + 1 :]


def before_the_kill(run, label: Label | bytes, args=None):
    """Ask for a label whose file a worker has written before it was killed; no reference is at hand."""
    path = run / "tasks" / "label-00007.npz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(label if isinstance(label, bytes) else labels_to_bytes([label]))
    args = {"frame": "start:1", "source": "active", **(args or {})}
    envelope = tasks.calculate(call(run, args, request="label-00007", reference=CONFIG["reference"]))
    return done(envelope), path


def test_a_label_that_was_written_before_a_kill_is_used_and_not_calculated_again(run):
    written = replace(labelled(1), energy_eV=-1234.5, wall_s=77.0)
    values, path = before_the_kill(run, written)
    assert values == {"file": "tasks/label-00007.npz", "wall_s": 77.0}
    assert labels_from_bytes(path.read_bytes())[0].energy_eV == -1234.5
    assert tasks._references == {}


def test_an_audit_that_was_calculated_before_a_kill_is_judged_as_any(run):
    label = replace(labelled(1), wall_s=1.0)
    frame = Frame(label.atoms, label.energy_eV - 0.4, label.forces_eV_per_A + 0.1)
    FrameStore(run / "frames").write("dynamics", [frame])
    args = {"frame": "dynamics:0", "source": "audit", "energy_shifts_eV": {"29": 0.05}}
    values, _ = before_the_kill(run, label, args)
    assert tasks._references == {}
    assert values["energy_error"] == pytest.approx(0.05, abs=1e-9)
    assert values["force_error"] == pytest.approx(0.1, abs=1e-9)


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"\xff" * 500,
        labels_to_bytes([labelled(1)])[:-200],
        # A flag that says that the file is encrypted.
        encrypted(labels_to_bytes([labelled(1)])),
        labels_to_bytes([labelled(2)]),
        labels_to_bytes([]),
        labels_to_bytes([labelled(1), labelled(1)]),
    ],
    ids=["empty", "garbage", "cut", "encrypted", "of another structure", "no label", "two labels"],
)
def test_what_is_no_label_of_this_structure_is_calculated_anew(run, written, monkeypatch):
    class Reference:
        """Gives each label its own energy, as no file has it."""

        def calculate(self, atoms: Atoms, name: str, launch: Launch) -> Label:
            assert (name, launch) == ("label-00007", Launch.on_this_machine(None))
            return Label(atoms, 5678.0, np.zeros((4, 3)), wall_s=2.0)

    monkeypatch.setattr(tasks, "_reference", lambda call: Reference())
    values, path = before_the_kill(run, written)
    (found,) = labels_from_bytes(path.read_bytes())
    assert (found.hash, found.energy_eV) == (labelled(1).hash, 5678.0)
    assert values["wall_s"] == 2.0


def test_reference_dynamics_give_labels_of_one_segment(run):
    args = {"frame": "start:0", "temperature_K": 300.0, "n_frames": 2, "seed": 1}
    settings = {"reference": CONFIG["reference"], "test": CONFIG["test"]}
    values = done(tasks.reference_dynamics(call(run, args, request="testset-0000", **settings)))
    assert values == {"file": "test/testset-0000.npz", "n_frames": 2}
    labels = labels_from_bytes((run / values["file"]).read_bytes())
    assert [label.segment for label in labels] == ["testset-0000"] * 2
    for label in labels:
        assert label.energy_eV == pytest.approx(EMT().get_potential_energy(label.atoms), abs=1e-8)


# --- the envelope ---------------------------------------------------------------------------------------


def test_an_envelope_says_when_and_where(run, members):
    before = time.time()
    envelope, _ = score(run, *members, frames=[0])
    assert set(envelope) == {"outcome", "values", "started", "ended", "worker", "device"}
    assert before <= envelope["started"] <= envelope["ended"] <= time.time()
    assert envelope["worker"].count(":") == 1
    json.dumps(envelope, allow_nan=False)


def test_an_error_becomes_a_failure_with_its_class_and_a_trace(run, members):
    args = {"round": 0, "frames": ["nowhere:0"]}
    envelope = tasks.score(call(run, args, COMMITTEE, deviation="energy"), parcel(*members))
    values = failed(envelope)
    assert (values["error"], values["failure_class"]) == ("FileNotFoundError", "retry")
    assert values["trace"] == "tasks/request-1.failure.txt"
    assert "Traceback" in (run / values["trace"]).read_text()
    assert failed(tasks.score(call(run, {}, COMMITTEE), parcel(*members)))["failure_class"] == "setup"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_full_disk_is_a_failure_that_is_heard_of(run, members, monkeypatch, number):
    def full(path, data):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(tasks, "write_bytes", full)
    values = failed(score(run, *members, frames=[0])[0])
    assert (values["error"], values["failure_class"]) == ("OSError", "disk")
    assert "trace" not in values
    assert values["message"].endswith(f"(Its trace could not be written: {os.strerror(number)}.)")


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (OSError(errno.EIO, "Input/output error"), "retry"),
        (OSError(errno.ENOENT, "No such file"), "retry"),
        (TimeoutError("too slow"), "retry"),
        (ValueError("what is this"), "setup"),
        (MemoryError(), "setup"),
        (NotConvergedError("It did not converge."), "structure"),
        (ReferenceLostError("Its process died."), "retry"),
        (TimeLimitError("It took too long."), "retry"),
        (ReferenceSetupError("No such basis."), "setup"),
        (NoSpaceError("No space left."), "disk"),
        (ModelFileError("Damaged.", path="x"), "setup"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_every_error_has_its_class(run, error, failure_class):
    def function(call, parcels):
        raise error

    values = failed(tasks._task(function)(call(run, {})))
    assert values["failure_class"] == failure_class
    assert values["error"] == type(error).__name__
    assert values["message"]


def test_a_task_whose_parcel_is_gone_from_the_store_was_lost(run, tmp_path):
    shelf = ModelShelf(open_store(tmp_path / "store", f"store of {tmp_path}"))
    proxy = shelf.acquire(COMMITTEE, lambda: {"told.json": b"{}"})
    shelf.release(COMMITTEE)
    shelf.keep(set())
    values = failed(tasks.score(call(run, {"frames": ["start:0"]}, COMMITTEE, deviation="energy"), proxy))
    shelf.close()
    assert (values["error"], values["failure_class"]) == ("ProxyResolveMissingKeyError", "lost")
    assert "there is no object associated with the key" in values["message"]


def test_a_task_whose_parcel_is_damaged_is_tried_again_a_few_times_only(run, tmp_path):
    folder = tmp_path / "store"
    with ModelShelf(open_store(folder, f"store of {tmp_path}")) as shelf:
        proxy = shelf.acquire(COMMITTEE, lambda: {"told.json": b"{}"})
        (file,) = [path for path in folder.iterdir() if path.suffix != ".ready"]
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        values = failed(tasks.score(call(run, {"frames": ["start:0"]}, COMMITTEE), proxy))
    assert values["failure_class"] == "retry"
    assert "damaged" in values["message"]


def test_a_long_message_is_cut(run):
    args = {"frame": "x" * 2000 + ":0"}
    assert len(failed(tasks.calculate(call(run, args)))["message"]) == tasks.MESSAGE_LENGTH


def test_arguments_and_settings_may_come_as_a_parcel(run, members):
    direct, _ = scored(run, *members, frames=[0, 1])
    told = {"args": {"round": 0, "frames": ["start:0", "start:1"]}, "settings": {"deviation": "max-force"}}
    envelope = tasks.score(
        call(run, {}, COMMITTEE, "told:request-1"),
        parcel(*members),
        {"told.json": json.dumps(told).encode()},
    )
    assert done(envelope)["deviations"] == direct


def test_a_worker_keeps_the_models_it_used_last(run, members):
    for number in range(tasks.CACHED_MODELS + 2):
        args = {"round": 0, "frames": ["start:0"]}
        key = f"committee:round-{number:03d}:0-1-2"
        done(tasks.score(call(run, args, key, deviation="energy"), parcel(*members)))
    assert len(tasks._models) == tasks.CACHED_MODELS
    # What it keeps needs no parcel any more.
    done(tasks.score(call(run, args, key, deviation="energy"), {}))


def test_every_kind_of_request_has_its_function():
    from fff.compute.sites import make_site
    from fff.config.site import LaptopSite

    assert set(tasks.FUNCTIONS) == set(make_site(LaptopSite(kind="laptop")).pool_of_kind)
