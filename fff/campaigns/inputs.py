"""Checks everything a config names before anything is written: files, structures, labels, method, folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.optimize import BFGS

from fff.base.draws import seed_for
from fff.base.errors import ConfigError, FffError, ReferenceSetupError, RunDirectoryError
from fff.config import XtbReference, nearest
from fff.data.structures import check_structures, load_labels, load_structures, source_files
from fff.models.files import find_members
from fff.reference import ReferenceCalculator, ReferenceProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ase import Atoms

    from fff.config import LoadedConfig
    from fff.data.records import Label

__all__ = ["Inputs", "load_inputs", "probe_reference"]

_LEAST_LABELS = 2
_RELAXED_eV_PER_A = 0.1
_MAX_RELAXATION_STEPS = 200
_PROBE_LIMIT_S = 300.0


@dataclass(frozen=True)
class Inputs:
    """What the config's files and names turned out to be.

    Attributes:
        structures: Where trajectories start.
        labels: Labels to train on from the first.
        test_labels: Labels of a given test set; empty when the campaign makes its own.
        method: Name of the reference method.
        start_members: Folders of the members of the model to fine-tune.
        files: Every file that was read.
    """

    structures: list[Atoms]
    labels: list[Label]
    test_labels: list[Label]
    method: str
    start_members: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


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
    config = loaded.config
    _check_run_dir(loaded.run_dir)
    labels = _labels("labels", config.labels)
    test_labels = _labels("test.labels", [config.test.labels] if config.test.labels else [])
    _check_apart(labels, test_labels)
    if config.test.n_frames is not None:
        test_labels = _spread(test_labels, config.test.n_frames)
    _check_model(config.model.start)
    with _naming("structures"), _relaxation() as relaxed:
        seed = seed_for(config.seed, "structures")
        structures = load_structures(
            config.structures, relax=relaxed if relax else lambda atoms: atoms, seed=seed
        )
    if not structures:
        # Labels alone: trajectories start from labelled structures, spread evenly over them.
        structures = [label.atoms for label in _spread(labels, config.sampling.n_trajectories)]
    groups = {
        "structures": structures,
        "labels": [label.atoms for label in labels],
        "test.labels": [label.atoms for label in test_labels],
    }
    for key, group in groups.items():
        if group:
            with _naming(key):
                check_structures(group, config.reference, thermostat=config.sampling.thermostat)
    every = [atoms for group in groups.values() for atoms in group]
    method = probe_reference(config.reference.model_dump(mode="json"), every)
    named = [*config.structures, *config.labels, *([config.test.labels] if config.test.labels else [])]
    start_members = find_members(Path(config.model.start)) if config.model.start else []
    return Inputs(structures, labels, test_labels, method, start_members, source_files(named))


def _spread(labels: Sequence[Label], n: int) -> list[Label]:
    if len(labels) <= n:
        return list(labels)
    return [labels[int(i)] for i in np.linspace(0, len(labels) - 1, n).round()]


@contextlib.contextmanager
def _relaxation() -> Iterator[Callable[[Atoms], Atoms]]:
    """Give a function that relaxes packed clusters with GFN2-xTB, in a process of its own when needed."""
    with contextlib.ExitStack() as stack:

        def relax(atoms: Atoms) -> Atoms:
            section = XtbReference(kind="xtb").model_dump(mode="json")
            process = stack.enter_context(contextlib.closing(ReferenceProcess(section, time_limit_s=600)))
            relaxed = atoms.copy()
            relaxed.calc = ReferenceCalculator(process.calculate)
            # A minimum is not needed, only a structure without strain that dynamics can start from.
            BFGS(relaxed, logfile=None).run(fmax=_RELAXED_eV_PER_A, steps=_MAX_RELAXATION_STEPS)
            relaxed.calc = None
            return relaxed

        yield relax


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


def _check_apart(labels: list[Label], test_labels: list[Label]) -> None:
    shared = {label.hash for label in labels} & {label.hash for label in test_labels}
    if shared:
        msg = f"`test.labels` shares {len(shared)} structures with `labels`; a test set is never trained on."
        hint = "Keep them apart, for example `labels: [file.xyz@:900]` and `test.labels: file.xyz@900:`."
        raise ConfigError(msg, hint=hint, key="test.labels", value=None)


def _check_model(start: str | None) -> None:
    if start is None:
        return
    path = Path(start)
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        found = nearest(path.name, siblings)
        hint = f"Did you mean {path.parent / found}?" if found else "Check the path."
        raise ConfigError(f"`model.start`: there is no {path}.", hint=hint, key="model.start", value=start)
    if not path.is_dir() or next(path.rglob("model.json"), None) is None:
        msg = f"`model.start`: {path} holds no trained model (model.json)."
        hint = "Name a run directory, a folder such as models/round-003, or a member's folder in it."
        raise ConfigError(msg, hint=hint, key="model.start", value=start)


def _check_run_dir(path: Path) -> None:
    if path.exists() and not path.is_dir():
        msg = f"The run directory {path} is a file."
        raise RunDirectoryError(msg, hint="Choose another with --run-dir.", path=str(path))
    if path.is_dir() and any(path.iterdir()):
        msg = f"The run directory {path} is not empty; nothing is ever overwritten."
        hint = "Choose another with --run-dir, or move this one away."
        raise RunDirectoryError(msg, hint=hint, path=str(path))
    above = path
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        msg = f"The run directory {path} cannot be made: {above} is a file."
        raise RunDirectoryError(msg, hint="Choose another with --run-dir.", path=str(path))
    if not os.access(above, os.W_OK | os.X_OK):
        msg = f"The run directory {path} cannot be made: {above} may not be written to."
        raise RunDirectoryError(msg, hint="Choose another with --run-dir.", path=str(path))


def probe_reference(section: dict[str, Any], structures: Sequence[Atoms]) -> str:
    """Return the name of the reference method, after it has looked at one structure of each kind.

    It is made in a process of its own: the libraries are large, start threads, and may crash.

    Args:
        section: The section `reference`, as JSON values.
        structures: What it will have to calculate.

    Raises:
        ReferenceSetupError: If it cannot be made or cannot treat a structure: a library or executable is
            missing, an option is unknown, a basis set lacks an element.
    """
    kinds = {(frozenset(atoms.numbers.tolist()), *atoms.pbc.tolist()): atoms for atoms in structures}
    question = {"section": section, "structures": [_as_json(atoms) for atoms in kinds.values()]}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fff.campaigns.probe"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=_PROBE_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        msg = (
            f"`reference.kind` is {section['kind']}, which could not be set up within {_PROBE_LIMIT_S:.0f} s."
        )
        raise ReferenceSetupError(msg, hint="Try it alone, in a Python session.") from None
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].rstrip(".")
        msg = f"`reference.kind` is {section['kind']}, which cannot be set up: {said}."
        raise ReferenceSetupError(msg, hint="Check that its package is installed and complete.") from None
    if "error" in answer:
        raise ReferenceSetupError(answer["error"], hint=answer["hint"])
    return str(answer["name"])


def _as_json(atoms: Atoms) -> dict[str, Any]:
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.tolist(),
        "pbc": atoms.pbc.tolist(),
    }
