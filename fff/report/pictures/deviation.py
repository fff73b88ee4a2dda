"""Deviation against error: is the committee's disagreement worth anything?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fff.report.agreement import agreement_of
from fff.report.drawing import INK, QUIET, Column, Drawing, drawing
from fff.report.pictures.axes import colour_of, logarithmic
from fff.report.record import by_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from matplotlib.axes import Axes

    from fff.report.record import Record

__all__ = ["before_training", "draw_deviation", "on_the_test_set"]

type Points = list[tuple[str, str, "Float[np.ndarray, ' n']", "Float[np.ndarray, ' n']"]]
"""Group, colour, deviations and errors (eV/Å)."""


def on_the_test_set(record: Record) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return deviations and errors of the newest committee on the test set, in eV/Å."""
    if record.prediction is None:
        return np.zeros(0), np.zeros(0)
    return record.prediction.deviation_eV_per_A, record.prediction.error_eV_per_A


def before_training(record: Record) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return deviations, and errors of what was predicted before training, of the labels, in eV/Å."""
    return (
        np.array([item.deviation_eV_per_A for item in record.judged], dtype=float),
        np.array([item.error_eV_per_A for item in record.judged], dtype=float),
    )


def draw_deviation(record: Record) -> Drawing | str:
    """Draw largest deviation against largest force error per structure; a sentence if there is none."""
    panels: list[tuple[str, Points]] = []
    if record.prediction is not None:
        deviation, error = on_the_test_set(record)
        title = f"test set, {record.prediction.name}"
        panels.append((title, [("test", INK, *_drawable(deviation, error))]))
    panels.append(("labels, before training on them", _of_labels(record)))
    panels = [(title, points) for title, points in panels if any(len(error) for *_, error in points)]
    if not panels:
        return "No structure has both a deviation and a known error yet."
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(7.6, 4.4) if len(panels) > 1 else (4.4, 4.4))
        everything = [
            np.concatenate([part for *_, d, e in points for part in (d, e)]) for _, points in panels
        ]
        limits = np.concatenate(everything)
        for axes, (title, points) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _draw_panel(axes, title, points, limits)
    rows = [(title, *group) for title, points in panels for group in points]
    return Drawing(
        name="deviation_error",
        title="Deviation against error",
        figure=figure,
        columns=_columns(rows),
        caption=(
            "Each point is a structure: the largest deviation of the committee's force on one atom against "
            "the largest error of that force. On the line both are equal. Points at the upper left are what "
            "to be afraid of: a large error, and the members agreed. Of audits the error is that of the "
            "member that drove the run. The deviation is raw, not calibrated: it ranks, it is no error bar."
        ),
    )


def _drawable(
    deviation: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    shown = np.isfinite(deviation) & np.isfinite(error) & (deviation > 0) & (error > 0)
    return deviation[shown], error[shown]


def _of_labels(record: Record) -> Points:
    points: Points = []
    for source, items in by_source(record.judged).items():
        deviation = np.array([item.deviation_eV_per_A for item in items], dtype=float)
        error = np.array([item.error_eV_per_A for item in items], dtype=float)
        deviation, error = _drawable(deviation, error)
        if len(error):
            points.append((source, colour_of(source), deviation, error))
    return points


def _draw_panel(axes: Axes, title: str, points: Points, limits: Float[np.ndarray, " n"]) -> None:
    for name, colour, deviation, error in points:
        axes.scatter(deviation, error, s=12, alpha=0.6, linewidths=0, color=colour, label=name)
    logarithmic(axes.xaxis, limits)
    logarithmic(axes.yaxis, limits)
    axes.plot(axes.get_xlim(), axes.get_xlim(), color=QUIET, linewidth=0.8, zorder=0)
    axes.set_aspect("equal")
    axes.set_xlabel("largest force deviation (eV/Å)")
    axes.set_ylabel("largest force error (eV/Å)")
    found = agreement_of(
        np.concatenate([deviation for *_, deviation, _ in points]),
        np.concatenate([error for *_, error in points]),
    )
    # In the title: points may be anywhere in the panel.
    says = (
        ""
        if found is None
        else f"\nrank correlation {found.rank_correlation:.2f}, {found.n_structures} structures"
    )
    axes.set_title(title + says)
    if len(points) > 1:
        axes.legend(loc="lower right", markerscale=1.6, handletextpad=0.1, borderaxespad=0.2, fontsize=8)


def _columns(rows: Sequence[tuple[str, str, str, np.ndarray, np.ndarray]]) -> list[Column]:
    return [
        Column("set", "", [title for title, _, _, _, error in rows for _ in error]),
        Column("source", "", [name for _, name, _, _, error in rows for _ in error]),
        Column("deviation", "eV/Å", [float(x) for *_, deviation, _ in rows for x in deviation]),
        Column("error", "eV/Å", [float(x) for *_, error in rows for x in error]),
    ]
