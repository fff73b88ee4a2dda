"""Lanes: what each worker did when."""

import pytest

from fff.data.events import Event
from fff.report.lanes import Lanes


def task(started, ended, worker="vm:1", kind="train", outcome="done"):
    return Event(
        1,
        kind,
        f"{kind}-{started}",
        outcome=outcome,
        times={"queued": started - 1.0, "started": started, "ended": ended},
        worker=worker,
    )


def lanes(*events):
    made = Lanes()
    for event in events:
        made.add(event)
    return made


def test_each_worker_has_a_lane_with_its_tasks_in_order():
    made = lanes(task(10.0, 20.0), task(0.0, 5.0, "vm:2"), task(25.0, 30.0, outcome="failed"))
    assert made.workers == ["vm:1", "vm:2"]
    assert [(s.kind, s.started, s.failed) for s in made.segments("vm:1")] == [
        ("train", 10.0, False),
        ("train", 25.0, True),
    ]
    assert made.last_end("vm:1") == 30.0
    assert made.last_end("nobody") == 0.0


def test_events_that_come_late_take_their_place_in_time():
    made = lanes(task(10.0, 20.0), task(1.0, 9.0))
    assert [segment.started for segment in made.segments("vm:1")] == [1.0, 10.0]


def test_the_busy_part_counts_only_what_lies_in_the_stretch():
    made = lanes(task(0.0, 10.0), task(20.0, 40.0))
    assert made.busy("vm:1", 5.0, 25.0) == pytest.approx(0.5)
    assert made.busy("vm:1", 12.0, 18.0) == 0.0
    assert made.busy("vm:1", 22.0, 30.0) == 1.0
    assert made.busy("vm:2", 0.0, 10.0) == 0.0
    assert made.busy("vm:1", 10.0, 10.0) == 0.0


def test_segments_of_a_stretch_are_those_that_touch_it():
    made = lanes(*(task(float(t), t + 0.5) for t in range(10)))
    assert [s.started for s in made.segments("vm:1", 2.25, 4.75)] == [2.0, 3.0, 4.0]


def test_an_event_without_worker_or_times_is_in_no_lane():
    assert lanes(Event(0, "opened"), Event(1, "calculate", "a", worker="vm:1")).workers == []


def test_a_clock_that_was_put_back_makes_no_negative_time():
    made = lanes(task(10.0, 4.0))
    assert made.busy("vm:1", 0.0, 20.0) == 0.0
