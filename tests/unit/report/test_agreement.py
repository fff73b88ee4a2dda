"""Whether the deviation ranks errors, and what it misses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from fff.report.agreement import agreement_of, rank_correlation


def test_the_rank_correlation_is_spearmans_also_with_ties():
    random = np.random.default_rng(0)
    first = random.integers(0, 6, 40).astype(float)
    second = first + random.normal(0, 2, 40)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_of_equal_values_nothing_can_be_said():
    assert math.isnan(rank_correlation(np.ones(5), np.arange(5.0)))


def test_a_large_error_with_a_small_deviation_is_missed():
    deviation, error = np.arange(1.0, 31.0), np.arange(1.0, 31.0)
    error[2] = 100.0
    found = agreement_of(deviation, error)
    assert (found.n_structures, found.n_large, found.n_missed) == (30, 3, 1)
    assert found.median_eV_per_A == 15.5


def test_numbers_that_are_not_known_do_not_count():
    deviation, error = np.arange(1.0, 21.0), np.arange(1.0, 21.0)
    deviation[:5] = np.nan
    assert agreement_of(deviation, error).n_structures == 15
    deviation[:15] = np.nan
    assert agreement_of(deviation, error) is None
