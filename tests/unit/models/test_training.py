from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from fff.base.errors import TrainingError
from fff.models import training as training_module
from fff.models.bootstrap import split_labels
from fff.models.files import DESCRIPTION, HISTORY, WEIGHTS
from fff.models.force_field import load_force_field
from fff.models.reference_energies import fit_reference_energies
from fff.models.training import train_member

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _train(labels, model, training, **changes):
    given = {"model": model, "training": training, "seed": 1, "device": "cpu", **changes}
    if "reference_energies" not in given:
        given["reference_energies"] = fit_reference_energies(labels)
    return train_member(labels, **given)


def _force_errors(files, labels):
    answer = load_force_field(files, device="cpu").predict([label.atoms for label in labels])
    return np.concatenate(
        [f - label.forces_eV_per_A for f, label in zip(answer.forces_eV_per_A, labels, strict=True)]
    )


@pytest.fixture(scope="module")
def well_trained(labels, model, training):
    return _train(labels[:12], model, {**training, "max_epochs": 40, "energy_weight": 0.5})


def test_a_trained_member_beats_the_mean_force(labels, well_trained):
    trained = well_trained
    forces = np.concatenate([label.forces_eV_per_A for label in labels[12:]])
    assert np.abs(_force_errors(trained.files, labels[12:])).mean() < 0.5 * np.abs(forces).mean()


def test_energies_are_learned_with_the_forces(labels, well_trained):
    answer = load_force_field(well_trained.files, device="cpu").predict([label.atoms for label in labels])
    energies = np.array([label.energy_eV for label in labels])
    assert np.abs(answer.energy_eV - energies).mean() < 0.5 * np.abs(energies - energies.mean()).mean()


def test_the_same_seed_gives_the_same_weights(labels, model, training):
    first, second = (_train(labels, model, training) for _ in range(2))
    other = _train(labels, model, training, seed=2)
    assert first.files[WEIGHTS] == second.files[WEIGHTS]
    assert first.files[WEIGHTS] != other.files[WEIGHTS]


def test_the_summary_is_small_json_and_stands_in_the_description(labels, model, training):
    trained = _train(labels, model, training)
    assert len(json.dumps(trained.summary)) < 1000
    assert json.loads(trained.files[DESCRIPTION])["training"] == trained.summary
    assert trained.summary["epochs"] == 5
    assert trained.summary["n_train"] + trained.summary["n_validation"] == len(labels)
    assert trained.summary["stop_reason"] == "max-epochs"


def test_the_history_has_names_units_and_a_row_for_each_epoch(labels, model, training):
    rows = _train(labels, model, training).files[HISTORY].decode().splitlines()
    assert rows[0].startswith("epoch,wall,")
    assert rows[1].count(",") == rows[0].count(",")
    assert len(rows) == 2 + 5


def test_what_comes_back_is_the_best_epoch_on_the_left_out_labels(labels, model, training):
    rows: list[dict] = []
    trained = _train(labels, model, {**training, "max_epochs": 20}, progress=rows.append)
    best = min(rows, key=lambda row: row["validation_score"])
    assert trained.summary["best_epoch"] == best["epoch"]
    found = trained.summary["validation_force_mae_eV_per_A"]
    assert found == pytest.approx(best["validation_force_mae_eV_per_A"], rel=1e-4)


def test_training_ends_early_when_the_left_out_labels_get_no_better(labels, model, training):
    # Steps this short change no number.
    settings = {**training, "learning_rate": 1e-14, "min_learning_rate": 0.0, "stop_patience": 3}
    trained = _train(labels, model, settings)
    assert trained.summary["stop_reason"] == "early-stopping"
    assert trained.summary["epochs"] == trained.summary["best_epoch"] + 3


def test_a_plateau_lowers_the_learning_rate_until_it_ends_the_training(labels, model, training):
    settings = {
        **training,
        "learning_rate": 1e-10,
        "min_learning_rate": 1e-12,
        "plateau_patience": 1,
        "plateau_factor": 0.1,
    }
    rows: list[dict] = []
    trained = _train(labels, model, settings, progress=rows.append)
    assert trained.summary["stop_reason"] == "learning-rate"
    rates = [row["learning_rate"] for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


def test_a_time_limit_ends_the_training_with_a_usable_member(labels, model, training):
    trained = _train(labels, model, {**training, "max_epochs": 1000, "time_limit_s": 1e-9})
    assert trained.summary["stop_reason"] == "time-limit"
    assert np.isfinite(_force_errors(trained.files, labels)).all()


def test_one_segment_is_trained_without_left_out_labels(labels, model, training):
    together = [dataclasses.replace(label, segment="one") for label in labels[:4]]
    trained = _train(together, model, training)
    assert trained.summary["n_validation"] == 0
    assert trained.summary["validation_force_mae_eV_per_A"] is None
    assert trained.summary["best_epoch"] == trained.summary["epochs"] == 5


def test_going_on_from_a_member_starts_where_it_stood(labels, model, training, well_trained):
    first = well_trained
    one_epoch = {**training, "max_epochs": 1, "learning_rate": 1e-6}
    again = _train(labels[:12], model, one_epoch, start=first.files)
    fresh = _train(labels[:12], model, one_epoch)
    before, after = (np.abs(_force_errors(t.files, labels)).mean() for t in (first, again))
    assert after == pytest.approx(before, rel=1e-2)
    assert after < 0.7 * np.abs(_force_errors(fresh.files, labels)).mean()


def test_going_on_takes_the_new_reference_energies(labels, model, training):
    first = _train(labels, model, training)
    again = _train(labels, model, training, start=first.files, reference_energies={18: 5.0, 1: -13.0})
    loaded = load_force_field(again.files, device="cpu")
    assert loaded.reference_energies_eV == {1: -13.0, 18: 5.0}
    assert loaded.elements == [1, 18]


def test_a_loss_that_is_never_finite_is_an_error(labels, model, training):
    with pytest.raises(TrainingError, match="not finite"):
        _train(labels, model, {**training, "learning_rate": 1e30, "gradient_clip": 1e30})


def test_a_loss_that_stops_being_finite_leaves_the_last_best_state(labels, model, training, monkeypatch):
    loss = training_module._Run._loss
    calls = iter(range(1000))

    def spoiled(self, *arguments):
        value = loss(self, *arguments)
        return value * float("nan") if next(calls) >= 12 else value

    monkeypatch.setattr(training_module._Run, "_loss", spoiled)
    trained = _train(labels, model, {**training, "max_epochs": 50})
    assert trained.summary["stop_reason"] == "non-finite"
    assert 1 <= trained.summary["best_epoch"] < trained.summary["epochs"]
    assert np.isfinite(_force_errors(trained.files, labels)).all()


def test_labels_that_are_not_finite_are_refused(labels, model, training):
    broken = [*labels[:3], dataclasses.replace(labels[3], energy_eV=float("nan"))]
    with pytest.raises(TrainingError, match="not finite"):
        _train(broken, model, training, reference_energies={18: 0.0})


def test_no_labels_are_an_error(model, training):
    with pytest.raises(TrainingError, match="needs labels"):
        _train([], model, training, reference_energies={18: 0.0})


def test_periodic_labels_are_trained_on(copper_labels, model, training):
    trained = _train(copper_labels, model, {**training, "max_epochs": 30})
    forces = np.concatenate([label.forces_eV_per_A for label in copper_labels])
    assert np.abs(_force_errors(trained.files, copper_labels)).mean() < np.abs(forces).mean()


def test_schnet_is_trained_as_well(labels, model, training):
    trained = _train(labels, {**model, "representation": "schnet"}, {**training, "max_epochs": 30})
    forces = np.concatenate([label.forces_eV_per_A for label in labels])
    assert np.abs(_force_errors(trained.files, labels)).mean() < 0.7 * np.abs(forces).mean()


def test_epochs_are_compared_by_absolute_errors_on_the_left_out_labels(labels, model, training):
    trained = _train(labels, model, training)
    left_out = [labels[i] for i in split_labels(labels, seed=1).validation]
    answer = load_force_field(trained.files, device="cpu").predict([label.atoms for label in left_out])
    energy_errors = [
        abs(energy - label.energy_eV) / len(label.atoms)
        for energy, label in zip(answer.energy_eV, left_out, strict=True)
    ]
    expected = training["force_weight"] * np.abs(_force_errors(trained.files, left_out)).mean()
    expected += training["energy_weight"] * np.mean(energy_errors)
    names, _, *rows = (line.split(",") for line in trained.files[HISTORY].decode().splitlines())
    scores = [float(row[names.index("validation_score")]) for row in rows]
    # The history has six digits.
    assert min(scores) == pytest.approx(expected, rel=1e-4)
