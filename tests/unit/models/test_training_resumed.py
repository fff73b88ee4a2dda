"""A training that was killed goes on with exactly the numbers it would have had."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fff.base.errors import TrainingError
from fff.data.packing import labels_to_bytes
from fff.models import training as training_module
from fff.models.files import HISTORY, WEIGHTS
from fff.models.reference_energies import fit_reference_energies
from fff.models.training import train_member
from fff.stages import DIAGNOSIS, Lifetime

# Seconds each, since processes are started or models trained.
pytestmark = pytest.mark.slow


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


@pytest.fixture
def busy(training):
    """Settings under which everything happens that a checkpoint must remember."""
    return {**training, "max_epochs": 14, "plateau_patience": 1, "stop_patience": 6, "learning_rate": 2e-2}


@pytest.fixture
def train(labels, model):
    def train(training, *, kill_after=0, seed=1, labels=labels, model=model, **given):
        """Train; die when the loss of that many batches has been asked for."""
        given = {"device": "cpu", "reference_energies": fit_reference_energies(labels), **given}
        loss = training_module._Run._loss
        calls = iter(range(1, 1_000_000))

        def fatal(run, *arguments):
            if next(calls) == kill_after:
                raise KilledError
            return loss(run, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training_module._Run, "_loss", fatal)
            return train_member(labels, model=model, training=training, seed=seed, **given)

    return train


@pytest.fixture
def every_step(tmp_path):
    return Lifetime(tmp_path / "training", interval_s=0.0)


def _without_wall(history: bytes) -> list[list[str]]:
    rows = [line.split(",") for line in history.decode().splitlines()]
    wall = rows[0].index("wall")
    return [row[:wall] + row[wall + 1 :] for row in rows]


def _assert_same(one, other):
    assert one.files[WEIGHTS] == other.files[WEIGHTS]
    assert _without_wall(one.files[HISTORY]) == _without_wall(other.files[HISTORY])
    assert {**one.summary, "wall_s": 0} == {**other.summary, "wall_s": 0}


def _kill(train, *arguments, **given):
    with pytest.raises(KilledError):
        train(*arguments, **given)


@pytest.mark.parametrize("batches", [2, 5, 11, 38])
def test_a_training_killed_in_any_batch_goes_on_with_the_same_numbers(batches, train, busy, every_step):
    whole = train(busy)
    rates = {row[1] for row in _without_wall(whole.files[HISTORY])[2:]}
    assert len(rates) > 1
    _kill(train, busy, kill_after=batches, lifetime=every_step)
    made = []
    resumed = train(busy, lifetime=every_step, progress=made.append)
    _assert_same(resumed, whole)
    assert (every_step.folder / HISTORY).read_bytes() == resumed.files[HISTORY]
    # An epoch whose last batch was the last checkpoint is evaluated again.
    per_epoch = whole.summary["steps"] // whole.summary["epochs"]
    assert made[0]["epoch"] == (batches - 2) // per_epoch + 1


def test_a_training_can_be_killed_again_and_again(train, busy, every_step):
    for _ in range(6):
        _kill(train, busy, kill_after=6, lifetime=every_step)
    _assert_same(train(busy, lifetime=every_step), train(busy))


def test_a_lifetime_changes_no_number(train, busy, every_step):
    _assert_same(train(busy, lifetime=every_step), train(busy))


@pytest.mark.parametrize("case", ["from a member", "without left-out labels", "schnet"])
def test_every_kind_of_training_goes_on(case, train, labels, model, training, every_step):
    given = {}
    if case == "from a member":
        given["start"] = train(training).files
    elif case == "without left-out labels":
        given["labels"] = [dataclasses.replace(label, segment="one") for label in labels[:6]]
    else:
        given["model"] = {**model, "representation": "schnet"}
    _kill(train, training, kill_after=8, lifetime=every_step, **given)
    _assert_same(train(training, lifetime=every_step, **given), train(training, **given))


def test_a_training_that_is_to_stop_gives_nothing_back_and_goes_on_later(
    train, training, tmp_path, monkeypatch
):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("fff.stages.stage.time", SimpleNamespace(monotonic=lambda: clock.now))

    def one_second(row):
        clock.now += 1.0

    lifetime = Lifetime(tmp_path, stop=lambda: clock.now > 2.5)
    assert train(training, lifetime=lifetime, progress=one_second) is None
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 2 + 3
    made = []
    resumed = train(training, lifetime=Lifetime(tmp_path), progress=made.append)
    assert [row["epoch"] for row in made] == [4, 5]
    _assert_same(resumed, train(training))


def test_the_history_can_be_read_while_it_grows(train, training, every_step):
    seen = []

    def look(row):
        seen.append(len((every_step.folder / HISTORY).read_text().splitlines()))

    train(training, lifetime=every_step, progress=look)
    assert seen == [3, 4, 5, 6, 7]


def test_the_time_limit_counts_all_sittings(train, training, every_step, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(training_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    limited = {**training, "max_epochs": 50, "time_limit_s": 45.0}

    def ten_seconds(row):
        clock.now += 10.0
        if row["epoch"] == dies_in:
            raise KilledError

    dies_in = 3
    _kill(train, limited, lifetime=every_step, progress=ten_seconds)
    clock.now, dies_in = 1_000_000.0, 0
    resumed = train(limited, lifetime=every_step, progress=ten_seconds)
    # The checkpoint is of 20 s, before the third evaluation, which is made again.
    assert resumed.summary["stop_reason"] == "time-limit"
    assert resumed.summary["epochs"] == 5
    assert resumed.summary["wall_s"] == 50.0


@pytest.mark.parametrize("change", ["seed", "split_seed", "labels", "training", "energies", "start", "wait"])
def test_a_checkpoint_serves_the_same_training_only(change, train, labels, training, every_step, caplog):
    _kill(train, training, kill_after=8, lifetime=every_step)
    energies = fit_reference_energies(labels)
    changed = dataclasses.replace(labels[3], energy_eV=np.nextafter(labels[3].energy_eV, 0.0))
    given = {
        "seed": {"seed": 2, "split_seed": 1},
        "split_seed": {"split_seed": 2},
        "labels": {"labels": [*labels[:3], changed, *labels[4:]], "reference_energies": energies},
        "training": {"training": {**training, "ema_decay": 0.91}},
        "energies": {"reference_energies": {18: energies[18] + 1e-9}},
        "start": {"start": train(training).files},
        "wait": {"training": {**training, "time_limit_s": 1e9}},
    }[change]
    made = []
    train(**{"training": training, "lifetime": every_step, "progress": made.append, **given})
    goes_on = change == "wait"
    assert (made[0]["epoch"] > 1) is goes_on
    assert ("passed over" in caplog.text) is not goes_on


def _spoil_after(n_batches: int, monkeypatch) -> None:
    loss = training_module._Run._loss
    calls = iter(range(10_000))

    def spoiled(run, *arguments):
        value = loss(run, *arguments)
        return value * float("nan") if next(calls) >= n_batches else value

    monkeypatch.setattr(training_module._Run, "_loss", spoiled)


def test_a_loss_that_is_not_finite_leaves_a_diagnosis_and_the_last_finite_state(
    labels, model, training, tmp_path, monkeypatch
):
    given = {"model": model, "training": {**training, "max_epochs": 8}, "seed": 1, "device": "cpu"}
    given |= {"reference_energies": fit_reference_energies(labels)}
    whole = train_member(labels, **given)
    lifetime = Lifetime(tmp_path)
    with monkeypatch.context() as patch:
        _spoil_after(13, patch)
        trained = train_member(labels, **given, lifetime=lifetime)
    assert trained.summary["stop_reason"] == "non-finite"
    diagnosis = json.loads((tmp_path / DIAGNOSIS).read_text())
    assert json.loads(trained.files[DIAGNOSIS]) == diagnosis
    assert diagnosis["found_in"] == "batch"
    assert diagnosis["loss"] == "nan"
    assert diagnosis["epoch"] == trained.summary["epochs"] == diagnosis["last_finite_epoch"] + 1
    assert diagnosis["learning_rate"] == training["learning_rate"]
    assert diagnosis["last_gradient_norm"] > 0
    batch = [label["index"] for label in diagnosis["labels"]]
    assert 1 <= len(batch) <= training["batch_size"]
    assert [label["hash"] for label in diagnosis["labels"]] == [labels[i].hash for i in batch]
    (path,) = tmp_path.glob("checkpoint-*")
    assert path.name.startswith("checkpoint-000000012-")
    # The state is good for going on, had the trouble been the machine's.
    _assert_same(train_member(labels, **given, lifetime=lifetime), whole)


def test_a_loss_that_was_never_finite_is_an_error_with_the_diagnosis(train, training, tmp_path):
    broken = {**training, "learning_rate": 1e30, "gradient_clip": 1e30}
    with pytest.raises(TrainingError, match="not finite") as caught:
        train(broken, lifetime=Lifetime(tmp_path))
    diagnosis = json.loads((tmp_path / DIAGNOSIS).read_text())
    assert caught.value.context["diagnosis"] == diagnosis
    assert diagnosis["learning_rate"] == 1e30
    assert (diagnosis["best_epoch"], diagnosis["last_finite_epoch"]) == (0, 0)
    (path,) = tmp_path.glob("checkpoint-*")
    assert path.name.startswith("checkpoint-000000000-")


def test_parameters_that_are_not_finite_are_noticed_without_left_out_labels_too(
    train, labels, training, tmp_path, monkeypatch
):
    together = [dataclasses.replace(label, segment="one") for label in labels[:4]]
    step = training_module.FlatAdam.step

    def broken(optimiser, gradients):
        step(optimiser, gradients)
        if optimiser.n_steps == 3:
            optimiser.average[5] = float("inf")

    monkeypatch.setattr(training_module.FlatAdam, "step", broken)
    trained = train(training, labels=together, lifetime=Lifetime(tmp_path))
    assert (trained.summary["stop_reason"], trained.summary["best_epoch"]) == ("non-finite", 2)
    assert json.loads((tmp_path / DIAGNOSIS).read_text())["largest_averaged_parameter"] == "inf"


_SCRIPT = """
    import json, os, signal, sys
    from pathlib import Path

    from fff.data.packing import labels_from_bytes
    from fff.models import train_member
    from fff.stages import Lifetime

    folder, dies_in = Path(sys.argv[1]), int(sys.argv[2])
    settings = json.loads((folder.parent / "settings.json").read_text())

    def progress(row):
        print(row["epoch"], flush=True)
        if row["epoch"] == dies_in:
            os.kill(os.getpid(), signal.SIGKILL)

    trained = train_member(
        labels_from_bytes((folder.parent / "labels.npz").read_bytes()),
        **settings,
        seed=1,
        reference_energies={18: -0.5},
        device="cpu",
        progress=progress,
        lifetime=Lifetime(folder, interval_s=float(sys.argv[3])),
    )
    for name, content in trained.files.items():
        (folder / f"trained-{name}").write_bytes(content)
"""


def _train_in_a_process(folder: Path, *, dies_in: int, interval_s: float) -> list[int]:
    """Return the epochs that a process went through before it ended or was killed."""
    command = [sys.executable, "-c", textwrap.dedent(_SCRIPT), str(folder), str(dies_in), str(interval_s)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert done.returncode == (-signal.SIGKILL if dies_in else 0), done.stderr
    return [int(line) for line in done.stdout.split()]


@pytest.mark.slow
def test_a_training_killed_at_epoch_300_of_400_continues_at_300(labels, model, training, tmp_path):
    (tmp_path / "labels.npz").write_bytes(labels_to_bytes(labels[:8]))
    small = {**model, "n_features": 16, "n_layers": 1}
    long = {**training, "max_epochs": 400, "stop_patience": 400, "batch_size": 8}
    (tmp_path / "settings.json").write_text(json.dumps({"model": small, "training": long}))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert len(_train_in_a_process(whole, dies_in=0, interval_s=60.0)) == 400
    # Between two checkpoints: some epochs are made again.
    assert _train_in_a_process(killed, dies_in=200, interval_s=0.1)[-1] == 200
    again = _train_in_a_process(killed, dies_in=300, interval_s=0.0)
    assert 1 < again[0] <= 200
    assert again[-1] == 300
    assert _train_in_a_process(killed, dies_in=0, interval_s=60.0) == list(range(300, 401))
    weights, history, described = f"trained-{WEIGHTS}", f"trained-{HISTORY}", "trained-model.json"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
    histories = [_without_wall((folder / history).read_bytes()) for folder in (killed, whole)]
    assert histories[0] == histories[1]
    assert len({row[1] for row in histories[0][2:]}) > 1
    summaries = [json.loads((folder / described).read_text())["training"] for folder in (killed, whole)]
    assert {**summaries[0], "wall_s": 0} == {**summaries[1], "wall_s": 0}
