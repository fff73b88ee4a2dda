"""`status.json` and the line for people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fff.data.run_directory import RunDirectory
from fff.steering import status
from fff.steering.status import StatusWriter, describe


def snapshot(**changes: Any) -> dict[str, Any]:
    return {
        "round": 2,
        "labels": {"done": 30, "failed": 0, "in_flight": 3, "target": 120},
        "waiting": {"audits": 4, "selected": 7, "unscored": 0, "scored": 9},
        "trajectories": {"running": 2, "waiting": 4, "idle": 2},
        "audits": {"made": 8, "passed": 6, "most_in_a_row": 5},
        "running": {"calculate": 3, "train": 1},
        "errors": {},
        "usage": {"elapsed_s": 90.0, "busy_fraction": {"shared": 0.9}},
        **changes,
    }


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(status.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(status.time, "time", lambda: Clock.now + 1e9)
    return Clock


def test_the_status_file_holds_what_is_promised(tmp_path, clock):
    run = RunDirectory(tmp_path)
    writer = StatusWriter(run, say=print)
    clock.now += 60
    writer.update(snapshot)
    content = json.loads(run.status.read_text())
    assert content["schema_version"] == 1
    assert (content["state"], content["reason"], content["resumable"]) == ("running", "", True)
    assert content["labels"] == {"done": 30, "failed": 0, "in_flight": 3, "target": 120}
    assert content["workers"] == {"shared": 0.9}
    assert content["started"] == 1e9 + 1000
    assert content["updated"] == 1e9 + 1060
    # 30 labels in 90 s of all sittings, 90 to go.
    assert content["eta_s"] == 270.0


def test_nothing_is_promised_before_the_first_label(tmp_path, clock):
    run = RunDirectory(tmp_path)
    none = snapshot(labels={"done": 0, "failed": 0, "in_flight": 3, "target": 120})
    StatusWriter(run, say=print).update(lambda: none)
    assert json.loads(run.status.read_text())["eta_s"] is None


def test_a_campaign_that_is_over_has_no_time_to_go(tmp_path, clock):
    run = RunDirectory(tmp_path)
    StatusWriter(run, say=print).write(snapshot(), state="failed", reason="no xtb", resumable=True)
    content = json.loads(run.status.read_text())
    assert (content["state"], content["reason"], content["resumable"]) == ("failed", "no xtb", True)
    assert content["eta_s"] is None


def test_the_file_is_written_every_two_seconds_and_the_snapshot_asked_for_only_then(tmp_path, clock):
    asked = []

    def ask():
        asked.append(clock.now)
        return snapshot()

    writer = StatusWriter(RunDirectory(tmp_path), say=print)
    for _ in range(11):
        writer.update(ask)
        clock.now += 0.5
    assert asked == [1000.0, 1002.0, 1004.0]


def test_a_line_is_said_once_a_minute(tmp_path, clock):
    lines = []
    writer = StatusWriter(RunDirectory(tmp_path), say=lines.append)
    for _ in range(150):
        writer.update(snapshot)
        clock.now += 1.0
    assert len(lines) == 2


def test_a_snapshot_is_described_in_one_line():
    assert describe(snapshot()) == (
        "  1.5 min | labels 30/120 | round 2 | waiting: 4 audits, 7 selected | audits passed: 6/8 | "
        "running: 3 calculate, 1 train"
    )


def test_the_line_shows_failures_the_newest_test_error_and_what_is_not_there_yet():
    line = describe(
        snapshot(
            round=None,
            running={},
            labels={"done": 1, "failed": 2, "in_flight": 0, "target": 9},
            errors={
                "round-000": {"force_mae_meV_per_A": 90.0},
                "round-001": {"force_mae_meV_per_A": 41.4},
                "baseline": {"force_mae_meV_per_A": 1.0},
            },
        )
    )
    assert "labels 1/9 (2 failed)" in line
    assert "round -" in line
    assert "running: nothing" in line
    assert line.endswith("test force error 41 meV/Å")
