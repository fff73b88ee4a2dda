"""Where the structures lie: two principal components of one model's features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fff.report.drawing import QUIET, Column, Drawing, drawing
from fff.report.pictures.axes import colour_of
from fff.report.record import by_source, read_features

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fff.report.record import Judged, Record

__all__ = ["draw_map", "principal_components"]

FEWEST = 3


def draw_map(record: Record) -> Drawing | str:
    """Draw labels and test set in two components of the features; a sentence where none are kept."""
    found = read_features(record)
    if found is None:
        return "No model has left its features of the labels (older campaigns do not), so there is no map."
    name, features = found
    placed = [item for item in record.judged if item.label.hash in features]
    if len(placed) < FEWEST:
        return "Too few labels have features for a map."
    own = np.array([features[item.label.hash] for item in placed])
    test = _test_features(record, name, own.shape[1])
    # The labels make the map; the test set is looked up in it.
    mean, axes_of_map, explained = principal_components(own)
    at, test_at = (own - mean) @ axes_of_map.T, (test - mean) @ axes_of_map.T
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(7.6, 3.9))
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes in (left, right):
            if len(test):
                x, y = test_at.T
                axes.scatter(x, y, s=10, color=QUIET, alpha=0.45, linewidths=0, label="test set")
            axes.set_xlabel(f"component 1 ({explained[0]:.0%} of the variance)")
        left.set_ylabel(f"component 2 ({explained[1]:.0%})")
        _colour_by_source(left, placed, at)
        _colour_by_error(figure, right, placed, at)
    return Drawing(
        name="structure_map",
        title="Where the structures lie",
        figure=figure,
        columns=[
            Column("structure", "", [*(i.label.hash for i in placed), *_test_hashes(record, len(test))]),
            Column("source", "", [*(item.source for item in placed), *(["test"] * len(test))]),
            Column("component_1", "", [*at[:, 0].tolist(), *test_at[:, 0].tolist()]),
            Column("component_2", "", [*at[:, 1].tolist(), *test_at[:, 1].tolist()]),
            Column("error", "eV/Å", [*(i.error_eV_per_A for i in placed), *([None] * len(test))]),
        ],
        caption=(
            f"Principal components of the features that one model (member 0 of {name}) gives to the "
            "labels; near points look alike to it. Left: where labels came from. Right: the largest force "
            "error that was made on each before it was learned. "
            + (
                "Test structures (grey) far from all labels are where the force field extrapolates."
                if len(test)
                else "The test set is not shown: its features by this very model are not kept, and those of "
                "two models cannot be compared."
            )
        ),
    )


def principal_components(
    features: Float[np.ndarray, "n n_features"],
) -> tuple[Float[np.ndarray, " n_features"], Float[np.ndarray, "2 n_features"], Float[np.ndarray, "2"]]:
    """Return the mean, the first two axes, and the part of the variance along each."""
    mean = features.mean(axis=0)
    _, singular, axes = np.linalg.svd(features - mean, full_matrices=False)
    variance = singular**2
    axes = axes[:2] * np.where(axes[:2, np.abs(axes[:2]).argmax(axis=1)].diagonal() < 0, -1.0, 1.0)[:, None]
    return mean, axes, variance[:2] / (variance.sum() or 1.0)


def _test_features(record: Record, name: str, n_features: int) -> Float[np.ndarray, "n n_features"]:
    """Return the features of the test set by the same model, where it is the one that was kept."""
    prediction = record.prediction
    if prediction is None or prediction.name != name or prediction.features.shape[1] != n_features:
        return np.zeros((0, n_features))
    return prediction.features


def _test_hashes(record: Record, n: int) -> list[str]:
    return [label.hash for label in record.prediction.labels] if record.prediction and n else []


def _colour_by_source(axes: Axes, placed: list[Judged], at: Float[np.ndarray, "n 2"]) -> None:
    rows = {item.request: row for row, item in enumerate(placed)}
    for source, items in by_source(placed).items():
        own = at[[rows[item.request] for item in items]]
        axes.scatter(
            own[:, 0], own[:, 1], s=18, color=colour_of(source), alpha=0.85, linewidths=0, label=source
        )
    axes.set_title("by source")
    axes.legend(loc="best", fontsize=8, markerscale=1.2, handletextpad=0.1)


def _colour_by_error(figure: Figure, axes: Axes, placed: list[Judged], at: Float[np.ndarray, "n 2"]) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_title("by error before training")
    error = np.array([item.error_eV_per_A for item in placed])
    known = np.isfinite(error) & (error > 0)
    x, y = at.T
    axes.scatter(x[~known], y[~known], s=18, facecolors="none", edgecolors=QUIET, linewidths=0.8)
    if not known.any():
        return
    # The worst last, on top of the others.
    order = np.flatnonzero(known)[np.argsort(error[known], kind="stable")]
    dots = axes.scatter(
        x[order], y[order], s=18, c=error[order], cmap="viridis_r", norm=LogNorm(), linewidths=0
    )
    ticks = LogLocator(subs=(1.0, 2.0, 5.0))
    bar = figure.colorbar(dots, ax=axes, label="largest force error (eV/Å)", format="%g", ticks=ticks)
    bar.ax.yaxis.set_minor_locator(NullLocator())
