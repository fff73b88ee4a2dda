"""What happened along a run of dynamics: temperature, energy and deviation over time."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.report.drawing import COLOURS, QUIET, drawing

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float
    from matplotlib.figure import Figure

__all__ = ["draw_motion", "drift", "read_motion"]

_MOST_POINTS = 4000
_ABOVE: Any = {"ncols": 2, "loc": "lower right", "bbox_to_anchor": (1.0, 0.97), "borderaxespad": 0.0}


def read_motion(path: Path) -> dict[str, Float[np.ndarray, " n_frames"]]:
    """Return the columns of a table of dynamics by name; NaN for empty cells.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        names, _units, *rows = csv.reader(file)
    values = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
    return dict(zip(names, values.reshape(-1, len(names)).T, strict=True))


def drift(
    time_fs: Float[np.ndarray, " n"], energy_eV: Float[np.ndarray, " n"]
) -> tuple[float, float] | tuple[None, None]:
    """Return how fast an energy changes (eV/ps), by a straight line, and its scatter about that line (eV).

    Two frames lie on a line whatever they are: of fewer than three nothing is known.
    """
    if len(time_fs) < 3:
        return None, None
    time_ps = (time_fs - time_fs.mean()) / 1000.0
    energy = energy_eV - energy_eV.mean()
    slope = float(time_ps @ energy) / float(time_ps @ time_ps)
    return slope, float((energy - slope * time_ps).std())


def draw_motion(
    columns: dict[str, Float[np.ndarray, " n_frames"]], threshold_eV_per_A: float | None
) -> Figure:
    """Draw temperature, energies and deviation over time.

    Args:
        columns: What `read_motion` returned.
        threshold_eV_per_A: Deviation at which the run was to end; None where there is no deviation.
    """
    from matplotlib.figure import Figure

    stride = -(-len(columns["time"]) // _MOST_POINTS) or 1
    shown = {name: values[::stride] for name, values in columns.items()}
    n_panels = 2 if threshold_eV_per_A is None else 3
    time_ps = shown["time"] / 1000.0
    with drawing():
        figure = Figure(figsize=(6.4, 2.0 * n_panels))
        temperature, energy, *deviation = figure.subplots(n_panels, 1, sharex=True)
        temperature.plot(time_ps, shown["temperature"], linewidth=0.9)
        temperature.set_ylabel("temperature (K)")
        for name, colour in (("potential_energy", COLOURS[1]), ("total_energy", COLOURS[0])):
            change = shown[name] - columns[name][:1]
            energy.plot(time_ps, change, color=colour, linewidth=0.9, label=name.replace("_energy", ""))
        energy.set_ylabel("energy, from the start (eV)")
        energy.legend(**_ABOVE)
        for axes in deviation:
            axes.plot(time_ps, shown["deviation"], color=COLOURS[2], linewidth=0.9)
            axes.axhline(threshold_eV_per_A, color=QUIET, linestyle="--", linewidth=0.9, label="ends above")
            axes.set_ylim(bottom=0.0)
            axes.set_ylabel("largest force\ndeviation (eV/Å)")
            axes.legend(**_ABOVE)
        figure.axes[-1].set_xlabel("time (ps)")
        figure.align_ylabels()
    return figure
