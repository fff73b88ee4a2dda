from __future__ import annotations

import numpy as np
import pytest

from fff.base.errors import ConfigError
from fff.selection import make_rule
from fff.selection.rules import Diverse, Random, Threshold, VariancePruning

NONE_TAKEN = np.zeros((0, 1))


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def test_every_rule_of_the_config_is_made():
    section = {"threshold_eV_per_A": 0.2, "prune_fraction": 0.1, "batch_size": None}
    made = {
        name: make_rule(section | {"rule": name})
        for name in ("diverse", "variance-pruning", "threshold", "random")
    }
    assert made == {
        "diverse": Diverse(),
        "variance-pruning": VariancePruning(0.1),
        "threshold": Threshold(0.2),
        "random": Random(),
    }


def test_an_unknown_rule_is_refused_with_those_that_exist():
    with pytest.raises(ConfigError) as error:
        make_rule({"rule": "best"})
    assert error.value.context == {"key": "selection.rule", "value": "best"}
    assert "diverse, variance-pruning, threshold or random" in error.value.hint


class TestDiverse:
    def test_the_first_choice_is_the_largest_deviation(self):
        assert Diverse()(np.array([0.1, 0.3, 0.2]), column(0, 1, 2), NONE_TAKEN, 1, 0) == [1]

    def test_a_far_frame_goes_before_a_near_one_of_the_same_deviation(self):
        assert Diverse()(np.array([2.0, 1.0, 1.0]), column(0, 1, 5), NONE_TAKEN, 3, 0) == [0, 2, 1]

    def test_a_large_deviation_outweighs_a_small_distance(self):
        assert Diverse()(np.array([9.0, 6.0, 1.0]), column(0, 1, 5), NONE_TAKEN, 2, 0) == [0, 1]

    def test_what_is_taken_already_is_kept_away_from(self):
        deviations = np.array([2.0, 1.9, 1.0])
        assert Diverse()(deviations, column(0, 0.1, 5), NONE_TAKEN, 1, 0) == [0]
        assert Diverse()(deviations, column(0, 0.1, 5), column(0.05), 1, 0) == [2]

    def test_duplicates_come_last(self):
        chosen = Diverse()(np.array([9.0, 8.0, 7.0, 0.1]), column(0, 0, 3, 1), NONE_TAKEN, 4, 0)
        assert chosen[-1] == 1

    def test_where_the_committee_agrees_on_all_the_distance_decides(self):
        chosen = Diverse()(np.zeros(4), column(0, 1, 2, 10), column(0), 3, 0)
        assert chosen == [3, 2, 1]

    def test_a_frame_without_deviation_goes_after_those_with_some(self):
        chosen = Diverse()(np.array([0.0, 0.1, 0.1]), column(100, 0, 1), NONE_TAKEN, 3, 0)
        assert chosen[-1] == 0

    def test_identical_features_leave_the_order_of_the_deviations(self):
        deviations = np.array([0.2, 0.5, 0.1, 0.4])
        assert Diverse()(deviations, np.ones((4, 3)), NONE_TAKEN.repeat(3, axis=1), 4, 0) == [1, 3, 0, 2]

    def test_the_unit_of_a_feature_does_not_count(self):
        rng = np.random.default_rng(0)
        deviations, features, taken = rng.random(50), rng.normal(size=(50, 4)), rng.normal(size=(5, 4))
        scale = np.array([1.0, 10.0, 0.1, 7.0])
        expected = Diverse()(deviations, features, taken, 20, 0)
        assert Diverse()(deviations, features * scale + 3, taken * scale + 3, 20, 0) == expected

    def test_rounding_noise_in_a_constant_feature_does_not_count(self):
        features = np.column_stack(
            [np.linspace(0, 1, 10), 1 + 1e-9 * np.random.default_rng(0).normal(size=10)]
        )
        chosen = Diverse()(np.ones(10), features, features[:1], 1, 0)
        assert chosen == [9]

    def test_a_pool_as_large_as_any_is_quick(self):
        rng = np.random.default_rng(0)
        chosen = Diverse()(rng.random(2000), rng.normal(size=(2000, 64)), rng.normal(size=(100, 64)), 64, 0)
        assert len(set(chosen)) == 64


class TestVariancePruning:
    def test_the_most_similar_go_with_the_largest_deviation(self):
        # 20 frames, 10 %: each choice takes itself and floor(0.1 * n left) neighbours away.
        deviations = np.linspace(1.0, 2.0, 20)
        chosen = VariancePruning(0.1)(deviations, column(*range(20)), NONE_TAKEN, 3, 0)
        assert chosen == [19, 16, 14]

    @pytest.mark.parametrize(("size", "cap"), [(0, 0), (1, 1), (5, 1), (6, 1), (7, 2), (20, 14), (1000, 82)])
    def test_a_batch_has_a_cap(self, size, cap):
        rule = VariancePruning(0.05)
        rng = np.random.default_rng(0)
        chosen = rule(rng.random(size), rng.normal(size=(size, 2)), np.zeros((0, 2)), 10_000, 0)
        assert len(chosen) == rule.cap(size) == cap

    def test_the_formula_in_the_documentation_gives_the_cap(self):
        for f in (0.02, 0.05, 0.1, 0.2):
            for size in (10 / f, 100 / f, 1000 / f):
                formula = np.log((1 + 2 * f * size) / (1 + 10 * f)) / -np.log(1 - f)
                assert formula == pytest.approx(VariancePruning(f).cap(round(size)), rel=0.05, abs=2)

    def test_among_identical_frames_the_chosen_one_goes(self):
        chosen = VariancePruning(0.05)(np.linspace(1, 2, 12), np.ones((12, 1)), NONE_TAKEN, 12, 0)
        assert chosen[0] == 11
        assert len(set(chosen)) == len(chosen) == 7


class TestThreshold:
    def test_only_frames_above_the_threshold_are_chosen(self):
        deviations = np.array([0.1, 0.11, 0.05, 3.0])
        chosen = Threshold(0.1)(deviations, np.zeros((4, 1)), NONE_TAKEN, 4, 0)
        assert sorted(chosen) == [1, 3]

    def test_their_order_is_random_and_not_that_of_the_deviations(self):
        deviations = np.linspace(1, 2, 100)
        first = [Threshold(0.1)(deviations, np.zeros((100, 1)), NONE_TAKEN, 1, seed)[0] for seed in range(50)]
        assert len(set(first)) > 25


class TestRandom:
    def test_all_frames_are_equally_likely(self):
        counts = np.zeros(4)
        for seed in range(2000):
            counts[Random()(np.array([0.0, 1.0, 2.0, 50.0]), np.zeros((4, 1)), NONE_TAKEN, 1, seed)] += 1
        # 5 standard deviations of a binomial.
        assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)
