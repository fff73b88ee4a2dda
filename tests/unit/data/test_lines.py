"""Lines for people: events, the status, durations."""

from __future__ import annotations

from typing import Any

from fff.data.events import Event
from fff.data.lines import describe_event, describe_status


def status_with(**changes: Any) -> dict[str, Any]:
    return {
        "round": 2,
        "labels": {"done": 30, "failed": 0, "in_flight": 3, "target": 120},
        "waiting": {"audits": 4, "selected": 7, "unscored": 0, "scored": 9},
        "audits": {"made": 8, "passed": 6, "most_in_a_row": 5},
        "running": {"calculate": 3, "train": 1},
        "errors": {},
        "usage": {"elapsed_s": 90.0},
        "workers": {"shared": 0.9},
        **changes,
    }


def test_the_status_is_described_in_one_line():
    assert describe_status(status_with(eta_s=600.0)) == (
        "  1.5 min | labels 30/120, 10 min to the last | round 2 | waiting: 4 audits, 7 selected | "
        "audits passed: 6/8 | running: 3 calculate, 1 train | busy: shared 90%"
    )


def test_the_line_shows_failures_the_newest_test_error_and_what_is_not_there_yet():
    line = describe_status(
        status_with(
            round=None,
            running={},
            labels={"done": 1, "failed": 2, "in_flight": 0, "target": 9},
            errors={
                "round-000": {"force_mae_meV_per_A": 90.0},
                "round-001": {
                    "force_mae_meV_per_A": 41.4,
                    "force_mae_interval_meV_per_A": [30.0, 52.6],
                },
                "baseline": {"force_mae_meV_per_A": 1.0},
            },
        )
    )
    assert "labels 1/9 (2 failed)" in line
    assert "round -" in line
    assert "running: nothing" in line
    assert line.endswith("test force error 41 (30 - 53) meV/Å")


def test_an_event_is_described_with_what_came_of_it():
    times = {"started": 1.0, "ended": 3.5}
    audit = {"energy_error": 0.0012, "force_error": 0.25}
    event = Event(1, "calculate", "label-00001", 2, values=audit, times=times, worker="vm:1")
    assert describe_event(event) == (
        "label-00001 (attempt 2): audit: 0.0012 eV/atom, 0.250 eV/Å [2.50 s on vm:1]"
    )
    failed = Event(
        2, "train", "train-r000-m0", outcome="failed", values={"failure_class": "retry", "message": "no"}
    )
    assert describe_event(failed) == "train-r000-m0: failed (retry): no"


def test_values_that_are_no_numbers_are_described_too():
    for kind in ("calculate", "train", "evaluate", "dynamics"):
        values = {"energy_error": "?", "validation_force_mae_eV_per_A": [], "others": 3}
        assert describe_event(Event(1, kind, "a", values=values)).startswith("a: ")
