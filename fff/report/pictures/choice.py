"""How each label was chosen: its source, the temperature of its dynamics, the deviation at that time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fff.report.drawing import QUIET, Column, Drawing, drawing
from fff.report.pictures.axes import colour_of, logarithmic
from fff.report.record import by_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from fff.report.record import Judged, Record

__all__ = ["draw_choice"]

_MARKS = "o^sDvP"


def draw_choice(record: Record) -> Drawing | str:
    """Draw the deviation at which each label was chosen, in the order of labels."""
    if not record.judged:
        return "There is no label yet."
    from matplotlib.figure import Figure

    place = {item.request: number for number, item in enumerate(record.judged, start=1)}
    temperatures = _temperatures(record.judged)
    with drawing():
        figure = Figure(figsize=(7.6, 3.6))
        axes = figure.subplots()
        unknown: list[tuple[float, str]] = []
        shown: list[float] = []
        for source, items in by_source(record.judged).items():
            known = [item for item in items if item.deviation_eV_per_A > 0]
            shown += [item.deviation_eV_per_A for item in known]
            unknown += [(place[item.request], source) for item in items if not item.deviation_eV_per_A > 0]
            _draw_source(axes, source, known, place, temperatures)
        logarithmic(axes.yaxis, shown)
        for source in dict.fromkeys(source for _, source in unknown):
            # At the lower edge: nothing was predicted for the first labels.
            at = [x for x, of in unknown if of == source]
            label = f"{source} (no deviation known)"
            edge = axes.get_xaxis_transform()
            axes.scatter(
                at, [0.02] * len(at), marker="|", s=30, color=colour_of(source), transform=edge, label=label
            )
        axes.set_xlim(0, len(record.judged) + 1)
        axes.set_xlabel("label, in order")
        axes.set_ylabel("deviation when chosen (eV/Å)")
        threshold = record.setting("sampling.stop_deviation_eV_per_A")
        low, high = axes.get_ylim()
        if threshold and low < threshold < high:
            axes.axhline(threshold, color=QUIET, linestyle="--", linewidth=1.0, label="runs end above this")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return Drawing(
        name="labels_chosen",
        title="How each label was chosen",
        figure=figure,
        columns=_columns(record.judged),
        caption=(
            "The committee's largest force deviation on each structure when it was chosen. Audits are last "
            "frames of runs, whatever their deviation; active labels are chosen for being uncertain and "
            "unlike the others. A fall from left to right says that what the dynamics meets has become known."
        ),
    )


def _temperatures(judged: Sequence[Judged]) -> list[float]:
    """Return the temperatures that labels were met at, lowest first."""
    return sorted({item.temperature_K for item in judged if np.isfinite(item.temperature_K)})


def _draw_source(
    axes: Axes, source: str, items: Sequence[Judged], place: dict[str, int], temperatures: Sequence[float]
) -> None:
    """Draw the labels of a source, a mark for each temperature where there are several."""
    several = len(temperatures) > 1
    for number, temperature in enumerate(temperatures if several else [float("nan")]):
        own = [item for item in items if not several or item.temperature_K == temperature]
        if own:
            label = f"{source}, {temperature:g} K" if several else source
            axes.scatter(
                [place[item.request] for item in own],
                [item.deviation_eV_per_A for item in own],
                s=20,
                marker=_MARKS[number % len(_MARKS)],
                color=colour_of(source),
                linewidths=0,
                label=label,
            )


def _columns(judged: Sequence[Judged]) -> list[Column]:
    return [
        Column("request", "", [item.request for item in judged]),
        Column("source", "", [item.source for item in judged]),
        Column("structure", "", [item.label.hash for item in judged]),
        Column("atoms", "", [len(item.label.atoms) for item in judged]),
        Column("temperature", "K", [item.temperature_K for item in judged]),
        Column("deviation", "eV/Å", [item.deviation_eV_per_A for item in judged]),
        Column("largest_force_error", "eV/Å", [item.error_eV_per_A for item in judged]),
        Column("wall", "s", [item.label.wall_s for item in judged]),
    ]
