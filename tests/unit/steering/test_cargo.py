"""What travels with requests, and how results come to rest."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from colmena.models import FailureInformation, Result
from parsl.app.errors import RemoteExceptionWrapper
from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost
from parsl.serialize import deserialize, serialize
from proxystore.proxy import extract

from fff.base.ids import settings_hash, sha256_bytes
from fff.compute.stores import ModelShelf, open_store
from fff.compute.tasks import FUNCTIONS, MESSAGE_LENGTH, Call, overtime_note
from fff.config import config_from_dict
from fff.data.labels import LabelStore
from fff.data.packing import labels_from_bytes, labels_to_bytes
from fff.data.records import Frame, Label
from fff.data.run_directory import RunDirectory
from fff.reference import make_reference
from fff.steering.cargo import LARGEST_TOLD, Cargo, member_folders
from fff.steering.records import MAX_LOSSES, Request
from tests.support.playing_campaigns import SMALL


def water(shift: float = 0.0) -> Atoms:
    return Atoms("OH2", [[0, 0, shift], [0.76, 0.59, 0], [-0.76, 0.59, 0]])


def label(shift: float = 0.0) -> Label:
    return Label(water(shift), -14.0 + shift, np.full((3, 3), 0.25), wall_s=1.5)


class Sets:
    """The training sets of a campaign."""

    ids: list[str] = []  # noqa: RUF012
    files: list[str] = []  # noqa: RUF012

    def training_set(self, n: int) -> list[str]:
        return self.ids[:n]

    def baseline_files(self) -> list[str]:
        return self.files


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def shelf(run):
    with ModelShelf(open_store(run.store, f"store of {run.path}")) as made:
        yield made


@pytest.fixture
def labels(run):
    with LabelStore(run.labels) as made:
        yield made


@pytest.fixture
def sets():
    return Sets()


@pytest.fixture
def cargo(run, shelf, labels, sets):
    for name in ("start/member-0", "round-000/member-0", "round-000/member-2", "round-001/member-0"):
        folder = run.models / name
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps({"name": name}))
        (folder / "weights.safetensors").write_bytes(name.encode())
        (folder / "history.csv").write_text("not needed by anyone")
    return Cargo(run, config_from_dict(SMALL), shelf, labels, sets, make_reference({"kind": "xtb"}), {})


def request(kind: str, args=None, models=(), name: str = "request-1") -> Request:
    return Request(name, kind, "Selector", "cpu", args=args or {}, models=tuple(models))


def test_a_task_is_told_its_arguments_the_run_directory_and_its_sections_of_the_config(cargo, run):
    call, proxies = cargo.load(request("dynamics", {"n_steps": 5}))
    assert (call.request, call.run_dir, call.args) == ("request-1", str(run.path), {"n_steps": 5})
    assert set(call.settings) == {"sampling"}
    assert call.settings["sampling"]["n_frames"] == SMALL["sampling"]["n_frames"]
    assert proxies == []


@pytest.mark.parametrize(
    ("kind", "sections"),
    [
        ("train", {"model", "training"}),
        ("train-baseline", {"model", "training"}),
        ("score", {"deviation"}),
        ("choose", {"selection"}),
        ("calculate", {"reference", "mpi_launch"}),
        ("reference-dynamics", {"reference", "test", "mpi_launch"}),
        ("evaluate", set()),
        ("refit", set()),
    ],
)
def test_no_task_is_told_more_than_it_needs(cargo, kind, sections):
    args = {"n_frames": 10} if kind == "reference-dynamics" else {}
    assert set(cargo.load(request(kind, args))[0].settings) == sections


def test_models_travel_as_proxies_in_the_order_of_their_keys(cargo):
    keys = ("member:round-000:2", "committee:round-000:0-2", "start")
    call, proxies = cargo.load(request("dynamics", models=keys))
    assert call.models == keys
    member, committee, start = map(extract, proxies)
    assert member == {
        "round-000/member-2/model.json": b'{"name": "round-000/member-2"}',
        "round-000/member-2/weights.safetensors": b"round-000/member-2",
    }
    assert [name for name in committee if name.endswith("json")] == [
        "round-000/member-0/model.json",
        "round-000/member-2/model.json",
    ]
    assert set(start) == {"start/member-0/model.json", "start/member-0/weights.safetensors"}


def test_what_is_little_goes_with_the_message_and_what_is_much_as_a_parcel(cargo):
    small = {"frames": ["x" * (LARGEST_TOLD - 200)]}
    call, proxies = cargo.load(request("score", small))
    assert (call.args, call.models, proxies) == (small, (), [])
    large = {"frames": ["x" * LARGEST_TOLD]}
    call, proxies = cargo.load(request("score", large, ["member:round-000:0"]))
    assert (call.args, call.settings) == ({}, {})
    assert call.models == ("member:round-000:0", "told:request-1")
    (content,) = extract(proxies[1]).values()
    assert json.loads(content) == {"args": large, "settings": {"deviation": "max-force"}}


def test_a_training_set_travels_with_reference_energies_fitted_to_it(cargo, labels, sets):
    for i in range(3):
        labels.add(f"label-{i}", label(0.1 * i), source="initial", method="GFN2-xTB")
    sets.ids = ["label-2", "label-0", "label-1"]
    _, (proxy,) = cargo.load(request("train", models=["labels:2"]))
    parcel = extract(proxy)
    assert [found.energy_eV for found in labels_from_bytes(parcel["labels.npz"])] == pytest.approx(
        [-13.8, -14.0]
    )
    energies = json.loads(parcel["reference_energies.json"])
    assert energies["8"] + 2 * energies["1"] == pytest.approx(-13.9)


def test_the_comparison_trains_on_as_many_random_frames(cargo, run, sets):
    for name, shifts in (("b", (0.3, 0.4)), ("a", (0.1, 0.2))):
        path = run.test / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(labels_to_bytes([label(shift) for shift in shifts]))
    sets.files = ["test/b.npz", "test/a.npz"]
    _, (proxy,) = cargo.load(request("train-baseline", models=["baseline:3"]))
    found = labels_from_bytes(extract(proxy)["labels.npz"])
    assert [one.energy_eV for one in found] == pytest.approx([-13.9, -13.8, -13.7])


# --- how long it stays ----------------------------------------------------------------------------------


def test_what_no_later_request_names_goes_when_its_request_has_ended(cargo, shelf):
    call, _ = cargo.load(request("score", {"frames": ["x" * LARGEST_TOLD]}, ["member:round-000:0"]))
    assert shelf.n_objects() == 2
    cargo.release(call)
    assert shelf.n_objects() == 0


def test_what_later_requests_may_name_stays(cargo, shelf):
    cargo.set_live({"member:round-000:0"}, 1)
    call, _ = cargo.load(request("dynamics", models=["member:round-000:0"]))
    cargo.release(call)
    assert shelf.n_objects() == 1
    cargo.set_live(set(), 2)
    assert shelf.n_objects() == 0


def test_a_replaced_model_stays_until_the_last_request_that_names_it_has_ended(cargo, shelf):
    cargo.set_live({"member:round-000:0"}, 1)
    first, _ = cargo.load(request("dynamics", models=["member:round-000:0"], name="a"))
    second, _ = cargo.load(request("dynamics", models=["member:round-000:0"], name="b"))
    cargo.set_live({"member:round-001:0"}, 2)
    cargo.release(first)
    assert shelf.n_objects() == 1
    cargo.release(second)
    assert shelf.n_objects() == 0


def test_news_that_comes_late_is_no_news(cargo, shelf):
    cargo.set_live({"member:round-001:0"}, 5)
    cargo.set_live({"member:round-000:0"}, 4)
    call, _ = cargo.load(request("dynamics", models=["member:round-001:0"]))
    cargo.release(call)
    assert shelf.keys() == {"member:round-001:0"}


def test_the_present_committee_is_named_on_disk(cargo, run):
    cargo.set_live({"start", "member:round-000:2"}, 1)
    assert not run.committee.exists()
    cargo.set_live({"start", "committee:round-000:0-2"}, 2)
    assert json.loads(run.committee.read_text())["members"] == ["round-000/member-0", "round-000/member-2"]


# --- results --------------------------------------------------------------------------------------------


def test_values_that_were_many_are_read_from_their_file_once(cargo, run):
    data = json.dumps({"deviations": [0.1, 0.2]}).encode()
    path = run.tasks / "a.values.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    envelope = {"values": {"values_file": "tasks/a.values.json", "sha256": sha256_bytes(data)}}
    assert cargo.read_values(envelope) == {"deviations": [0.1, 0.2]}
    assert not path.exists()
    assert cargo.read_values({"values": {"steps": 3}}) == {"steps": 3}


def test_values_that_were_changed_on_disk_are_refused(cargo, run):
    path = run.tasks / "a.values.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match="was changed"):
        cargo.read_values({"values": {"values_file": "tasks/a.values.json", "sha256": sha256_bytes(b"{ }")}})


def finish_label(cargo, run, args: dict) -> None:
    path = run.tasks / "label-1.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(labels_to_bytes([label()]))
    cargo.unload(
        request("calculate", args, name="label-1"), {"file": "tasks/label-1.npz", "wall_s": 2.5}, "done"
    )
    assert not path.exists()


def test_an_initial_label_comes_to_rest_in_the_database(cargo, run, labels):
    finish_label(cargo, run, {"source": "initial", "segment": "initial:3", "frame": "initial:3", "round": -1})
    (row,) = labels.rows()
    assert row["request"] == "label-1"
    assert (row["source"], row["method"], row["segment"]) == ("initial", "GFN2-xTB", "initial:3")
    assert row["settings"] == settings_hash(make_reference({"kind": "xtb"}).settings)
    assert row["wall_s"] == 2.5
    assert row["structure"] == label().hash
    assert not {"round", "model", "trajectory", "deviation", "predicted_energy_eV"} & set(row)


def test_an_audited_label_keeps_what_the_driving_model_said(cargo, run, labels):
    run.frames.write("dynamics-t001-r0002", [Frame(water(), -13.5, np.full((3, 3), 0.5))])
    trained = request("train", {"directory": "round-000/member-0"})
    cargo.unload(trained, {"sha256": "abc"}, "done")
    args = {
        "source": "audit",
        "segment": "dynamics-t001-r0002",
        "frame": "dynamics-t001-r0002:0",
        "trajectory": 1,
        "round": 0,
        "model": "member:round-000:0",
        "deviation": 0.125,
    }
    finish_label(cargo, run, args)
    (row,) = labels.rows()
    assert (row["trajectory"], row["round"], row["deviation"]) == ("t001", 0, 0.125)
    assert row["model"] == "sha256:abc"
    assert row["predicted_energy_eV"] == pytest.approx(-13.5)
    np.testing.assert_allclose(row["predicted_forces"], 0.5)


def test_a_selected_label_keeps_what_the_committee_said(cargo, run, labels):
    run.scores.mkdir(parents=True)
    np.savez(
        run.scores / "score-1.npz",
        n_atoms=np.array([2, 3]),
        energy_eV=np.array([[1.0, 2.0], [3.0, 4.0]]),
        forces_eV_per_A=np.arange(15.0).reshape(5, 3),
        features=np.array([[0.0], [7.0]]),
        max_force_deviation=np.array([0.5, 0.75]),
    )
    args = {
        "source": "active",
        "segment": "dynamics-t001-r0002",
        "frame": "dynamics-t001-r0002:0",
        "trajectory": 1,
        "round": 0,
        "model": "start",
        "score": ["score-1", 1],
    }
    finish_label(cargo, run, args)
    (row,) = labels.rows()
    assert row["model"] == "start"
    assert row["deviation"] == 0.75
    np.testing.assert_allclose(row["predicted_energy_eV"], [2.0, 4.0])
    np.testing.assert_allclose(row["predicted_forces"], np.arange(15.0).reshape(5, 3)[2:])
    np.testing.assert_allclose(row["features"], [7.0])


def test_a_failure_leaves_the_database_as_it_was(cargo, labels):
    cargo.unload(request("calculate", {"source": "initial"}), {"message": "no"}, "failed")
    assert len(labels) == 0


def test_the_folders_that_a_key_names():
    assert member_folders("baseline-free:round-001:3") == ["round-001/member-3"]
    assert member_folders("committee:baseline:0-1") == ["baseline/member-0", "baseline/member-1"]


def test_a_call_knows_where_its_frames_are(tmp_path):
    assert Call("a", str(tmp_path)).frames.directory == tmp_path / "frames"


# --- tasks that hang or are lost ------------------------------------------------------------------------


LIMITS = {
    "reference": {"time_limit_s": 100.0},
    "training": {"time_limit_s": 1000.0},
    "sampling": {"time_limit_s": 2000.0},
    "selection": {"time_limit_s": 3000.0},
    "test": {"equilibration_steps": 10, "interval_steps": 5},
}


@pytest.mark.parametrize(
    ("kind", "limit_s"),
    [
        ("calculate", 100 + 300),
        ("reference-dynamics", (10 + 4 * 5) * 100 + 300),
        ("train", 1.1 * 1000 + 300),
        ("train-baseline", 1.1 * 1000 + 300),
        ("dynamics", 1.1 * 2000 + 300),
        ("score", 1.1 * 3000 + 300),
        ("choose", 1.1 * 3000 + 300),
        ("evaluate", 1.1 * 3000 + 300),
        ("refit", 1.1 * 3000 + 300),
    ],
)
def test_a_task_hangs_when_it_takes_longer_than_its_own_limit_could_make_it(
    run, shelf, labels, sets, kind, limit_s
):
    config = config_from_dict({**SMALL, **{name: {**SMALL.get(name, {}), **LIMITS[name]} for name in LIMITS}})
    cargo = Cargo(run, config, shelf, labels, sets, make_reference({"kind": "xtb"}), {})
    args = {"n_frames": 4} if kind == "reference-dynamics" else {}
    call, _ = cargo.load(request(kind, args))
    assert call.limit_s == pytest.approx(limit_s)


def test_every_kind_of_task_has_a_limit(cargo):
    for kind in FUNCTIONS:
        call, _ = cargo.load(request(kind, {"n_frames": 1} if kind == "reference-dynamics" else {}))
        assert 0 < call.limit_s < 1e9


def lost(cargo, call, message: str | None = "worker-lost") -> dict:
    result = Result(((call,), {}))
    if message is not None:
        result.failure_info = FailureInformation.from_exception(RuntimeError(message))
    return cargo.explain_loss(request("calculate"), call, result)


def test_a_lost_task_may_be_tried_again(cargo):
    call, _ = cargo.load(request("calculate"))
    envelope = lost(cargo, call, "worker-lost " + "x" * 5000)
    assert envelope["outcome"] == "failed"
    values = envelope["values"]
    assert (values["failure_class"], values["error"]) == ("retry", "LostTask")
    assert "worker-lost" in values["message"]
    assert len(values["message"]) == MESSAGE_LENGTH
    assert lost(cargo, call, None)["values"]["message"] == "The task ended without a result."


def test_a_task_that_was_killed_for_its_time_says_so_and_where_the_note_is(cargo, run):
    call, _ = cargo.load(request("calculate"))
    note = overtime_note(call)
    note.parent.mkdir(parents=True)
    note.write_text("in hang")
    os.utime(note, (time.time() + 5, time.time() + 5))
    message = lost(cargo, call)["values"]["message"]
    assert message == (
        "request-1 did not end within 3900 s, so its worker was killed; "
        "tasks/request-1.overtime.txt says where it was."
    )
    # The note of an earlier attempt says nothing about this one.
    os.utime(note, (time.time() - 100, time.time() - 100))
    assert "worker-lost" in lost(cargo, call)["values"]["message"]


def told_by_parsl(error: Exception) -> str:
    """Return how an error of Parsl is told by Colmena after it came from where it was raised."""
    try:
        raise error
    except type(error):
        wrapped = RemoteExceptionWrapper(*sys.exc_info())
    with pytest.raises(type(error)) as raised:
        deserialize(serialize(wrapped)).reraise()
    return FailureInformation.from_exception(raised.value).exception


def gone(cargo, error: Exception, losses: int = 0) -> dict:
    asked = replace(request("calculate"), losses=losses)
    call, _ = cargo.load(asked)
    result = Result(((call,), {}))
    result.failure_info = FailureInformation(exception=told_by_parsl(error))
    return cargo.explain_loss(asked, call, result)["values"]


def test_a_task_whose_workers_all_went_away_is_lost_and_one_whose_worker_died_is_tried_again(cargo):
    values = gone(cargo, ManagerLost(b"abc", "node-7"))
    assert values["failure_class"] == "lost"
    assert values["message"].startswith("The workers that ran request-1 went away with it: ")
    assert "node-7" in values["message"]
    values = gone(cargo, WorkerLost(3, "node-7"))
    assert values["failure_class"] == "retry"
    assert values["message"] == "WorkerLost(3, 'node-7')"


def test_a_task_that_is_lost_again_and_again_asks_whether_the_walltime_is_long_enough(cargo):
    error = ManagerLost(b"abc", "node-7")
    assert "walltime" not in gone(cargo, error, MAX_LOSSES - 2)["message"]
    message = gone(cargo, error, MAX_LOSSES - 1)["message"]
    assert message.startswith("request-1 was lost 10 times in a row with the workers that ran it")
    assert "Is the `walltime` of its nodes long enough?" in message


def test_a_task_that_was_killed_for_its_time_is_tried_again_also_where_its_workers_went_away(cargo):
    call, _ = cargo.load(request("calculate"))
    note = overtime_note(call)
    note.parent.mkdir(parents=True)
    note.write_text("in hang")
    os.utime(note, (time.time() + 5, time.time() + 5))
    assert gone(cargo, ManagerLost(b"abc", "node-7"))["failure_class"] == "retry"


def test_a_task_is_told_how_many_slots_it_has(cargo):
    assert cargo.load(request("calculate"))[0].slots == 1
    assert cargo.load(replace(request("calculate"), slots=4))[0].slots == 4
