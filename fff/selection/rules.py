"""The rules that choose which frames are labelled.

All rules share one protocol, and these promises, which a contract test checks for each:

* The indices come in the order in which they should be labelled, each once, at most `n`.
* They depend on nothing but the arguments. Ties are broken at random by the seed, so the order in which
  frames happen to arrive favours none.
* Numbers that are not finite, and shapes that do not fit, raise ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.spatial.distance import cdist

from fff.base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float

__all__ = ["Diverse", "Random", "SelectionRule", "Threshold", "VariancePruning", "make_rule"]

# A feature that spreads less than this part of the widest one is not scaled up further: its spread is noise.
_SMALLEST_RELATIVE_SPREAD = 1e-3


class SelectionRule(Protocol):
    """Chooses frames from a pool."""

    def __call__(
        self,
        deviations: Float[np.ndarray, " n_pool"],
        features: Float[np.ndarray, "n_pool n_features"],
        taken_features: Float[np.ndarray, "n_taken n_features"],
        n: int,
        seed: int,
    ) -> list[int]:
        """Return at most `n` indices into the pool, in the order in which they should be labelled.

        Args:
            deviations: Committee deviation of each frame, not negative.
            features: The model's features of each frame.
            taken_features: Features of structures whose labels are on their way; may have no row.
            n: Most frames to choose.
            seed: Decides between equals, and whatever else a rule leaves to chance.

        Raises:
            ValueError: If a number is not finite, a deviation or `n` is negative, or shapes do not fit.
        """
        ...


@dataclass(frozen=True)
class Diverse:
    """Far apart in the features, weighted by deviation: the greedy farthest-point rule.

    Each choice is the frame with the largest product of its deviation and its distance to what is taken or
    chosen already; the first one, where nothing is, has the largest deviation. Where that product is zero for
    all (duplicates, or a committee that agrees) the distance decides, then the deviation. So duplicates are
    last, and n frames of n clusters come from all of them, unless the committee is sure of one.

    Distances are Euclidean in standardised features. Cost: O((n + n_taken) * n_pool * n_features).

    Source:
        Gonzalez, Theor. Comput. Sci. 38, 293 (1985), doi:10.1016/0304-3975(85)90224-5 (farthest point);
        the weight by deviation is ours.
    """

    def __call__(
        self,
        deviations: Float[np.ndarray, " n_pool"],
        features: Float[np.ndarray, "n_pool n_features"],
        taken_features: Float[np.ndarray, "n_taken n_features"],
        n: int,
        seed: int,
    ) -> list[int]:
        """Return at most `n` indices; see `SelectionRule`."""
        pool = _Pool.shuffled(deviations, features, taken_features, n, seed)
        if len(pool.taken) > 0 and len(pool.features) > 0:
            nearest = cdist(pool.features, pool.taken).min(axis=1)
        else:
            nearest = np.full(len(pool.features), np.inf)
        left = np.ones(len(pool.features), dtype=bool)
        chosen: list[int] = []
        for _ in range(min(n, len(left))):
            best = _best(pool.deviations, nearest, left)
            chosen.append(best)
            left[best] = False
            np.minimum(nearest, _distances(pool.features, best), out=nearest)
        return pool.original(chosen)


@dataclass(frozen=True)
class VariancePruning:
    """The rule of the original application: the largest deviation, without those that resemble it.

    Take the frame with the largest deviation; remove it and the `prune_fraction` of the frames left that are
    most similar to it; repeat while more than 5 are left. A pool of L frames loses
    floor(prune_fraction * L) + 1 at a time,

        L -> L - floor(prune_fraction * L) - 1    while L > 5,

    which caps a batch, whatever `n` is: `cap` counts it exactly, and for the fraction f it is about
    ln((1 + 2 f L) / (1 + 10 f)) / -ln(1 - f) choices if f L is not small; for 1000 frames at 5 % it is 82.

    The original compared the members' energy predictions; here similar is near in standardised features.

    Attributes:
        prune_fraction: Part of the frames left that goes with each choice.

    Source:
        Ward et al., "Fast-finetuned forcefields" (2022), the published application's selection.
    """

    prune_fraction: float

    _SMALLEST_POOL = 5

    def cap(self, pool_size: int) -> int:
        """Return the most frames that one call can choose from a pool of `pool_size`."""
        n_choices = 0
        while pool_size > self._SMALLEST_POOL or (n_choices == 0 and pool_size > 0):
            pool_size -= self._n_pruned(pool_size)
            n_choices += 1
        return n_choices

    def __call__(
        self,
        deviations: Float[np.ndarray, " n_pool"],
        features: Float[np.ndarray, "n_pool n_features"],
        taken_features: Float[np.ndarray, "n_taken n_features"],
        n: int,
        seed: int,
    ) -> list[int]:
        """Return at most `n` indices, and never more than `cap`; see `SelectionRule`."""
        pool = _Pool.shuffled(deviations, features, taken_features, n, seed)
        left = np.arange(len(pool.deviations))
        chosen: list[int] = []
        # The first choice is made from any pool, so that a small one does not wait for ever.
        while len(chosen) < n and (len(left) > self._SMALLEST_POOL or (not chosen and len(left) > 0)):
            best = int(left[np.argmax(pool.deviations[left])])
            chosen.append(best)
            distances = _distances(pool.features[left], int(np.flatnonzero(left == best)[0]))
            # The chosen one goes first, even where another one is at no distance.
            distances[left == best] = -1.0
            left = np.delete(left, np.argsort(distances, kind="stable")[: self._n_pruned(len(left))])
        return pool.original(chosen)

    def _n_pruned(self, n_left: int) -> int:
        return min(int(self.prune_fraction * n_left) + 1, n_left)


@dataclass(frozen=True)
class Threshold:
    """Frames whose deviation is above a threshold, in random order.

    All frames above it count as equally worth a label: the largest deviations first would label one corner of
    one trajectory many times over.

    Attributes:
        threshold: In the unit of the deviations, eV/Å for those of forces.

    Source:
        Zhang et al., Comput. Phys. Commun. 253, 107206 (2020), doi:10.1016/j.cpc.2020.107206.
    """

    threshold: float

    def __call__(
        self,
        deviations: Float[np.ndarray, " n_pool"],
        features: Float[np.ndarray, "n_pool n_features"],
        taken_features: Float[np.ndarray, "n_taken n_features"],
        n: int,
        seed: int,
    ) -> list[int]:
        """Return at most `n` indices; see `SelectionRule`."""
        pool = _Pool.shuffled(deviations, features, taken_features, n, seed)
        return pool.original(np.flatnonzero(pool.deviations > self.threshold)[:n])


@dataclass(frozen=True)
class Random:
    """Frames drawn at random, whatever the committee says: the baseline for all other rules."""

    def __call__(
        self,
        deviations: Float[np.ndarray, " n_pool"],
        features: Float[np.ndarray, "n_pool n_features"],
        taken_features: Float[np.ndarray, "n_taken n_features"],
        n: int,
        seed: int,
    ) -> list[int]:
        """Return at most `n` indices; see `SelectionRule`."""
        pool = _Pool.shuffled(deviations, features, taken_features, n, seed)
        return pool.original(np.arange(len(pool.deviations))[:n])


def make_rule(section: Mapping[str, Any]) -> SelectionRule:
    """Return the rule that the config's section `selection` names.

    Args:
        section: The section as a dict: `rule`, and where used `threshold_eV_per_A` or `prune_fraction`.

    Raises:
        ConfigError: If there is no rule of that name.
    """
    name = section["rule"]
    if name == "diverse":
        return Diverse()
    if name == "variance-pruning":
        return VariancePruning(prune_fraction=section["prune_fraction"])
    if name == "threshold":
        return Threshold(threshold=section["threshold_eV_per_A"])
    if name == "random":
        return Random()
    msg = f"There is no selection rule {name!r}."
    raise ConfigError(
        msg,
        hint="Set selection.rule to diverse, variance-pruning, threshold or random.",
        key="selection.rule",
        value=name,
    )


@dataclass(frozen=True)
class _Pool:
    """A checked pool in random order, so that taking the first of equals favours none; features scaled."""

    order: np.ndarray
    deviations: np.ndarray
    features: np.ndarray
    taken: np.ndarray

    @classmethod
    def shuffled(
        cls, deviations: np.ndarray, features: np.ndarray, taken_features: np.ndarray, n: int, seed: int
    ) -> _Pool:
        deviations = np.asarray(deviations, dtype=float)
        features = np.asarray(features, dtype=float)
        taken = np.asarray(taken_features, dtype=float)
        _check(deviations, features, taken, n)
        order = np.random.default_rng(seed).permutation(len(deviations))
        features, taken = _standardised(features, taken)
        return cls(order, deviations[order], features[order], taken)

    def original(self, chosen: Any) -> list[int]:
        return [int(index) for index in self.order[np.asarray(chosen, dtype=int)]]


def _check(deviations: np.ndarray, features: np.ndarray, taken: np.ndarray, n: int) -> None:
    if deviations.ndim != 1 or features.ndim != 2 or len(features) != len(deviations):
        msg = (
            "A pool has deviations of the shape (n,) and features of the shape (n, d); "
            f"these have {deviations.shape} and {features.shape}."
        )
        raise ValueError(msg)
    if taken.ndim != 2 or taken.shape[1] != features.shape[1]:
        msg = (
            f"The features of what is taken have the shape {taken.shape}, those of the pool {features.shape}."
        )
        raise ValueError(msg)
    if n < 0:
        msg = f"The number of frames to choose must not be negative; it was {n}."
        raise ValueError(msg)
    bad = np.flatnonzero(~(np.isfinite(deviations) & (deviations >= 0)))
    if bad.size > 0:
        msg = f"Deviations must be finite and not negative; number {bad[0]} is {deviations[bad[0]]}."
        raise ValueError(msg)
    for name, values in (("the pool", features), ("what is taken", taken)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size > 0:
            msg = f"Features must be finite; those of number {bad[0]} of {name} are not."
            raise ValueError(msg)


def _standardised(features: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale each feature to unit spread, so that none counts more for the size of its numbers."""
    together = np.concatenate([features, taken])
    if together.size == 0:
        return features, taken
    spread = together.std(axis=0)
    scale = np.maximum(spread, _SMALLEST_RELATIVE_SPREAD * spread.max())
    scale[scale == 0] = 1.0
    centre = together.mean(axis=0)
    return (features - centre) / scale, (taken - centre) / scale


def _distances(features: np.ndarray, index: int) -> np.ndarray:
    difference = features - features[index]
    distances: np.ndarray = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return distances


def _best(deviations: np.ndarray, nearest: np.ndarray, left: np.ndarray) -> int:
    """Return the frame left with the largest product; if all are zero the farthest, then the least sure."""
    if np.isinf(nearest[left]).all():
        return int(np.argmax(np.where(left, deviations, -1.0)))
    product = np.where(left, deviations * nearest, -1.0)
    best = int(np.argmax(product))
    if product[best] > 0:
        return best
    farthest = left & (nearest == nearest[left].max())
    return int(np.argmax(np.where(farthest, deviations, -1.0)))
