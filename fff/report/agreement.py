"""Whether the deviation is worth anything: does it rank errors, and which large errors does it miss?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["Agreement", "agreement_of", "rank_correlation"]

FEWEST = 10
"""Structures below which a rank correlation says nothing."""

LARGE = 0.1
"""Part of the structures whose errors count as large."""


@dataclass(frozen=True)
class Agreement:
    """How deviation and error go together.

    Attributes:
        n_structures: How many have both.
        rank_correlation: Spearman's, from -1 to 1.
        n_large: How many errors count as large: the largest tenth.
        n_missed: How many of those have a deviation below the median of all.
        median_eV_per_A: That median.
    """

    n_structures: int
    rank_correlation: float
    n_large: int
    n_missed: int
    median_eV_per_A: float


def agreement_of(
    deviation: Float[np.ndarray, " n_structures"], error: Float[np.ndarray, " n_structures"]
) -> Agreement | None:
    """Return how deviation and error go together, or None where too few structures have both."""
    both = np.isfinite(deviation) & np.isfinite(error)
    deviation, error = deviation[both], error[both]
    if len(error) < FEWEST:
        return None
    n_large = math.ceil(LARGE * len(error))
    large = np.argsort(-error, kind="stable")[:n_large]
    median = float(np.median(deviation))
    return Agreement(
        n_structures=len(error),
        rank_correlation=rank_correlation(deviation, error),
        n_large=n_large,
        n_missed=int((deviation[large] < median).sum()),
        median_eV_per_A=median,
    )


def rank_correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Return Spearman's rank correlation; NaN where all values of one are equal.

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0]))
        1.0
    """
    ranks = [_ranks(values) for values in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    norm = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return round(float((centred[0] * centred[1]).sum()) / norm, 12) if norm else math.nan


def _ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return ranks; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Float[np.ndarray, " n"] = (last - (counts - 1) / 2)[inverse]
    return mean
