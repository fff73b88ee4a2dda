"""Which labels a member is trained on, and which tell it when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fff.base.draws import integer, uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fff.data.records import Label

__all__ = ["Split", "split_labels"]

_HELD_OUT_FRACTION = 0.1


@dataclass(frozen=True)
class Split:
    """Indices into the labels: training ones (repeated as drawn) and left-out ones."""

    training: list[int]
    validation: list[int]


def split_labels(labels: Sequence[Label], *, seed: int, bootstrap: bool = True) -> Split:
    """Draw segments by a Poisson bootstrap; the labels of segments not drawn are left out for early stopping.

    Each segment is drawn k times with the probability that it has among n draws with replacement for large n
    (Poisson, mean 1), decided by a hash of seed and segment. So what a member leaves out stays left out as
    labels are added: weights that go on from round to round are judged on labels they never saw.

    Frames of one segment follow each other in time and look alike: were some trained on and others used to
    judge the training, it would look better than it is. So segments are drawn, never single labels; a label
    without a segment is one of its own. If every segment was drawn, one is taken out. With one segment there
    is nothing to judge by.

    Args:
        labels: All labels.
        seed: Of the draw.
        bootstrap: Whether to draw with replacement; else each label is used once, but for a tenth of the
            segments (one at least) that is left out.

    Source:
        Efron, Ann. Statist. 7, 1 (1979), doi:10.1214/aos/1176344552; by blocks: Künsch, Ann. Statist. 17,
        1217 (1989), doi:10.1214/aos/1176347265; one segment at a time: Oza and Russell, AISTATS (2001).
    """
    segments: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        name = f"segment {label.segment}" if label.segment else f"label {index}"
        segments.setdefault(name, []).append(index)
    names = list(segments)
    if len(names) < 2:
        return Split(training=list(range(len(labels))), validation=[])
    if bootstrap:
        times = {name: _times_drawn(seed, name) for name in names}
        # At least one on each side: the most and the least likely to be drawn.
        by_draw = sorted(names, key=lambda name: uniform(seed, "bootstrap", name))
        times[by_draw[0]] = 0
        times[by_draw[-1]] = max(1, times[by_draw[-1]])
        left_out = [name for name in names if not times[name]]
        drawn = [name for name in names for _ in range(times[name])]
    else:
        shuffled = sorted(names, key=lambda name: integer(1 << 62, seed, "hold-out", name))
        left_out = shuffled[: max(1, round(_HELD_OUT_FRACTION * len(names)))]
        drawn = [name for name in names if name not in set(left_out)]
    return Split(
        training=[index for name in drawn for index in segments[name]],
        validation=[index for name in left_out for index in segments[name]],
    )


def _times_drawn(seed: int, name: str) -> int:
    """Return a draw from the Poisson distribution with mean 1, by inverting its distribution function."""
    draw = uniform(seed, "bootstrap", name)
    probability = below = math.exp(-1.0)
    times = 0
    while draw >= below and probability > 0.0:
        times += 1
        probability /= times
        below += probability
    return times
