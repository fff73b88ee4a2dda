from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from fff.data.records import Label
from fff.models.bootstrap import split_labels


def _labels(segments):
    return [
        Label(atoms=Atoms("H"), energy_eV=0.0, forces_eV_per_A=np.zeros((1, 3)), segment=segment)
        for segment in segments
    ]


@given(
    segments=st.lists(st.sampled_from(["a", "b", "c", "d", ""]), min_size=1, max_size=20),
    seed=st.integers(0, 10**6),
    bootstrap=st.booleans(),
)
def test_no_segment_stands_on_both_sides_and_there_is_always_something_to_train_on(segments, seed, bootstrap):
    split = split_labels(_labels(segments), seed=seed, bootstrap=bootstrap)
    assert split.training
    assert not set(split.training) & set(split.validation)
    names = {segments[i] for i in split.training} & {segments[i] for i in split.validation}
    assert names <= {""}  # labels without a segment are each one of their own
    units = {segment or f"#{i}" for i, segment in enumerate(segments)}
    assert bool(split.validation) == (len(units) > 1)


def test_segments_are_drawn_as_often_as_with_replacement():
    names = [f"s{i}" for i in range(4000)]
    split = split_labels(_labels(names), seed=1)
    counts = np.bincount(split.training, minlength=len(names))
    # Poisson with mean 1, to five standard errors.
    for times, expected in enumerate([0.3679, 0.3679, 0.1839, 0.0613]):
        bound = 5 * np.sqrt(expected * (1 - expected) / len(names))
        assert abs((counts == times).mean() - expected) < bound


def test_what_a_member_leaves_out_stays_left_out_as_labels_are_added():
    names = [f"s{i}" for i in range(60)]
    for n in (20, 40):
        before, after = (split_labels(_labels(names[:m]), seed=5) for m in (n, n + 20))
        moved = set(before.validation) & set(after.training)
        assert len(moved) <= 1  # the one held out only for want of another


def test_a_segment_is_drawn_whole():
    labels = _labels(["a", "a", "b", "b", "c", "c", "d", "d"])
    split = split_labels(labels, seed=3)
    for first in range(0, 8, 2):
        assert split.training.count(first) == split.training.count(first + 1)


def test_without_bootstrap_each_label_is_used_once_but_for_a_tenth():
    split = split_labels(_labels([f"s{i}" for i in range(40)]), seed=0, bootstrap=False)
    assert len(split.validation) == 4
    assert sorted(split.training + split.validation) == list(range(40))


@pytest.mark.parametrize("seed", range(40))
def test_if_every_segment_was_drawn_one_is_held_out(seed):
    split = split_labels(_labels("ab"), seed=seed)
    assert len(split.validation) == 1


def test_another_seed_is_another_draw():
    labels = _labels([f"s{i}" for i in range(20)])
    assert split_labels(labels, seed=1) != split_labels(labels, seed=2)
    assert split_labels(labels, seed=1) == split_labels(labels, seed=1)
