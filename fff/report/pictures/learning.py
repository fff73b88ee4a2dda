"""The learning curve: the error on the test set over labels and over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fff.report.drawing import COLOURS, QUIET, Column, Drawing, drawing
from fff.report.pictures.axes import logarithmic, time_unit
from fff.report.sittings import sittings_of
from fff.report.verdict import why_no_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from fff.report.record import Evaluation, Record

__all__ = ["draw_learning_curve"]

_ERROR = "force_mae_meV_per_A"
_INTERVAL = "force_mae_interval_meV_per_A"
_MEAN_FORCE = "mean_force_mae_meV_per_A"


def draw_learning_curve(record: Record) -> Drawing | str:
    """Draw the force error on the test set over labels and over time; a sentence where there is none."""
    rounds = record.rounds
    if not rounds:
        return why_no_error(record)
    from matplotlib.figure import Figure

    sittings = sittings_of(record)
    times = [sittings.worked_by(evaluation.known_at) for evaluation in record.evaluations]
    seconds, unit = time_unit(max(times))
    with drawing():
        figure = Figure(figsize=(7.6, 3.7))
        left, right = figure.subplots(1, 2, sharey=True)
        own = [not evaluation.is_baseline for evaluation in record.evaluations]
        _draw(left, rounds, [evaluation.n_labels or 0 for evaluation in rounds])
        at = [time / seconds for time, is_own in zip(times, own, strict=True) if is_own]
        _draw(right, rounds, at)
        _draw_baseline(left, record.baseline)
        shown = _draw_lines((left, right), record)
        logarithmic(left.yaxis, [*shown, *_bounds(record.evaluations)])
        left.set_ylabel("force error on the test set, MAE (meV/Å)")
        left.set_xlabel("labels")
        left.set_xlim(left=0)
        right.set_xlabel(f"time worked ({unit})")
        right.set_xlim(left=0)
        left.legend(loc="best", fontsize=8)
    return Drawing(
        name="learning_curve",
        title="Learning curve",
        figure=figure,
        columns=_columns(record.evaluations, times),
        caption=(
            "Mean absolute error of force components on structures that no committee was trained on, over "
            "labels (left) and over the time worked (right). Bars are 95 % intervals from a bootstrap over "
            "stretches of dynamics; the scale is logarithmic. Where the curve still falls, more labels help."
        ),
    )


def _draw(axes: Axes, rounds: Sequence[Evaluation], at: Sequence[float]) -> None:
    errors = [evaluation.values[_ERROR] for evaluation in rounds]
    axes.plot(at, errors, "o-", color=COLOURS[0], markersize=4, label="committees", zorder=3)
    _draw_bars(axes, rounds, at, COLOURS[0])


def _draw_baseline(axes: Axes, baseline: Evaluation | None) -> None:
    if baseline is None or baseline.n_labels is None:
        return
    # Beside the last committee, not on top of it.
    at = baseline.n_labels * 1.03
    label = "as many random frames"
    axes.plot([at], [baseline.values[_ERROR]], "D", color=COLOURS[1], markersize=5, label=label, zorder=3)
    _draw_bars(axes, [baseline], [at], COLOURS[1])


def _draw_bars(axes: Axes, evaluations: Sequence[Evaluation], at: Sequence[float], colour: str) -> None:
    for x, evaluation in zip(at, evaluations, strict=True):
        interval = evaluation.values.get(_INTERVAL)
        if interval:
            axes.plot([x, x], interval, "_-", color=colour, linewidth=1.0, markersize=5, alpha=0.8)


def _draw_lines(both: Sequence[Axes], record: Record) -> list[float]:
    """Draw what errors are compared with; return the levels."""
    level = record.rounds[0].values.get(_MEAN_FORCE)
    if not level:
        return []
    for axes in both:
        axes.axhline(level, color=QUIET, linestyle="--", linewidth=1.0, label="mean force as predictor")
    return [level]


def _bounds(evaluations: Sequence[Evaluation]) -> list[float]:
    return [
        value
        for evaluation in evaluations
        for value in (evaluation.values[_ERROR], *(evaluation.values.get(_INTERVAL) or ()))
    ]


def _columns(evaluations: Sequence[Evaluation], times: Sequence[float]) -> list[Column]:
    def values(key: str) -> list[Any]:
        return [evaluation.values.get(key) for evaluation in evaluations]

    intervals = [interval or (None, None) for interval in values(_INTERVAL)]
    return [
        Column("committee", "", [evaluation.name for evaluation in evaluations]),
        Column("labels", "", [evaluation.n_labels for evaluation in evaluations]),
        Column("time_worked", "s", [round(time, 1) for time in times]),
        Column("force_mae", "meV/Å", values(_ERROR)),
        Column("force_mae_low", "meV/Å", [interval[0] for interval in intervals]),
        Column("force_mae_high", "meV/Å", [interval[1] for interval in intervals]),
        Column("force_rmse", "meV/Å", values("force_rmse_meV_per_A")),
        Column("energy_mae", "meV/atom", values("energy_mae_meV_per_atom")),
        Column("mean_force_mae", "meV/Å", values(_MEAN_FORCE)),
    ]
