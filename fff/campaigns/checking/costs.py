"""What a campaign will cost in time and disk, from what was measured: bounds, not a forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fff.base.durations import duration
from fff.campaigns.checking.findings import Finding, failed, fine, skipped, warning
from fff.compute.sites import make_site
from fff.steering.active_learning.tester import count_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fff.campaigns.checking.findings import Known
    from fff.config import ActiveLearningConfig

__all__ = ["Range", "estimate_disk", "estimate_time", "label_range", "round_sizes"]

_FLATTEST, _STEEPEST = 1.0, 3.0
"""Powers of the number of atoms between which a label's cost may grow, where it was not measured."""

_LABEL_BYTES, _LABEL_BYTES_PER_ATOM = 3000, 120
_FRAME_BYTES, _FRAME_BYTES_PER_ATOM = 600, 250
_BASE_BYTES = 2_000_000
_SPARE = 2
_GROWTH = 4
_PLENTY = 5
_MB, _GB = 1e6, 1e9


@dataclass(frozen=True)
class Range:
    """From a least to a greatest, in seconds of work.

    Attributes:
        low: The least.
        high: The greatest.
    """

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def times(self, low: float, high: float | None = None) -> Range:
        """Return it multiplied by a number, or by two bounds of one."""
        return Range(self.low * low, self.high * (low if high is None else high))

    def __str__(self) -> str:
        """Both ends in words, or one where they look the same."""
        low, high = duration(self.low), duration(self.high)
        if low == high:
            return low
        number, _, unit = low.partition(" ")
        return f"{number if high.endswith(f' {unit}') else low} to {high}"


NOTHING = Range(0.0, 0.0)


def round_sizes(config: ActiveLearningConfig, n_given: int) -> list[int]:
    """Return how many labels each round of training has.

    Args:
        config: The config.
        n_given: Labels that are given.

    Example:
        >>> from fff.config import config_from_dict
        >>> config = config_from_dict({"structures": ["molecule:H2O"], "reference": {"kind": "xtb"}})
        >>> round_sizes(config, 0)
        [16, 48, 80, 112, 128]
    """
    first = n_given or config.start.n_labels
    last = n_given + config.stop.max_labels
    return [*range(first, last, config.training.retrain_every), last]


def label_range(label_s: Mapping[int, float], sizes: Sequence[int]) -> Range:
    """Return the seconds of a label, on average over structures.

    Args:
        label_s: Measured seconds by number of atoms.
        sizes: Number of atoms of each structure.

    Example:
        >>> label_range({10: 1.0}, [10, 20])
        Range(low=1.5, high=4.5)
        >>> label_range({10: 1.0, 20: 4.0}, [10, 20])
        Range(low=2.5, high=2.5)
    """
    small, large = min(label_s), max(label_s)
    powers = [_FLATTEST, _STEEPEST]
    if large > small:
        power = math.log(label_s[large] / label_s[small]) / math.log(large / small)
        powers = [min(max(power, 0.0), _STEEPEST)] * 2
    low, high = (sum(label_s[small] * (n / small) ** power for n in sizes) / len(sizes) for power in powers)
    return Range(low, high)


def estimate_time(known: Known) -> Iterator[Finding]:
    """Add up what was measured, over the workers."""
    if known.inputs is None or not known.label_s or known.epoch_s is None:
        yield skipped("cost", "without a label and a training that were timed nothing can be said")
        return
    labels, training, moves = _labels(known), _training(known), _dynamics(known)
    site = make_site(known.config.site)
    work = dict.fromkeys(site.pools, NOTHING)
    for kind, part in (("calculate", labels), ("train", training), ("dynamics", moves)):
        pool = site.pool_of(kind)
        work[pool] = work[pool] + part
    # Side by side at best; one after the other at worst, each with all workers of its pool.
    low = max(part.low / site.pools[pool] for pool, part in work.items())
    n_trainers = min(known.config.committee.size, site.pools[site.pool_of("train")])
    high = (
        labels.high / _filled_slots(known, site.pools[site.pool_of("calculate")])
        + training.high / n_trainers
        + moves.high / min(known.config.sampling.n_parallel, site.pools[site.pool_of("dynamics")])
    )
    total = Range(known.start_s + low, known.start_s + high)
    workers = " and ".join(f"{n} {pool}" for pool, n in site.pools.items())
    config = known.config
    yield fine("cost", _label_words(known), low_s=labels.low, high_s=labels.high, part="labels")
    sizes = round_sizes(config, len(known.inputs.labels))
    baseline = ", one more on random frames" if config.test.random_baseline else ""
    yield fine(
        "cost",
        f"training: {training} of work: {len(sizes)} rounds of {config.committee.size} members{baseline}, on "
        f"{sizes[0]} to {sizes[-1]} labels; from {_least_epochs(config)} epochs (early stopping) to "
        f"{config.training.max_epochs} each",
        low_s=training.low,
        high_s=training.high,
        part="training",
        rounds=len(sizes),
    )
    if known.dynamics_s is not None:
        yield fine(
            "cost",
            f"dynamics: {moves} of work: about {_n_runs(known):.0f} runs of {config.sampling.min_steps} to "
            f"{_longer_steps(known)} steps, as their length adapts",
            low_s=moves.low,
            high_s=moves.high,
            part="dynamics",
        )
    yield fine(
        "cost",
        f"together {total} on {workers} workers: from all side by side to one after the other"
        + (", by what was timed on this machine and not on a node" if site.submits_jobs else ""),
        low_s=total.low,
        high_s=total.high,
        part="total",
    )


def _sizes(known: Known) -> list[int]:
    assert known.inputs is not None  # noqa: S101 - for the type checker: callers have looked
    return [len(atoms) for atoms in known.inputs.structures]


def _slots(known: Known) -> list[int]:
    """Return how many slots a campaign gives to a calculation of each structure."""
    assert known.inputs is not None  # noqa: S101 - for the type checker: callers have looked
    slots_for = known.config.calculation.slots_for
    return [slots_for(len(atoms), int(atoms.numbers.sum())) for atoms in known.inputs.structures]


def _filled_slots(known: Known, n_slots: int) -> int:
    """Return how many of a pool's slots are in use at least: what is left may be too few for one more."""
    return min(n_slots // slots * slots for slots in _slots(known))


def _label(known: Known) -> Range:
    """Return the work of a label, on average: its seconds times the slots that it was calculated on."""
    work_s = {n: seconds * known.label_slots.get(n, 1) for n, seconds in known.label_s.items()}
    return label_range(work_s, _sizes(known))


def _labels(known: Known) -> Range:
    one = _label(known)
    return one.times(known.config.stop.max_labels) + _step(known, one).times(_reference_steps(known))


def _step(known: Known, label: Range) -> Range:
    """Return the seconds of a step of reference dynamics: measured, or a label's at most."""
    if known.step_s is None:
        return Range(label.low / 2, label.high)
    smallest_s = known.label_s[min(known.label_s)]
    # A step costs what a label does, less what the electrons of the step before are worth.
    return label.times(known.step_s / smallest_s)


def _reference_steps(known: Known) -> int:
    """Return how many steps the dynamics take that make the test set, and the random frames."""
    assert known.inputs is not None  # noqa: S101 - for the type checker: callers have looked
    config, inputs = known.config, known.inputs
    test = config.test
    n_conditions = len(inputs.structures) * len(test.temperatures_K)
    frames = [] if inputs.test_labels else [test.n_frames or 0]
    if test.random_baseline:
        frames.append(len(inputs.labels) + config.stop.max_labels)
    return sum(
        count_chunks(n, n_conditions) * test.equilibration_steps + n * test.interval_steps for n in frames
    )


def _label_words(known: Known) -> str:
    config = known.config
    one, steps = _label(known), _reference_steps(known)
    words = f"labels: {_labels(known)} of work: {config.stop.max_labels} labels of {one}"
    if len({*_sizes(known)}) > 1:
        power = f"measured on {len(known.label_s)} structures"
        if len(known.label_s) < 2:
            power = f"taken to grow with the number of atoms to the power of {_FLATTEST:g} to {_STEEPEST:g}"
        words += f" on average ({power})"
    if (most := max(_slots(known))) > 1:
        words += f"; one takes up to {most} slots, whose times are added"
        if max(known.label_slots.values(), default=1) == 1:
            words += ": timed on one, and taken to be as many times shorter on several"
    if steps:
        what = "test set and random frames" if config.test.random_baseline else "test set"
        words += f"; {what}: {steps:,} steps of {_step(known, one)}"
    return words


def _least_epochs(config: ActiveLearningConfig) -> int:
    return min(config.training.max_epochs, config.training.stop_patience + 1)


def _training(known: Known) -> Range:
    assert known.inputs is not None  # noqa: S101 - for the type checker: callers have looked
    assert known.epoch_s is not None  # noqa: S101 - for the type checker: callers have looked
    config = known.config
    sizes = round_sizes(config, len(known.inputs.labels))
    n_labels = sum(sizes) + (sizes[-1] if config.test.random_baseline else 0)
    one = known.epoch_s * n_labels * config.committee.size
    return Range(one * _least_epochs(config), one * config.training.max_epochs)


def _n_runs(known: Known) -> float:
    config = known.config
    return max(1.0, config.audit.fraction * (config.stop.max_labels - config.start.n_labels))


def _dynamics(known: Known) -> Range:
    if known.dynamics_s is None:
        return NOTHING
    sampling = known.config.sampling
    one = Range(known.dynamics_s, known.dynamics_s).times(_n_runs(known))
    # Where audits find a model wrong, runs become as short as they may.
    return one.times(sampling.min_steps, _longer_steps(known))


def _longer_steps(known: Known) -> int:
    """Return how long runs become where most audits pass; few campaigns see `max_steps`."""
    sampling = known.config.sampling
    return min(_GROWTH * sampling.n_steps, sampling.max_steps)


def estimate_disk(known: Known) -> Iterator[Finding]:
    """Compare the free disk with what a campaign will write."""
    if known.free_bytes is None:
        yield skipped("disk", "there is no place whose room could be looked at")
        return
    free = f"{known.free_bytes / _GB:.3g} GB free"
    if known.inputs is None or not known.model_bytes:
        yield fine("disk", f"{free}; how much is needed is not known", free_bytes=known.free_bytes)
        return
    need = _need_bytes(known)
    values = {"free_bytes": known.free_bytes, "need_bytes": need}
    found = f"{free}; a campaign will take about {_size(need)}"
    hint = "Make room, or choose another place with --run-dir."
    if known.free_bytes < need:
        yield failed("disk", found, hint, **values)
    elif known.free_bytes < _PLENTY * need:
        yield warning("disk", found, hint, **values)
    else:
        yield fine("disk", found, **values)


def _size(n_bytes: float) -> str:
    return f"{n_bytes / _GB:.1f} GB" if n_bytes >= _GB else f"{n_bytes / _MB:.0f} MB"


def _need_bytes(known: Known) -> int:
    assert known.inputs is not None  # noqa: S101 - for the type checker: callers have looked
    config, sizes = known.config, _sizes(known)
    n_atoms = max(sizes)
    n_models = len(round_sizes(config, len(known.inputs.labels))) + int(config.test.random_baseline)
    n_labels = len(known.inputs.labels) + config.stop.max_labels
    n_frames = _n_runs(known) * (config.sampling.n_frames + 2)
    need = (
        n_models * config.committee.size * known.model_bytes
        + n_labels * (_LABEL_BYTES + _LABEL_BYTES_PER_ATOM * n_atoms)
        # Frames, and what the committee says about them.
        + 2 * n_frames * (_FRAME_BYTES + _FRAME_BYTES_PER_ATOM * n_atoms)
    )
    return int(_BASE_BYTES + _SPARE * need)
