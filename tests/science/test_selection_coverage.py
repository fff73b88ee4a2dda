"""The diverse rule finds what a random draw misses."""

from __future__ import annotations

import numpy as np
import pytest

from fff.selection import make_rule

pytestmark = pytest.mark.science

N_CLUSTERS = 8


def planted(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A pool in which most frames are of one cluster, as after a long stay in one basin."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(N_CLUSTERS, 16)) * 3
    member = rng.choice(N_CLUSTERS, size=500, p=[0.86] + [0.02] * (N_CLUSTERS - 1))
    features = centres[member] + 0.3 * rng.normal(size=(500, 16))
    deviations = 0.2 * np.exp(0.3 * rng.normal(size=500))
    return member, deviations, features


def clusters_found(name: str, seed: int, n: int) -> int:
    member, deviations, features = planted(seed)
    chosen = make_rule({"rule": name})(deviations, features, np.zeros((0, 16)), n, seed)
    return len(set(member[chosen].tolist()))


def test_diverse_covers_clusters_that_random_misses():
    diverse = [clusters_found("diverse", seed, 16) for seed in range(20)]
    random = [clusters_found("random", seed, 16) for seed in range(20)]
    # Random finds each small cluster with a chance of 1 - 0.98^16 = 0.28: 2.9 clusters on average.
    assert np.mean(random) == pytest.approx(1 + 7 * (1 - 0.98**16), abs=5 * np.sqrt(7 * 0.28 * 0.72 / 20))
    assert min(diverse) == N_CLUSTERS


def test_diverse_leaves_clusters_alone_whose_labels_are_on_their_way():
    for seed in range(5):
        member, deviations, features = planted(seed)
        in_flight = np.array([features[member == cluster][0] for cluster in range(4)])
        chosen = make_rule({"rule": "diverse"})(deviations, features, in_flight, 4, seed)
        assert set(member[chosen].tolist()) == {4, 5, 6, 7}


def test_diverse_prefers_what_the_committee_does_not_know():
    shares = {"diverse": [], "random": []}
    for seed in range(20):
        _, deviations, features = planted(seed)
        for name, share in shares.items():
            chosen = make_rule({"rule": name})(deviations, features, np.zeros((0, 16)), 16, seed)
            share.append(np.mean(deviations[chosen]))
    assert np.mean(shares["diverse"]) > 1.15 * np.mean(shares["random"])
