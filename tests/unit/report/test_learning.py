"""The learning curve, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fff.report import verdict
from fff.report.pictures.learning import draw_learning_curve
from fff.report.record import Evaluation, read_record
from tests.support.reported_campaigns import ReportedCampaign


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return read_record(ReportedCampaign(tmp_path_factory.mktemp("learning") / "run").run)


def evaluation(name, error, low, high, n_labels=24):
    values = {
        "n_structures": 12,
        "force_mae_meV_per_A": error,
        "force_rmse_meV_per_A": error,
        "force_mae_interval_meV_per_A": None if low is None else [low, high],
        "mean_force_mae_meV_per_A": 600.0,
        "energy_mae_meV_per_atom": 1.0,
    }
    return Evaluation(name, n_labels, 1.7e9 + 10, values)


def labels_of(drawn):
    return [line.get_label() for line in drawn.figure.axes[0].lines]


def test_the_curve_has_every_committee_with_its_labels_and_interval(record):
    drawn = draw_learning_curve(record)
    columns = {column.name: list(column.values) for column in drawn.columns}
    assert columns["committee"] == ["round-000", "round-001", "round-002", "baseline"]
    assert columns["labels"] == [8, 16, 24, 24]
    for low, error, high in zip(
        columns["force_mae_low"], columns["force_mae"], columns["force_mae_high"], strict=True
    ):
        assert low < error < high
    assert {"committees", "as many random frames", "mean force as predictor"} <= set(labels_of(drawn))


def test_one_stretch_of_dynamics_gives_no_interval_and_that_is_said(record):
    few = replace(record, evaluations=[evaluation("round-000", 100.0, None, None)])
    assert list(draw_learning_curve(few).columns[4].values) == [None]
    assert "how certain that is cannot be said" in " ".join(verdict.sentences(few))


def test_without_an_error_the_reason_stands_in_the_place_of_the_curve(record):
    status = {**record.status, "first_failures": {"evaluate": "no member gives finite numbers"}}
    without = replace(record, evaluations=[], standing=replace(record.standing, status=status))
    assert draw_learning_curve(without) == (
        "No error on a test set is known: no member gives finite numbers."
    )


@pytest.mark.parametrize(
    ("own", "random", "said"),
    [
        ((50.0, 40.0, 60.0), (100.0, 90.0, 110.0), "choosing labels paid on this test set"),
        ((100.0, 90.0, 110.0), (50.0, 40.0, 60.0), "choosing labels did not pay on this test set"),
        ((50.0, 40.0, 60.0), (60.0, 50.0, 70.0), "does not tell which is better"),
    ],
)
def test_the_comparison_with_random_frames_says_no_more_than_the_intervals_do(record, own, random, said):
    both = [evaluation("round-000", *own), evaluation("baseline", *random)]
    assert said in " ".join(verdict.sentences(replace(record, evaluations=both)))


def test_committees_of_more_labels_are_not_compared_with_random_frames(record):
    extended = [
        evaluation("round-000", 52.0, 45.0, 59.0, 24),
        evaluation("round-001", 20.0, 15.0, 25.0, 48),
        evaluation("baseline", 50.0, 40.0, 60.0, 24),
    ]
    said = verdict.sentences(replace(record, evaluations=extended))[-1]
    assert "round-000 of as many labels 52.0 meV/Å" in said
    assert "does not tell which is better" in said
    said = verdict.sentences(replace(record, evaluations=extended[1:]))[-1]
    assert "cannot be compared" in said
    assert "paid" not in said


def test_each_comparison_of_an_extended_campaign_keeps_its_own_number_of_frames(tmp_path):
    made = ReportedCampaign(tmp_path / "run")
    made.task("train-baseline", "train-baseline-2-m0", n_train=30, n_validation=18)
    values = read_record(made.run).baseline.values
    made.task("evaluate", "evaluate-baseline-2", **{**values, "force_mae_meV_per_A": 20.0})
    # The status knows one comparison, the newest.
    status = json.loads(made.run.status.read_text())
    made.run.status.write_text(json.dumps({**status, "errors": {"baseline": {"n_labels": 48}}}))
    read = read_record(made.run)
    assert [e.n_labels for e in read.evaluations if e.is_baseline] == [24, 48]
    assert read.baseline.name == "baseline-2"


def test_more_labels_are_advised_while_the_error_falls(record):
    falls = [evaluation("round-000", 100.0, 90.0, 110.0, 12), evaluation("round-001", 80.0, 70.0, 88.0)]
    advice, command = verdict.next_step(replace(record, evaluations=falls))
    assert "lower by 20 %" in advice
    assert command == f"fff resume {record.run.path} -o stop.max_labels=48"
    level = [evaluation("round-000", 80.0, 70.0, 90.0, 12), evaluation("round-001", 79.0, 70.0, 90.0)]
    advice, command = verdict.next_step(replace(record, evaluations=level))
    assert "may not help" in advice
    assert command == ""
