"""What a report says came out, and what to do next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fff.data.events import CHANGED, Event
from fff.report import verdict
from fff.report.press import Press
from fff.report.process import cost
from fff.report.record import Evaluation, Record, read_record
from fff.report.results import _energy_shift, _test_set
from tests.support.reported_campaigns import ReportedCampaign


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> ReportedCampaign:
    return ReportedCampaign(tmp_path_factory.mktemp("verdict") / "run")


@pytest.fixture(scope="module")
def record(made) -> Record:
    return read_record(made.run)


def with_section(record: Record, name: str, **values: Any) -> Record:
    return replace(record, config={**record.config, name: {**record.config[name], **values}})


def with_errors(record: Record, *errors: tuple[int, float, list[float] | None]) -> Record:
    known = record.rounds[0].values
    return replace(
        record,
        evaluations=[
            Evaluation(
                f"round-{number:03d}",
                n_labels,
                0.0,
                {**known, "force_mae_meV_per_A": error, "force_mae_interval_meV_per_A": bounds},
            )
            for number, (n_labels, error, bounds) in enumerate(errors)
        ],
    )


# --- the test set ---------------------------------------------------------------------------------------


def test_the_error_comes_with_how_its_test_set_was_made(record):
    assert "on 12 test structures of dynamics at 300 K by the reference" in " ".join(
        verdict.sentences(record)
    )
    both = with_section(record, "test", temperatures_K=[300.0, 600.0])
    assert verdict.test_set_of(both) == "of dynamics at 300 and 600 K by the reference"
    given = with_section(record, "test", labels="mine.xyz", n_frames=None)
    assert _test_set(given) == "structures given in mine.xyz"
    assert _test_set(with_section(record, "test", n_frames=0)) == "none"


def test_dynamics_hotter_than_the_test_set_is_warned_of(record):
    hotter = "the dynamics goes up to 600 K and the test set only to 300 K"
    assert hotter in " ".join(verdict.sentences(record))
    for section in ({"temperatures_K": [300.0, 600.0]}, {"labels": "mine.xyz"}):
        assert "Beware" not in " ".join(verdict.sentences(with_section(record, "test", **section)))


def test_the_audits_are_told_of_and_their_error_where_it_is_much_larger(record):
    said = verdict.audits(record)
    assert said.startswith("Of 12 audits of trajectories 8 passed")
    assert "does not cover" not in said
    worse = [replace(item, error_eV_per_A=50.0) for item in record.judged]
    said = verdict.audits(replace(record, judged=worse))
    assert "typically 50000 meV/Å there" in said
    assert "structures that the test set does not cover" in said


def test_where_no_error_is_known_it_says_whether_a_test_set_was_asked_for(record):
    none = with_section(replace(record, evaluations=[]), "test", n_frames=0)
    assert "no test set was asked for" in verdict.why_no_error(none)
    asked = replace(record, evaluations=[])
    assert "no test set was asked for" not in verdict.why_no_error(asked)
    assert "no committee was complete yet" in verdict.why_no_error(asked)


# --- what next ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "advice", "goes_on"),
    [
        (
            (72, 17.7, [13.0, 22.4]),
            "not much better than the best before it (17.3 meV/Å with 48 labels)",
            False,
        ),
        ((72, 15.0, [11.0, 19.0]), "not clear whether more labels help", True),
        ((72, 10.0, None), "not clear whether more labels help", True),
        ((72, 9.0, [8.0, 10.0]), "lower by 48 % than the best committee before it", True),
    ],
)
def test_more_labels_are_advised_only_where_the_best_committee_before_is_clearly_beaten(
    record, last, advice, goes_on
):
    errors = with_errors(record, (48, 17.3, [13.0, 21.0]), (60, 22.4, [17.0, 28.0]), last)
    said, command = verdict.next_step(errors)
    assert advice in said
    assert bool(command) == goes_on


def test_an_extended_campaign_is_told_of_by_the_budget_in_force(made, record, tmp_path):
    extended = ReportedCampaign(tmp_path / "run")
    config = {**record.config, "stop": {**record.config["stop"], "max_labels": 40}}
    extended.log(Event(len(record.events), CHANGED, values={"config": config}, times={"started": 1.8e9}))
    found = read_record(extended.run)
    assert ("24 of 40", "labels") in verdict.tiles(found)
    assert "stop.max_labels=80" in verdict.next_step(found)[1]


def test_a_budget_below_what_there_is_is_neither_a_target_nor_doubled(record):
    fewer = with_section(record, "stop", max_labels=20)
    assert ("24", "labels") in verdict.tiles(fewer)
    assert "stop.max_labels=48" in verdict.next_step(fewer)[1]


# --- energies and times ---------------------------------------------------------------------------------


def test_a_shift_of_energies_is_told_only_where_the_error_is_much_smaller_without_it(record):
    prediction = record.prediction
    assert prediction is not None
    (said,) = _energy_shift(prediction)
    assert "typically 5.56 meV/atom too high" in said
    # One outlier moves the mean, and would make the others look worse.
    errors = [0.0] * (len(prediction.labels) - 1) + [9.0]
    energies = [label.energy_eV + error for label, error in zip(prediction.labels, errors, strict=True)]
    assert _energy_shift(replace(prediction, energy_eV=energies)) == []


def test_the_time_of_a_calculation_and_of_its_worker_have_names_of_their_own(record, tmp_path):
    said = cost(Press(record, tmp_path / "report.html", tmp_path / "figures"))
    assert "The reference calculation itself took 0.5 s (median)" in said
    assert "A worker was busy with it for 0.5 s (median)" in said
