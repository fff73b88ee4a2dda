"""`status.json` and the pace of the labels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fff.data.run_directory import RunDirectory
from fff.steering import status
from fff.steering.status import Pace, StatusWriter


def snapshot(**changes: Any) -> dict[str, Any]:
    return {
        "round": 2,
        "labels": {"done": 30, "failed": 0, "in_flight": 3, "target": 120},
        "waiting": {"audits": 4, "selected": 7, "unscored": 0, "scored": 9},
        "trajectories": {"running": 2, "waiting": 4, "idle": 2},
        "audits": {"made": 8, "passed": 6, "most_in_a_row": 5},
        "running": {"calculate": 3, "train": 1},
        "errors": {},
        "retrain": {"new_labels": 3, "every": 8},
        "usage": {"elapsed_s": 90.0, "busy_fraction": {"shared": 0.9}},
        **changes,
    }


def labels(done: int, target: int = 120) -> dict[str, int]:
    return {"done": done, "failed": 0, "in_flight": 3, "target": target}


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
    # Nothing is known of the pace yet.
    assert content["eta_s"] is None


def test_the_time_left_follows_the_labels_that_were_made_last(tmp_path, clock):
    run = RunDirectory(tmp_path)
    writer = StatusWriter(run, say=print)
    for done in range(30, 61):
        writer.update(lambda done=done: snapshot(round=done // 8, labels=labels(done)))
        clock.now += 10.0 if done < 40 else 4.0
    content = json.loads(run.status.read_text())
    # The last two rounds of eight labels each came every four seconds; the slow ones before are forgotten.
    assert content["label_s"] == 4.0
    assert content["eta_s"] == 240.0


def test_the_time_left_grows_while_no_label_comes(clock):
    pace = Pace()
    for done in (30, 40):
        pace.per_label_s(snapshot(round=done - 30, labels=labels(done)))
        clock.now += 10.0
    assert pace.per_label_s(snapshot(round=3, labels=labels(40))) == 2.0
    clock.now += 80.0
    assert pace.per_label_s(snapshot(round=3, labels=labels(40))) == 10.0


def test_no_pace_is_told_from_a_burst_of_labels_before_a_round_has_ended(clock):
    pace = Pace()
    for done in range(30):
        assert pace.per_label_s(snapshot(round=None, labels=labels(done))) is None
        clock.now += 1.0
    assert pace.per_label_s(snapshot(round=0, labels=labels(30))) is None
    clock.now += 1.0
    assert pace.per_label_s(snapshot(round=0, labels=labels(50))) is None
    clock.now += 9.0
    assert pace.per_label_s(snapshot(round=1, labels=labels(50))) == 0.5


def test_no_pace_is_told_from_very_few_labels(clock):
    pace = Pace()
    pace.per_label_s(snapshot(round=0, labels=labels(30)))
    clock.now += 10.0
    assert pace.per_label_s(snapshot(round=1, labels=labels(34))) is None
    assert pace.per_label_s(snapshot(round=1, labels=labels(35))) == 2.0


def test_no_time_is_told_once_the_last_label_is_made(tmp_path, clock):
    run = RunDirectory(tmp_path)
    writer = StatusWriter(run, say=print)
    for done in (100, 120):
        writer.update(lambda done=done: snapshot(round=done, labels=labels(done)))
        clock.now += 5.0
    content = json.loads(run.status.read_text())
    assert (content["label_s"], content["eta_s"]) == (0.25, None)


def test_a_campaign_that_is_over_has_no_time_to_go(tmp_path, clock):
    run = RunDirectory(tmp_path)
    StatusWriter(run, say=print).write(snapshot(), state="failed", reason="no xtb", resumable=True)
    content = json.loads(run.status.read_text())
    assert (content["state"], content["reason"], content["resumable"]) == ("failed", "no xtb", True)
    assert content["stopped_by"] is None
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


def test_who_shows_it_on_a_terminal_is_called_each_time_and_no_line_is_said(tmp_path, clock):
    lines, shown = [], []
    writer = StatusWriter(RunDirectory(tmp_path), say=lines.append, show=lambda: shown.append(clock.now))
    for _ in range(150):
        writer.update(snapshot)
        clock.now += 1.0
    assert lines == []
    assert len(shown) == 150
