"""Trainings outside a campaign: what is refused, what is written, and how they go on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import fff
from fff.base.errors import ConfigError, RunDirectoryError, StructureError
from fff.data.records import Label
from fff.models.files import find_members
from fff.steps.evaluation import evaluate_model
from fff.steps.settings import load_settings
from fff.steps.training import _warnings, train_committee

TINY = (
    "model.n_features=4",
    "model.n_layers=1",
    "model.n_radial=4",
    "model.cutoff_A=3",
    "model.representation=schnet",
    "training.max_epochs=3",
)


def train(sources, folder, never_asked, *overrides, n_members=2, **options):
    told = []
    trained = train_committee(
        sources,
        load_settings(None, [*TINY, *overrides], {}),
        folder,
        n_members=n_members,
        tell=lambda *what: told.append(what),
        interruption=never_asked,
        **options,
    )
    return trained, told


def test_a_test_set_is_never_trained_on(water_file, tmp_path, never_asked):
    with pytest.raises(ConfigError, match="shares 2 structures"):
        train([f"{water_file}@:8"], tmp_path / "out", never_asked, test=f"{water_file}@6:")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sizes", "test", "reason"),
    [([4], None, "no test set"), ([9], "@8:", "names 9"), ([1], "@8:", "names 1")],
)
def test_sizes_need_a_test_set_and_labels(water_file, tmp_path, never_asked, sizes, test, reason):
    test = None if test is None else water_file + test
    with pytest.raises(ConfigError, match=reason):
        train([f"{water_file}@:8"], tmp_path / "out", never_asked, test=test, sizes=sizes)


def test_one_label_is_too_few(water_file, tmp_path, never_asked):
    with pytest.raises(StructureError, match="There is 1 label"):
        train([f"{water_file}@0"], tmp_path / "out", never_asked)


def test_a_folder_that_holds_something_else_is_left_alone(water_file, tmp_path, never_asked):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="holds no training"):
        train([water_file], tmp_path / "out", never_asked)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_few_labels_and_one_composition_for_others_are_warned_of(water_labels):
    from ase.build import molecule

    def warnings(test, *n_train):
        return list(_warnings(water_labels, test, [{"n_train": n} for n in n_train]))

    other = [Label(molecule("H2O2"), 0.0, np.zeros((4, 3)))]
    assert warnings([], 10, 12) == []
    assert warnings(water_labels, 10) == []
    (few,) = warnings([], 12, 1)
    assert few.startswith("A member is trained on 1 label only")
    (shifted,) = warnings(other, 12)
    assert shifted.startswith("All labels are of H2O:")


@pytest.mark.slow
def test_a_committee_is_trained_once_and_everything_takes_it(water_file, tmp_path, never_asked):
    folder = tmp_path / "out"
    sources, test = [f"{water_file}@:9"], f"{water_file}@9:"
    trained, told = train(sources, folder, never_asked, test=test, sizes=[6])
    assert (trained.n_done, trained.n_jobs, len(trained.members)) == (4, 4, 2)
    assert told[0][:2] == (0, 10)
    # Epochs to the end, the predictions after them too: a structure is no epoch.
    assert {total for _, total, _ in told} == {10}
    assert told[-1][0] == 10
    assert "structures" in told[-1][2]
    assert sorted(trained.by_size) == [6, 9]
    assert trained.test == trained.by_size[9]
    assert {path.name for path in folder.iterdir()} == {
        "committee.json", "trained.json", "member-0", "member-1", "sizes",
        "learning_curve.png", "learning_curve.csv", "error_over_labels.png", "error_over_labels.csv",
    }  # fmt: skip
    assert len(find_members(folder)) == 2
    assert fff.calculator(folder, device="cpu").committee.members[0].description["elements"] == [1, 8]
    seen = evaluate_model(folder, [water_file], tmp_path / "evaluation", tell=lambda *_: None)
    assert (seen.n_members, seen.n_trained_on) == (2, 9)
    committee = json.loads((folder / "committee.json").read_text())
    assert committee["deviation_on_labels_eV_per_A"]["n_labels"] == 9

    # Again: nothing is trained, the same comes out; other settings are refused.
    again, told = train(sources, folder, never_asked, test=test, sizes=[6])
    assert (again.members, again.test) == (trained.members, trained.test)
    assert {last.split(":")[0] for _, _, last in told} == {"", "all are done; predictions"}
    with pytest.raises(RunDirectoryError, match="differs in: training"):
        train(sources, folder, never_asked, "training.max_epochs=4")

    # One model goes on from it, on all labels but a tenth.
    single, _ = train(sources, tmp_path / "one", never_asked, f"model.start={folder}", n_members=1)
    assert (single.members[0]["n_train"], single.members[0]["n_validation"]) == (6, 3)


@pytest.mark.slow
@pytest.mark.integration
def test_a_training_that_is_stopped_and_killed_ends_with_the_same_model(water_file, tmp_path):
    whole = start(water_file, tmp_path / "whole")
    process = start(water_file, tmp_path / "cut")
    wait_for_row(tmp_path / "cut", 20)
    # It trains thousands of epochs a minute, and could be done before it hears: it hears first.
    trainings = psutil.Process(process.pid).children(recursive=True)
    for training in trainings:
        training.suspend()
    process.send_signal(signal.SIGINT)
    time.sleep(3.0)
    for training in trainings:
        training.resume()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    assert json.loads(out)["state"] == "stopped"
    assert "Go on with: fff train" in err.splitlines()[-1]

    process = start(water_file, tmp_path / "cut")
    wait_for_row(tmp_path / "cut", n_rows(tmp_path / "cut") + 20)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(children, timeout=20)[1]

    process = start(water_file, tmp_path / "cut")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert whole.communicate(timeout=300)[0] != out  # other folders, other times
    weights = [tmp_path / name / "member-0" / "weights.safetensors" for name in ("whole", "cut")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not (tmp_path / "cut" / "checkpoints").exists()


def start(labels, folder):
    """Start `fff train` for one model, for so long that it can be interrupted."""
    options = [
        f"-o{option}" for option in (*TINY[:-1], "training.stop_patience=1000", "training.max_epochs=1000")
    ]
    program = Path(sys.executable).with_name("fff")
    command = [program, "train", labels, "--output", folder, "--committee-size", "1", "--json", *options]
    return subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def n_rows(folder):
    history = folder / "checkpoints" / "000012-member-0" / "history.csv"
    return len(history.read_text().splitlines()) if history.is_file() else 0


def wait_for_row(folder, row):
    end = time.monotonic() + 120
    while n_rows(folder) < row:
        assert time.monotonic() < end
        time.sleep(0.01)
