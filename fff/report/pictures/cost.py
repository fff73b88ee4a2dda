"""What labels cost: the reference calculation alone, and all that was done for them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from fff.report.drawing import COLOURS, QUIET, Column, Drawing, drawing
from fff.report.pictures.axes import colour_of, logarithmic
from fff.report.record import by_source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fff.report.record import Record

__all__ = ["draw_cost", "worker_seconds"]


def worker_seconds(record: Record) -> dict[str, float]:
    """Return what tasks took by kind, failed ones too, in seconds, the largest first."""
    spent: defaultdict[str, float] = defaultdict(float)
    for event in record.events:
        if {"started", "ended"} <= event.times.keys():
            spent[event.kind] += max(0.0, event.times["ended"] - event.times["started"])
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def draw_cost(record: Record) -> Drawing | str:
    """Draw what each reference calculation took, and worker time per label by kind of task."""
    made = [item for item in record.judged if item.source != "imported"]
    if not made:
        return "There is no label yet."
    from matplotlib.figure import Figure

    spent = worker_seconds(record)
    with drawing():
        figure = Figure(figsize=(7.6, 3.4))
        left, right = figure.subplots(1, 2)
        _draw_calculations(left, record)
        kinds = list(spent)[::-1]
        right.barh(kinds, [spent[kind] / len(made) for kind in kinds], color=COLOURS[0])
        right.set_xlabel("worker time per label (s)")
        right.set_title("all that was done, per label")
        right.grid(visible=False, axis="y")
    return Drawing(
        name="cost",
        title="Cost per label",
        figure=figure,
        columns=[
            Column("kind", "", list(spent)),
            Column("worker_time", "s", [round(value, 3) for value in spent.values()]),
            Column("per_label", "s", [round(value / len(made), 4) for value in spent.values()]),
        ],
        caption=(
            "Left: what the reference calculation of each label took. Right: worker time of all tasks over "
            "the number of labels. Where calculations are cheap beside training, more labels per round cost "
            "little; where they dominate, fewer and better chosen ones pay."
        ),
    )


def _draw_calculations(axes: Axes, record: Record) -> None:
    sizes = np.array([len(item.label.atoms) for item in record.judged])
    place = {item.request: number for number, item in enumerate(record.judged, start=1)}
    by_size = len(set(sizes.tolist())) > 1
    shown: list[float] = []
    for source, items in by_source(record.judged).items():
        known = [item for item in items if item.label.wall_s > 0 and source != "imported"]
        shown += [item.label.wall_s for item in known]
        at = [len(item.label.atoms) if by_size else place[item.request] for item in known]
        if known:
            times = [item.label.wall_s for item in known]
            axes.scatter(at, times, s=14, color=colour_of(source), alpha=0.75, linewidths=0, label=source)
    if not shown:
        axes.text(0.5, 0.5, "no times known", transform=axes.transAxes, ha="center", color=QUIET)
        return
    logarithmic(axes.yaxis, shown)
    axes.set_xlabel("atoms" if by_size else "label, in order")
    axes.set_ylabel("reference calculation (s)")
    axes.set_title("reference calculations")
    axes.legend(loc="best", fontsize=8, handletextpad=0.1)
