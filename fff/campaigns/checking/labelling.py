"""Probes of what is labelled, and of the method: a real calculation, by a campaign's own means."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.base.draws import seed_for
from fff.base.durations import duration
from fff.base.errors import NotConvergedError, ReferenceFailure, TimeLimitError
from fff.campaigns.checking.findings import failed, fine, skipped, warning
from fff.campaigns.inputs import read_inputs
from fff.compute.sites import make_site
from fff.reference import ReferenceProcess
from fff.reference.launching import launch_outside_campaign
from fff.reference.probing import probe_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ase import Atoms

    from fff.campaigns.checking.findings import Finding, Known
    from fff.data.records import Label
    from fff.external import Launch

__all__ = ["displaced", "find_inputs", "find_method", "label_smallest"]

_THREADS = "OMP_NUM_THREADS"
_MOST_FORMULAS = 6
_CHEAP_S = 5.0
"""Labels that take no longer are calculated several times."""

_DEAREST_S = 30.0
"""The largest structure is calculated too if it will not take longer than this."""

_STEEPEST = 3.0
"""Power of the number of atoms with which no method's cost is expected to grow faster."""

_REPEATS = 5
_STEP_A = 0.005
"""About what an atom moves in a step of dynamics."""

_HEAD_BYTES = 20_000
_VERSION = re.compile(r"(?:[Vv]ersion|\(NWChem\)|\bv\.)\s*:?\s*v?(\d+(?:\.\d+)+)")

_KEPT_IN = re.compile(r" Its files are in \S+?\.(?=\s|$)")
_REPAIRS: dict[type[ReferenceFailure], str] = {
    NotConvergedError: (
        "Look at the structure, its charge and its multiplicity; or make convergence easier (more cycles, "
        "another functional or basis)."
    ),
    TimeLimitError: "Take a cheaper method or a smaller structure, or raise reference.time_limit_s.",
}
_OTHER_REPAIR = "Calculate this structure by hand with the same settings, and look at what the method says."


def find_inputs(known: Known) -> Iterator[Finding]:
    """Read structures and labels as a campaign would."""
    inputs = known.inputs = read_inputs(known.loaded)
    config = inputs.loaded.config
    start = f", fine-tuned from {config.model.start}" if config.model.start else ""
    yield fine(
        "structures",
        f"{_counted(inputs.structures)}{start}",
        n=len(inputs.structures),
        formulas=_formulas(inputs.structures),
        elements=sorted({symbol for atoms in inputs.structures for symbol in atoms.get_chemical_symbols()}),
        files=[str(path) for path in inputs.files],
    )
    given = [label.atoms for label in inputs.labels]
    found = (
        f"{_counted(given)} to train on" if given else f"none given; {config.start.n_labels} are made first"
    )
    yield fine("labels", found, n=len(given), formulas=_formulas(given))
    tested = [label.atoms for label in inputs.test_labels]
    if tested:
        yield fine("test set", f"{_counted(tested)}", n=len(tested), formulas=_formulas(tested))
    elif config.test.n_frames:
        temperatures = ", ".join(f"{t:g}" for t in config.test.temperatures_K)
        found = f"{config.test.n_frames} frames of dynamics by the reference at {temperatures} K, made first"
        hottest = max(config.sampling.temperature_K)
        if max(config.test.temperatures_K) >= hottest:
            yield fine("test set", found, n=0)
            return
        found += f"; the models' own dynamics reaches {hottest:g} K"
        hint = (
            f"Add {hottest:g} to test.temperatures_K; else the error is told of calmer structures than the "
            "dynamics meets."
        )
        yield warning("test set", found, hint, n=0)
    else:
        hint = "Give test.n_frames or test.labels."
        yield warning("test set", "none: nothing will tell how wrong the models are", hint, n=0)


def _formulas(structures: Sequence[Atoms]) -> dict[str, int]:
    return dict(Counter(atoms.get_chemical_formula() for atoms in structures))


def _counted(structures: Sequence[Atoms]) -> str:
    """Return how many structures there are, of what, and how large."""
    counts = _formulas(structures)
    names = [f"{n} of {name}" if n > 1 and len(counts) > 1 else name for name, n in counts.items()]
    more = f" and {len(names) - _MOST_FORMULAS} more formulas" if len(names) > _MOST_FORMULAS else ""
    sizes = sorted({len(atoms) for atoms in structures})
    atoms = f"{sizes[0]} atoms" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} atoms"
    periodic = ", periodic" if any(a.pbc.any() for a in structures) else ""
    return f"{len(structures)}: {', '.join(names[:_MOST_FORMULAS])}{more} ({atoms}{periodic})"


def find_method(known: Known) -> Iterator[Finding]:
    """Ask the method whether it can treat the structures: options, elements, electrons, cells."""
    if known.inputs is None:
        yield skipped("method", "there are no structures to ask it about")
        return
    if known.lacks_executable:
        yield skipped("method", "its executable is missing")
        return
    structures = known.inputs.every_structure
    known.method = probe_reference(known.config.reference.model_dump(mode="json"), structures)
    elements = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
    yield fine(
        "method", f"{known.method} knows {', '.join(elements)}", method=known.method, elements=elements
    )


def label_smallest(known: Known) -> Iterator[Finding]:
    """Calculate one label in a process of its own, as workers do; more of them where they are cheap."""
    if known.inputs is None or not known.method:
        yield skipped("label", "there is no method that could calculate one")
        return
    structures = sorted(known.inputs.every_structure, key=len)
    section = known.config.reference.model_dump(mode="json")
    if "keep_files" in section:
        section["keep_files"] = True  # they say which version of the code wrote them
    limit_s = min(float(section["time_limit_s"]), known.wait_s)
    with (
        _threads_of_a_worker(known),
        ReferenceProcess(section, time_limit_s=limit_s, work_dir=known.scratch / "tasks") as process,
    ):
        began = time.monotonic()
        try:
            label = process.calculate(structures[0], "label", _launch(known, structures[0]))
        except ReferenceFailure as error:
            yield _explained(error, known, structures[0], limit_s)
            return
        first_s = time.monotonic() - began
        known.label_s[len(label.atoms)] = label.wall_s
        if label.wall_s < _CHEAP_S:
            _measure(known, process, structures)
    yield _labelled(known, label, first_s, _version_in(known.scratch / "tasks"))
    yield from _compared_with_largest(known)


def _explained(error: ReferenceFailure, known: Known, atoms: Atoms, limit_s: float) -> Finding:
    """Return what a failure means; what it has left behind goes with the check."""
    message = _KEPT_IN.sub("", error.message)
    limit = float(known.config.reference.time_limit_s)
    if isinstance(error, TimeLimitError) and limit_s < limit:
        return warning(
            "label",
            f"one of {atoms.get_chemical_formula()} took longer than {limit_s:g} s, and was given up",
            f"Wait longer with --wait; a campaign waits {limit:g} s (reference.time_limit_s).",
        )
    known_repair = next((text for kind, text in _REPAIRS.items() if isinstance(error, kind)), _OTHER_REPAIR)
    # That a limit may be raised is true, and seldom what helps.
    repair = known_repair if isinstance(error, TimeLimitError) else error.hint or known_repair
    return failed("label", message, repair, error=type(error).__name__)


@contextlib.contextmanager
def _threads_of_a_worker(known: Known) -> Iterator[None]:
    """Let the calculation have as many threads as a worker will give it."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = str(_cores_of_a_slot(known))
    try:
        yield
    finally:
        os.environ.pop(_THREADS)
        if before is not None:
            os.environ[_THREADS] = before


def _cores_of_a_slot(known: Known) -> int:
    site = make_site(known.config.site)
    return site.specification[site.pool_of("calculate")].n_threads


def _measure(known: Known, process: ReferenceProcess, structures: Sequence[Atoms]) -> None:
    """Measure what a label costs with all libraries loaded, in dynamics, and of the largest structure."""
    smallest, largest = structures[0], structures[-1]
    with contextlib.suppress(ReferenceFailure):
        known.label_s[len(smallest)] = _label_s(process, smallest, _launch(known, smallest))
    with contextlib.suppress(ReferenceFailure):
        known.step_s = _step_s(process, smallest, _launch(known, smallest))
    guess_s = known.label_s[len(smallest)] * (len(largest) / len(smallest)) ** _STEEPEST
    if len(largest) > len(smallest) and guess_s < _DEAREST_S:
        with contextlib.suppress(ReferenceFailure):
            known.label_s[len(largest)] = _label_s(process, largest, _launch(known, largest))


def _launch(known: Known, atoms: Atoms) -> Launch | None:
    """Return what starts the ranks of a label, on as many slots as a campaign would give it here."""
    slots = known.config.calculation.slots_for(len(atoms), int(atoms.numbers.sum()))
    launch = launch_outside_campaign(known.config.site, slots=slots, cores=_cores_of_a_slot(known))
    known.label_slots[len(atoms)] = launch.slots if launch else 1
    return launch


def _label_s(process: ReferenceProcess, atoms: Atoms, launch: Launch | None) -> float:
    """Return the seconds of a label, to and from the process that calculates it: the median of a few."""
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _CHEAP_S:
        copy = displaced(atoms, len(times))
        began = time.monotonic()
        process.calculate(copy, "label", launch)
        times.append(time.monotonic() - began)
    return float(np.median(times))


def _step_s(process: ReferenceProcess, atoms: Atoms, launch: Launch | None) -> float:
    """Return the seconds of a step of dynamics, which goes on from the electrons of the one before."""
    walker = atoms.copy()
    walker.calc = process.ase_calculator("dynamics", launch)
    walker.get_forces()
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _CHEAP_S:
        walker.positions = displaced(walker, len(times), scale_A=_STEP_A).positions
        began = time.monotonic()
        walker.get_forces()
        times.append(time.monotonic() - began)
    return float(np.median(times))


def displaced(atoms: Atoms, index: int, scale_A: float = 0.02) -> Atoms:
    """Return a copy with every coordinate displaced at random."""
    copy = atoms.copy()
    rng = np.random.default_rng(seed_for(0, "check", index))
    copy.positions += rng.normal(scale=scale_A, size=copy.positions.shape)
    return copy


def _version_in(folder: Path) -> str:
    """Return what an external code says of its version in the files that it wrote, or nothing."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file():
            with path.open("rb") as file:
                text = file.read(_HEAD_BYTES).decode(errors="replace")
            if found := _VERSION.search(text):
                return found[1]
    return ""


def _labelled(known: Known, label: Label, first_s: float, version: str) -> Finding:
    formula, n = label.atoms.get_chemical_formula(), len(label.atoms)
    largest = float(np.linalg.norm(label.forces_eV_per_A, axis=1).max())
    warm_s, slots = known.label_s[n], known.label_slots[n]
    values: dict[str, Any] = {
        "formula": formula,
        "n_atoms": n,
        "code_version": version or None,
        "energy_eV": label.energy_eV,
        "max_force_eV_per_A": largest,
        "first_s": round(first_s, 3),
        "label_s": round(warm_s, 5),
        "slots": slots,
    }
    on = f" on {slots} slots" if slots > 1 else ""
    by = f", version {version}," if version else ""
    found = (
        f"{known.method}{by} of {formula} ({n} atoms): {label.energy_eV:.3f} eV, largest force {largest:.2f} "
        f"eV/Å, in {duration(warm_s)}{on} (the first with its start: {duration(first_s)})"
    )
    limit = known.config.sampling.max_force_eV_per_A
    if largest > limit:
        hint = "Relax the structure first; dynamics would end at once."
        return warning(
            "label", f"{found}; that is above sampling.max_force_eV_per_A ({limit:g})", hint, **values
        )
    return fine("label", found, **values)


def _compared_with_largest(known: Known) -> Iterator[Finding]:
    if len(known.label_s) > 1:
        (small, small_s), (large, large_s) = sorted(known.label_s.items())
        found = f"{duration(large_s)} for the largest structure ({large} atoms)"
        yield fine(
            "label",
            found,
            n_atoms=large,
            label_s=round(large_s, 5),
            smallest_n_atoms=small,
            smallest_s=small_s,
        )
