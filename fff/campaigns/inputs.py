"""Checks everything a config names before anything is written: files, structures, labels, method, folder."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from fff.base.draws import seed_for
from fff.base.errors import ConfigError, FffError, RunDirectoryError
from fff.base.ids import structure_hash
from fff.campaigns.opening import initial_frames
from fff.compute.sites import make_site
from fff.data.run_directory import OPENING_NAMES, RunDirectory
from fff.data.structures import check_structures, load_labels, load_structures, source_files
from fff.models.start import read_start_model, take_architecture
from fff.reference.launching import is_launched
from fff.reference.probing import probe_reference
from fff.reference.relaxing import relaxation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms

    from fff.compute.sites import Site
    from fff.config import ActiveLearningConfig, LoadedConfig
    from fff.config.site import NodesSection
    from fff.data.records import Label
    from fff.models.start import StartModel

__all__ = ["Inputs", "check_largest_fits", "check_run_dir", "load_inputs", "read_inputs"]

_LEAST_LABELS = 2


@dataclass(frozen=True)
class Inputs:
    """What the config's files and names turned out to be.

    Attributes:
        loaded: The config; with `model.start`, the architecture in it is that model's.
        structures: Where trajectories start.
        labels: Labels to train on from the first.
        test_labels: Labels of a given test set; empty when the campaign makes its own.
        method: Name of the reference method.
        start_members: Folders of the members of the model to fine-tune.
        files: Every file that was read.
    """

    loaded: LoadedConfig
    structures: list[Atoms]
    labels: list[Label]
    test_labels: list[Label]
    method: str
    start_members: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def every_structure(self) -> list[Atoms]:
        """Start structures and those of all labels."""
        labels = [*self.labels, *self.test_labels]
        return [*self.structures, *(label.atoms for label in labels)]


def load_inputs(loaded: LoadedConfig, *, relax: bool = True) -> Inputs:
    """Return what the config names, after checking all of it; nothing is written.

    Args:
        loaded: The config.
        relax: Whether packed clusters are relaxed, which takes seconds.

    Raises:
        ConfigError: If a file, structure or label cannot be used, with the key that names it.
        ReferenceSetupError: If the reference method cannot run here.
        RunDirectoryError: If the run directory cannot be used.
    """
    check_run_dir(loaded.run_dir)
    inputs = read_inputs(loaded, relax=relax)
    section = inputs.loaded.config.reference.model_dump(mode="json")
    return replace(inputs, method=probe_reference(section, inputs.every_structure))


def read_inputs(loaded: LoadedConfig, *, relax: bool = True) -> Inputs:
    """Return what the config names, after checking files, structures and labels; nothing is written.

    Args:
        loaded: The config.
        relax: Whether packed clusters are relaxed, which takes seconds.

    Returns:
        All but the name of the method, which only the method itself knows.

    Raises:
        ConfigError: If a file, structure or label cannot be used, with the key that names it, or if the site
            has too few slots for a calculation.
    """
    model = read_start_model(loaded.config.model.start) if loaded.config.model.start else None
    if model is not None:
        loaded = take_architecture(loaded, model)
    config = loaded.config
    check_largest_fits(config, make_site(config.site))
    labels = _labels("labels", config.labels)
    every_test_label = _labels("test.labels", [config.test.labels] if config.test.labels else [])
    test_labels = every_test_label
    if config.test.n_frames is not None:
        test_labels = _spread(test_labels, config.test.n_frames)
    structures = _structures(config, labels, relax=relax)
    _check_apart(config, structures, labels, every_test_label)
    groups = {
        "structures": structures,
        "labels": [label.atoms for label in labels],
        "test.labels": [label.atoms for label in test_labels],
    }
    for key, group in groups.items():
        if group:
            with _naming(key):
                check_structures(group, config.reference, thermostat=config.sampling.thermostat)
    _check_elements(config, groups, model)
    named = [*config.structures, *config.labels, *([config.test.labels] if config.test.labels else [])]
    return Inputs(
        loaded,
        structures,
        labels,
        test_labels,
        "",
        start_members=model.members if model else [],
        files=source_files(named),
    )


def check_largest_fits(config: ActiveLearningConfig, site: Site) -> None:
    """Check that the largest calculation can have its slots: it would wait for ever, or run where others do.

    Raises:
        ConfigError: If its pool has too few, or they lie on several nodes of which it would use one.
    """
    name = site.pool_of("calculate")
    if site.batch is not None:
        _check_nodes(config, name, site.batch.nodes[name])
    config.calculation.check_fits(name, site.pools[name])


def _check_nodes(config: ActiveLearningConfig, name: str, nodes: NodesSection) -> None:
    """Check that a calculation runs on the slots that steering counts for it, and not on others."""
    key, most = f"site.nodes.{name}", config.calculation.most_slots
    if nodes.across_nodes and not is_launched(config.reference.model_dump(mode="json")):
        msg = f"`{key}.across_nodes` is true, but `site.mpi_launch` does not start the reference method."
        hint = f"Leave `{key}.across_nodes` out, or choose a code that runs under MPI."
        raise ConfigError(msg, hint=hint, key=f"{key}.across_nodes", value=True)
    # The workers of one node are all that can count on being on the same; the one that takes the task starts
    # the ranks, and cannot know where the other slots are.
    n_nodes = nodes.max_blocks * nodes.nodes_per_block
    if most > 1 and n_nodes > 1 and not nodes.across_nodes:
        msg = (
            f"`calculation.nodes_by_size` gives {most} slots to one calculation, but those of the pool "
            f"{name!r} lie on {n_nodes} nodes: `{key}.nodes_per_block` is {nodes.nodes_per_block} and "
            f"`{key}.max_blocks` is {nodes.max_blocks}."
        )
        hint = (
            "Give calculation a kind of node of its own with `across_nodes: true`: there a slot is a node; "
            f"or set both keys of `{key}` to 1; or leave `calculation.nodes_by_size` out."
        )
        value = config.calculation.nodes_by_size
        raise ConfigError(msg, hint=hint, key="calculation.nodes_by_size", value=value)


def _structures(config: ActiveLearningConfig, labels: Sequence[Label], *, relax: bool) -> list[Atoms]:
    with _naming("structures"), relaxation() as relaxed:
        structures = load_structures(
            config.structures,
            relax=relaxed if relax else lambda atoms: atoms,
            seed=seed_for(config.seed, "structures"),
        )
    # Labels alone: trajectories start from labelled structures, spread evenly over them.
    return structures or [label.atoms for label in _spread(labels, config.sampling.n_trajectories)]


def _spread(labels: Sequence[Label], n: int) -> list[Label]:
    if len(labels) <= n:
        return list(labels)
    return [labels[int(i)] for i in np.linspace(0, len(labels) - 1, n).round()]


@contextlib.contextmanager
def _naming(key: str) -> Iterator[None]:
    """Let errors about files and structures say which key names them."""
    try:
        yield
    except ConfigError:
        raise
    except FffError as error:
        raise ConfigError(f"`{key}`: {error.message}", hint=error.hint, key=key, value=None) from error


def _labels(key: str, sources: list[str]) -> list[Label]:
    with _naming(key):
        labels = load_labels(sources)
    if sources and len(labels) < _LEAST_LABELS:
        msg = f"`{key}` holds {len(labels)} label; it must hold at least {_LEAST_LABELS}."
        raise ConfigError(msg, hint="Give more labels.", key=key, value=sources)
    return labels


def _check_apart(
    config: ActiveLearningConfig,
    structures: Sequence[Atoms],
    labels: Sequence[Label],
    test_labels: Sequence[Label],
) -> None:
    """Refuse test structures that would be trained on."""
    tested = {label.hash for label in test_labels}
    starts = {structure_hash(atoms) for atoms in structures}
    if not labels:
        # A test set made by another run of the same seed can hold the same random displacements.
        starts |= {frame.hash for frame in initial_frames(config, structures)}
    for key, trained in (("labels", {label.hash for label in labels}), ("structures", starts)):
        if shared := trained & tested:
            what = "structure" if len(shared) == 1 else "structures"
            msg = f"`test.labels` shares {len(shared)} {what} with `{key}`; a test set is never trained on."
            hint = f"Keep them apart, for example `{key}: [file.xyz@:900]` and `test.labels: file.xyz@900:`."
            raise ConfigError(msg, hint=hint, key="test.labels", value=config.test.labels)


def _check_elements(
    config: ActiveLearningConfig, groups: Mapping[str, Sequence[Atoms]], model: StartModel | None
) -> None:
    """Refuse structures with elements that the given model, or without one the first labels, lack.

    Labels do not teach a given model new elements: it drives dynamics and is fitted to them before training.
    """
    labelled = {int(z) for atoms in groups["labels"] for z in atoms.numbers}
    if model is None and not labelled:
        return
    source, known = ("labels", labelled) if model is None else ("model.start", model.elements)
    for key, structures in groups.items():
        if lacking := sorted({int(z) for atoms in structures for z in atoms.numbers} - known):
            names = ", ".join(chemical_symbols[z] for z in lacking)
            msg = f"`{key}` holds {names}, which `{source}` lacks."
            hint = f"Give one with {names}, or leave these structures out."
            value = config.labels if model is None else config.model.start
            raise ConfigError(msg, hint=hint, key=source, value=value)


def check_run_dir(path: Path) -> None:
    """Check that a campaign can be begun, or may lie, in a folder; nothing is written.

    Raises:
        RunDirectoryError: If it is a file, holds what is no campaign, or cannot be made.
    """
    if path.exists() and not path.is_dir():
        msg = f"The run directory {path} is a file."
        raise RunDirectoryError(msg, hint="Choose another with --run-dir.", path=str(path))
    if path.is_dir() and (strange := _names_in_the_way(path)):
        names = ", ".join(strange[:3]) + (" …" if len(strange) > 3 else "")
        msg = (
            f"The run directory {path} is not empty and holds no campaign ({names}); "
            "nothing is ever overwritten."
        )
        hint = "Choose another with --run-dir, or move this one away."
        raise RunDirectoryError(msg, hint=hint, path=str(path))
    RunDirectory(path).check()
    above = path
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        msg = f"The run directory {path} cannot be made: {above} is a file."
        raise RunDirectoryError(msg, hint="Choose another with --run-dir.", path=str(path))
    if not os.access(above, os.W_OK | os.X_OK):
        msg = f"The run directory {path} cannot be made: {above} may not be written to."
        raise RunDirectoryError(msg, hint="Choose another with --run-dir.", path=str(path))


def _names_in_the_way(path: Path) -> list[str]:
    """Return the names in a folder that no campaign left when it was killed before its first event."""
    names = {p.name for p in path.iterdir() if not p.name.endswith(".part")}
    if "events.jsonl" not in names:
        # The log comes first: what else is there is somebody's.
        return sorted(names - {"lock", "run.log", "STOP"})
    return sorted(names - OPENING_NAMES)
