"""How wrong predictions are, in the numbers that the field compares."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from fff.data.records import Label

__all__ = ["force_accuracy"]

N_RESAMPLES = 2000
_MOST_DRAWN = 1_000_000
"""Segments that are drawn at once: of a hundred thousand structures all resamples would take gigabytes."""

meV = 1000.0  # noqa: N816 - the unit's own spelling


def force_accuracy(
    labels: Sequence[Label],
    energy_eV: Float[np.ndarray, " n_structures"],
    forces_eV_per_A: Sequence[Float[np.ndarray, "n_atoms 3"]],
) -> dict[str, float | list[float] | int | None]:
    """Return the errors of predictions on labelled structures.

    Args:
        labels: Structures with reference energies and forces.
        energy_eV: Predicted total energies.
        forces_eV_per_A: Predicted forces, one array per structure.

    Returns:
        `n_structures`; `force_mae_meV_per_A` and `force_rmse_meV_per_A` over all components;
        `force_mae_interval_meV_per_A`, a 95 % interval of the former by a bootstrap over segments (frames of
        one stretch of dynamics are correlated; structures without a segment count singly), None when there
        is one segment only;
        `mean_force_mae_meV_per_A`, what predicting the mean force everywhere would give; and
        `energy_mae_meV_per_atom`.

    Raises:
        ValueError: If there is no label.

    Source:
        Percentile bootstrap over clusters: Davison and Hinkley, Bootstrap Methods and their Application
        (1997), doi:10.1017/CBO9780511802843, section 3.8.
    """
    if not labels:
        msg = "Errors need at least one labelled structure; there is none."
        raise ValueError(msg)
    reference = np.concatenate([label.forces_eV_per_A for label in labels])
    errors = np.concatenate(list(forces_eV_per_A)) - reference
    n_atoms = np.array([len(label.atoms) for label in labels])
    energy_errors = np.abs(energy_eV - np.array([label.energy_eV for label in labels])) / n_atoms
    return {
        "n_structures": len(labels),
        "force_mae_meV_per_A": _rounded(np.abs(errors).mean()),
        "force_rmse_meV_per_A": _rounded(np.sqrt((errors**2).mean())),
        "force_mae_interval_meV_per_A": _interval(labels, np.abs(errors)),
        "mean_force_mae_meV_per_A": _rounded(np.abs(reference - reference.mean(axis=0)).mean()),
        "energy_mae_meV_per_atom": _rounded(energy_errors.mean()),
    }


def _interval(labels: Sequence[Label], errors: Float[np.ndarray, "n_atoms 3"]) -> list[float] | None:
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    first = 0
    for index, label in enumerate(labels):
        segment = label.segment or f"structure {index}"
        rows = errors[first : first + len(label.atoms)]
        sums[segment] += float(rows.sum())
        counts[segment] += rows.size
        first += len(label.atoms)
    if len(sums) == 1:
        # One stretch says nothing about another.
        return None
    total, count = np.array(list(sums.values())), np.array(list(counts.values()))
    # A fixed seed: the same predictions have the same interval, whoever asks.
    rng = np.random.default_rng(0)
    means = np.empty(N_RESAMPLES)
    n_rows = max(1, _MOST_DRAWN // len(total))
    for begin in range(0, N_RESAMPLES, n_rows):
        rows = means[begin : begin + n_rows]
        draws = rng.integers(len(total), size=(len(rows), len(total)))
        rows[:] = total[draws].sum(axis=1) / count[draws].sum(axis=1)
    return [_rounded(bound) for bound in np.quantile(means, [0.025, 0.975])]


def _rounded(error_eV: float) -> float:
    return round(float(error_eV) * meV, 3)
