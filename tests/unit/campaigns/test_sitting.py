"""What a sitting takes from the one before, and its last line."""

from __future__ import annotations

import json
import math

import pytest

from fff.base.errors import CampaignError
from fff.campaigns.sitting import Outcome, _failure, _usage_before, last_line
from fff.data.run_directory import RunDirectory
from fff.steering.thinker import Usage

SOUND = {
    "elapsed_s": 100.0,
    "busy_s": {"cpu": 60.0},
    "slot_s": {"cpu": 200.0},
    "held_back_slot_s": 7.0,
    "by_kind": {"train": {"tasks": 1}},
    "busy_fraction": {"cpu": 0.3},
}


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_the_time_of_the_sittings_before_is_read_from_the_status(run):
    run.status.write_text(json.dumps({"usage": SOUND}))
    usage = Usage({"cpu": 2}, _usage_before(run))
    assert usage.busy_s["cpu"] == 60.0
    assert usage.elapsed_s == pytest.approx(100.0, abs=1.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"usage": 3}',
        '{"usage": [1]}',
        '{"usage": {"elapsed_s": "soon"}}',
        '{"usage": {"elapsed_s": null}}',
        '{"usage": {"elapsed_s": "inf"}}',
        '{"usage": {"elapsed_s": NaN}}',
        '{"usage": {"elapsed_s": 1e999}}',
        '{"usage": {"elapsed_s": -5}}',
        f'{{"usage": {{"elapsed_s": 1{"0" * 400}}}}}',
        '{"usage": {"busy_s": [1]}}',
        '{"usage": {"busy_s": {"cpu": "x"}}}',
        '{"usage": {"busy_s": {"cpu": "nan"}}}',
        '{"usage": {"slot_s": {"cpu": {}}}}',
        '{"usage": {"slot_s": {"cpu": Infinity}}}',
        '{"usage": {"held_back_slot_s": "-inf"}}',
        "[" * 100_000,
        "\udcff",
    ],
    ids=lambda text: text[:40],
)
def test_a_status_that_is_damaged_costs_the_time_alone(run, text):
    run.status.write_bytes(text.encode(errors="surrogateescape"))
    usage = Usage({"cpu": 2}, _usage_before(run))
    summary = usage.summary()
    json.dumps(summary, allow_nan=False)
    assert 0 <= usage.elapsed_s < 1.0
    assert math.isclose(usage.held_back_s, 0.0)


def test_without_a_status_there_is_no_time_before(run):
    assert _usage_before(run) == {}


# --- the last line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code", "line"),
    [
        ("finished", 0, "Finished: so it was. Results in {path}"),
        ("stopped", 3, "Stopped: so it was. Resume with: fff resume {path}"),
        ("failed", 1, "Failed: so it was. See {path}/run.log. Resume with: fff resume {path}"),
    ],
)
def test_the_last_line_says_how_it_ended_and_how_to_go_on(run, state, code, line):
    assert last_line(run, state, "so\n  it was.") == line.format(path=run.path)
    assert Outcome(state, "").exit_code == code


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CampaignError("It died.", hint="Look there."), "It died. Look there."),
        (CampaignError("It died."), "It died."),
        (OSError(28, "No space left on device", "/x/y"), "No space left on device (/x/y)"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd"), "OSError: odd"),
        (KeyError("label-1"), "KeyError: 'label-1'"),
    ],
)
def test_an_error_is_a_failure_with_its_reason(error, reason):
    assert _failure(error) == ("failed", reason)
