"""What every selection rule promises; see `fff.selection.rules`."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fff.selection import make_rule

NAMES = ["diverse", "variance-pruning", "threshold", "random"]
SECTION = {"threshold_eV_per_A": 0.1, "prune_fraction": 0.05}


@pytest.fixture(params=NAMES)
def rule(request):
    return make_rule(SECTION | {"rule": request.param})


def pool(size: int, n_taken: int = 3, n_features: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.random(size), rng.normal(size=(size, n_features)), rng.normal(size=(n_taken, n_features))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_any_pool_gives_valid_indices_and_the_same_again(name, data):
    rule = make_rule(SECTION | {"rule": name})
    size, n_taken, n_features = (data.draw(st.integers(0, most)) for most in (30, 4, 3))
    # Few different values: equal deviations, duplicates and zeros are the rule here, not the exception.
    values = st.sampled_from([0.0, 0.05, 0.1, 1.0, 1e-12, 1e6])
    deviations = data.draw(arrays.arrays(float, size, elements=values))
    features = data.draw(arrays.arrays(float, (size, n_features), elements=values))
    taken = data.draw(arrays.arrays(float, (n_taken, n_features), elements=values))
    n, seed = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 2**63 - 1))
    kept = deviations.copy(), features.copy(), taken.copy()

    chosen = rule(deviations, features, taken, n, seed)

    assert all(type(index) is int and 0 <= index < size for index in chosen)
    assert len(set(chosen)) == len(chosen) <= n
    assert rule(deviations, features, taken, n, seed) == chosen
    for before, after in zip(kept, (deviations, features, taken), strict=True):
        assert np.array_equal(before, after)


def test_an_empty_pool_gives_an_empty_list(rule):
    assert rule(*pool(0), 5, 0) == []
    assert rule(*pool(0, n_taken=0), 5, 0) == []


def test_nothing_asked_nothing_chosen(rule):
    assert rule(*pool(20), 0, 0) == []


def test_a_pool_of_one_gives_that_one(rule):
    assert rule(np.array([0.5]), np.ones((1, 4)), np.zeros((0, 4)), 3, 0) == [0]


def test_a_pool_with_something_to_learn_never_gives_nothing(rule):
    for size in range(1, 12):
        deviations, features, taken = pool(size)
        assert rule(deviations + 0.2, features, taken, 3, 0)


def test_more_than_the_pool_holds_can_be_asked(rule):
    chosen = rule(*pool(10), 1000, 0)
    assert 0 < len(chosen) <= 10


def test_fewer_are_the_first_of_more(rule):
    more = rule(*pool(60), 20, 3)
    fewer = rule(*pool(60), 5, 3)
    assert fewer == more[:5]


def test_identical_frames_are_no_trouble(rule):
    chosen = rule(np.full(30, 0.5), np.ones((30, 4)), np.ones((2, 4)), 8, 0)
    assert len(set(chosen)) == 8


def test_equals_are_chosen_by_the_seed(rule):
    first = {rule(np.full(30, 0.5), np.ones((30, 4)), np.ones((2, 4)), 1, seed)[0] for seed in range(40)}
    assert len(first) > 10


@pytest.mark.parametrize("name", ["diverse", "variance-pruning"])
def test_the_order_of_arrival_does_not_count_where_chance_does_not_decide(name):
    rule = make_rule(SECTION | {"rule": name})
    deviations, features, taken = pool(80)
    expected = rule(deviations, features, taken, 15, 0)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(80)
        chosen = rule(deviations[order], features[order], taken[::-1], 15, seed)
        assert [int(order[index]) for index in chosen] == expected


def test_the_order_of_arrival_does_not_change_who_is_above_the_threshold():
    rule = make_rule(SECTION | {"rule": "threshold"})
    deviations, features, taken = pool(80)
    order = np.random.default_rng(1).permutation(80)
    chosen = rule(deviations[order], features[order], taken, 80, 0)
    assert {int(order[i]) for i in chosen} == set(np.flatnonzero(deviations > 0.1).tolist())


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
def test_a_deviation_that_is_no_deviation_is_refused_by_number_and_value(rule, value):
    deviations, features, taken = pool(6)
    deviations[4] = value
    with pytest.raises(ValueError, match=f"number 4 is {value}"):
        rule(deviations, features, taken, 2, 0)


@pytest.mark.parametrize("which", ["pool", "taken"])
def test_a_feature_that_is_not_finite_is_refused(rule, which):
    deviations, features, taken = pool(6)
    (features if which == "pool" else taken)[2, 1] = math.nan
    with pytest.raises(ValueError, match=f"number 2 of .*{which}"):
        rule(deviations, features, taken, 2, 0)


@pytest.mark.parametrize(
    ("deviations", "features", "taken", "n"),
    [
        (np.ones(5), np.ones((4, 2)), np.ones((0, 2)), 1),
        (np.ones((5, 1)), np.ones((5, 2)), np.ones((0, 2)), 1),
        (np.ones(5), np.ones(5), np.ones((0, 2)), 1),
        (np.ones(5), np.ones((5, 2)), np.ones((1, 3)), 1),
        (np.ones(5), np.ones((5, 2)), np.ones(2), 1),
        (np.ones(5), np.ones((5, 2)), np.ones((0, 2)), -1),
    ],
)
def test_shapes_and_numbers_that_do_not_fit_are_refused(rule, deviations, features, taken, n):
    with pytest.raises(ValueError, match=r"shape|negative"):
        rule(deviations, features, taken, n, 0)
