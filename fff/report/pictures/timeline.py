"""What every worker did when; of many workers, how many were at which kind of task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fff.report.drawing import COLOURS, QUIET, Column, Drawing, drawing
from fff.report.lanes import Lanes
from fff.report.pictures.axes import time_unit
from fff.report.sittings import sittings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fff.report.lanes import Segment
    from fff.report.record import Record
    from fff.report.sittings import Sittings

__all__ = ["MOST_ROWS", "draw_timeline", "rows_of_workers"]

MOST_ROWS = 60
"""Rows beyond which workers are counted, not drawn one by one."""

BINS = 400

_KINDS = (
    "train",
    "dynamics",
    "calculate",
    "reference-dynamics",
    "train-baseline",
    "score",
    "choose",
    "evaluate",
    "refit",
)
_OF_KIND = dict(
    zip(
        _KINDS,
        (
            COLOURS[0],
            COLOURS[2],
            COLOURS[1],
            COLOURS[4],
            COLOURS[5],
            COLOURS[3],
            "#8c6bb1",
            "#5c4b37",
            COLOURS[6],
        ),
        strict=True,
    )
)


def draw_timeline(record: Record) -> Drawing | str:
    """Draw a row per worker, a bar per task; a sentence where no task has ended."""
    rows = rows_of_workers(record)
    if not rows:
        return "No task has ended yet."
    from matplotlib.figure import Figure

    sittings = sittings_of(record)
    seconds, unit = time_unit(sittings.worked_s)
    many = len(rows) > MOST_ROWS
    with drawing():
        figure = Figure(figsize=(7.6, 3.4 if many else 1.5 + 0.22 * max(3, len(rows))))
        axes = figure.subplots()
        (_draw_counts if many else _draw_rows)(axes, rows, sittings, seconds)
        for start, _ in sittings.stretches[1:]:
            axes.axvline(sittings.worked_by(start) / seconds, color=QUIET, linestyle=":", linewidth=1.2)
        axes.set_xlim(0, sittings.worked_s / seconds)
        axes.set_xlabel(f"time worked ({unit})")
        axes.grid(visible=False)
        figure.legend(loc="outside upper center", ncols=5, fontsize=8, handlelength=1.2)
    resumed = (
        " Dotted lines: the campaign was stopped there and went on; tasks it broke off are white."
        if sittings.stretches[1:]
        else ""
    )
    what = (
        "How many workers were at which kind of task; the gap to the dashed line was idle."
        if many
        else "What each worker did; white is idle, hatched red failed."
    )
    flat = [(name, segment) for name, segments in rows for segment in segments]
    return Drawing(
        name="timeline",
        title="Workers over time",
        figure=figure,
        columns=[
            Column("worker", "", [name for name, _ in flat]),
            Column("request", "", [segment.request for _, segment in flat]),
            Column("kind", "", [segment.kind for _, segment in flat]),
            Column("failed", "", [int(segment.failed) for _, segment in flat]),
            Column("started", "s", [round(sittings.worked_by(s.started), 3) for _, s in flat]),
            Column("took", "s", [round(segment.ended - segment.started, 3) for _, segment in flat]),
        ],
        caption=what + resumed,
    )


def rows_of_workers(record: Record) -> list[tuple[str, list[Segment]]]:
    """Return what workers did, a row for each that is there at one time.

    A worker that takes the place of one that has gone continues its row: each sitting has its own processes.
    """
    lanes = Lanes()
    for event in record.events:
        lanes.add(event)
    rows: list[tuple[str, list[Segment]]] = []
    workers = [lanes.segments(worker) for worker in lanes.workers]
    for worker, segments in sorted(zip(lanes.workers, workers, strict=True), key=lambda item: item[1][0]):
        host = worker.rpartition(":")[0]
        for name, before in rows:
            if name.rpartition(" ")[0] == host and before[-1].ended <= segments[0].started:
                before.extend(segments)
                break
        else:
            number = 1 + sum(name.rpartition(" ")[0] == host for name, _ in rows)
            rows.append((f"{host} {number}", [*segments]))
    return rows


def _colour(kind: str) -> str:
    return _OF_KIND.get(kind, COLOURS[7])


def _kinds(rows: list[tuple[str, list[Segment]]]) -> list[str]:
    found = {segment.kind for _, segments in rows for segment in segments}
    return [*(kind for kind in _KINDS if kind in found), *sorted(found - set(_KINDS))]


def _draw_rows(axes: Axes, rows: list[tuple[str, list[Segment]]], sittings: Sittings, seconds: float) -> None:
    for kind in _kinds(rows):
        label: str | None = kind
        for height, (_, segments) in enumerate(rows):
            own = [segment for segment in segments if segment.kind == kind and not segment.failed]
            axes.broken_barh(
                _bars(own, sittings, seconds), (height - 0.38, 0.76), facecolor=_colour(kind), label=label
            )
            label = None
    label = "failed"
    for height, (_, segments) in enumerate(rows):
        failed = _bars([segment for segment in segments if segment.failed], sittings, seconds)
        if failed:
            style: Any = {"facecolor": "white", "edgecolor": "#b3001b", "hatch": "////", "linewidth": 0.8}
            axes.broken_barh(failed, (height - 0.38, 0.76), label=label, **style)
            label = None
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)


def _bars(segments: list[Segment], sittings: Sittings, seconds: float) -> list[tuple[float, float]]:
    bars = []
    for segment in segments:
        start = sittings.worked_by(segment.started)
        bars.append((start / seconds, (sittings.worked_by(segment.ended) - start) / seconds))
    return bars


def _draw_counts(
    axes: Axes, rows: list[tuple[str, list[Segment]]], sittings: Sittings, seconds: float
) -> None:
    """Draw the mean number of workers at each kind of task, in short stretches of time."""
    edges = np.linspace(0.0, max(sittings.worked_s, 1e-9), BINS + 1)
    kinds = _kinds(rows)
    counts = []
    for kind in [*kinds, "failed"]:
        spent = np.zeros(BINS + 1)
        for _, segments in rows:
            for segment in segments:
                if ("failed" if segment.failed else segment.kind) == kind:
                    times = [sittings.worked_by(segment.started), sittings.worked_by(segment.ended)]
                    # What of the task lies before each edge.
                    spent += np.clip(edges, times[0], times[1]) - times[0]
        counts.append(np.diff(spent) / np.diff(edges))
    middles = (edges[:-1] + edges[1:]) / 2 / seconds
    axes.stackplot(
        middles, *counts, labels=[*kinds, "failed"], colors=[*map(_colour, kinds), "#b3001b"], linewidth=0
    )
    axes.axhline(len(rows), color=QUIET, linestyle="--", linewidth=1.0)
    axes.set_ylim(0, len(rows) * 1.04)
    axes.set_ylabel("workers")
