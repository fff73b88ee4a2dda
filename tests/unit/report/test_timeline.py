"""Rows of workers, one by one and many together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fff.data.events import Event
from fff.report.pictures.timeline import MOST_ROWS, draw_timeline, rows_of_workers
from fff.report.record import read_record
from tests.support.reported_campaigns import STARTED, ReportedCampaign


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return read_record(ReportedCampaign(tmp_path_factory.mktemp("timeline") / "run").run)


def task(worker, started, took=10.0, **fields):
    times = {"started": STARTED + started, "ended": STARTED + started + took}
    return Event(1, "train", "x", times=times, worker=worker, **fields)


def test_a_worker_that_takes_the_place_of_another_continues_its_row(record):
    events = [record.events[0], task("a:1", 0), task("a:2", 5), task("a:3", 20), task("b:1", 20)]
    rows = rows_of_workers(replace(record, events=events))
    assert [(name, len(segments)) for name, segments in rows] == [("a 1", 2), ("a 2", 1), ("b 1", 1)]


def test_of_many_workers_is_counted_how_many_were_at_what(record):
    events = [record.events[0]]
    events += [task(f"a:{i}", 1.0, outcome="failed" if i % 10 == 0 else "done") for i in range(MOST_ROWS + 5)]
    drawn = draw_timeline(replace(record, events=events, provenance={}))
    assert "How many workers" in drawn.caption
    (axes,) = drawn.figure.axes
    assert axes.get_ylabel() == "workers"
    columns = {column.name: column.values for column in drawn.columns}
    assert len(set(columns["worker"])) == MOST_ROWS + 5
    assert sum(columns["failed"]) == 7
    assert columns["took"] == [10.0] * (MOST_ROWS + 5)


def test_the_failed_are_told_apart_where_each_worker_has_its_row(record):
    events = [record.events[0], task("a:1", 0), task("a:1", 20, outcome="failed")]
    drawn = draw_timeline(replace(record, events=events))
    assert "failed" in [text.get_text() for text in drawn.figure.legends[0].get_texts()]
