"""How a training went: the error over epochs, and over the number of labels."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from fff.report.drawing import COLOURS, QUIET, Column, Drawing, drawing
from fff.report.pictures.axes import logarithmic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["draw_error_over_labels", "draw_histories", "read_history"]

meV = 1000.0  # noqa: N816 - the unit's own spelling
_ERROR = "validation_force_mae"


def read_history(path: Path) -> list[dict[str, float | None]]:
    """Return the rows of a member's `history.csv`, by the names of its columns; None for empty cells.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        names, _units, *rows = csv.reader(file)
    return [
        {name: float(cell) if cell else None for name, cell in zip(names, row, strict=True)} for row in rows
    ]


def draw_histories(histories: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Drawing:
    """Draw the validation force error of each member over its epochs.

    Args:
        histories: Rows of `read_history` by the member's name.
    """
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure()
        axes = figure.subplots()
        for i, (name, rows) in enumerate(histories.items()):
            known = [row for row in rows if row[_ERROR] is not None]
            errors = [meV * float(row[_ERROR] or 0.0) for row in known]
            axes.plot(
                [float(row["epoch"] or 0) for row in known],
                errors,
                color=COLOURS[i % len(COLOURS)],
                label=name,
            )
        shown = [meV * (row[_ERROR] or 0.0) for rows in histories.values() for row in rows]
        logarithmic(axes.yaxis, shown)
        axes.set_xlabel("epoch")
        axes.set_ylabel("force MAE on left-out labels (meV/Å)")
        axes.legend(ncols=2 if len(histories) > 4 else 1)
    flat = [(name, row) for name, rows in histories.items() for row in rows]
    errors_found = [row[_ERROR] for _, row in flat]
    return Drawing(
        name="learning_curve",
        title="Error over the training",
        figure=figure,
        columns=[
            Column("member", "", [name for name, _ in flat]),
            Column("epoch", "", [int(row["epoch"] or 0) for _, row in flat]),
            Column("wall", "s", [row["wall"] for _, row in flat]),
            Column("learning_rate", "", [row["learning_rate"] for _, row in flat]),
            Column("train_loss", "", [row["train_loss"] for _, row in flat]),
            Column(_ERROR, "meV/Å", [None if error is None else meV * error for error in errors_found]),
        ],
        caption="Each member is judged on the labels that it left out; it keeps its best epoch.",
    )


def draw_error_over_labels(by_size: Mapping[int, Mapping[str, Any]], *, n_members: int) -> Drawing:
    """Draw the force error on a test set over the number of labels.

    Args:
        by_size: What `fff.data.accuracy.force_accuracy` returned, by the number of labels.
        n_members: Members of each committee.
    """
    from matplotlib.figure import Figure

    sizes = sorted(by_size)
    errors = [by_size[size]["force_mae_meV_per_A"] for size in sizes]
    intervals = [by_size[size]["force_mae_interval_meV_per_A"] or [None, None] for size in sizes]
    with drawing():
        figure = Figure()
        axes = figure.subplots()
        axes.plot(sizes, errors, marker="o", label="committee" if n_members > 1 else "model")
        if all(low is not None for low, _ in intervals):
            lows, highs = zip(*intervals, strict=True)
            axes.fill_between(sizes, lows, highs, alpha=0.2, linewidth=0, label="95 % interval")
        mean_force = by_size[sizes[-1]]["mean_force_mae_meV_per_A"]
        axes.axhline(mean_force, color=QUIET, linewidth=0.8, label="mean force as predictor")
        axes.legend()
        logarithmic(axes.yaxis, [*errors, mean_force])
        logarithmic(axes.xaxis, sizes)
        axes.set_xlabel("labels")
        axes.set_ylabel("force MAE on the test set (meV/Å)")
    return Drawing(
        name="error_over_labels",
        title="Error over the number of labels",
        figure=figure,
        columns=[
            Column("labels", "", sizes),
            Column("force_mae", "meV/Å", errors),
            Column("force_mae_low", "meV/Å", [low for low, _ in intervals]),
            Column("force_mae_high", "meV/Å", [high for _, high in intervals]),
        ],
        caption="Force error on the test set, which nothing was trained on.",
    )
