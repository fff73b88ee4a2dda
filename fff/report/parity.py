"""Predicted energies and forces against the reference's, as a figure and per element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from fff.data.atomic_energies import fit_atomic_energies, sum_atomic_energies
from fff.report.drawing import COLOURS, QUIET, Column, Drawing, drawing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int
    from matplotlib.axes import Axes

    from fff.data.records import Label

__all__ = ["draw_parity", "errors_by_element"]

meV = 1000.0  # noqa: N816 - the unit's own spelling
_MOST_POINTS = 20_000
_AXES = "xyz"


def draw_parity(
    labels: Sequence[Label],
    energy_eV: Float[np.ndarray, " n_structures"],
    forces_eV_per_A: Sequence[Float[np.ndarray, "n_atoms 3"]],
    *,
    name: str = "parity",
    title: str = "Predicted against reference",
) -> Drawing:
    """Draw energies per atom and force components against the reference's, forces coloured by element.

    Total energies are shown less energies of the elements fitted to the reference, the same for both axes:
    what composition alone explains would otherwise hide everything else. Errors are those of all points; of
    more than about 20,000 a random choice is drawn, and is what the numbers beside the picture hold.

    Args:
        labels: Structures with reference energies and forces.
        energy_eV: Predicted total energies.
        forces_eV_per_A: Predicted forces, one array per structure.
        name: File name without ending.
        title: What it shows, in a few words.

    Raises:
        ValueError: If there is no label.
    """
    if not labels:
        msg = "A parity plot needs at least one labelled structure; there is none."
        raise ValueError(msg)
    structures = [label.atoms for label in labels]
    n_atoms = np.array([len(atoms) for atoms in structures])
    total = np.array([label.energy_eV for label in labels])
    explained = sum_atomic_energies(structures, fit_atomic_energies(structures, total))
    energies = np.stack([total - explained, np.asarray(energy_eV) - explained]) / n_atoms * meV
    forces = np.stack(
        [np.concatenate([label.forces_eV_per_A for label in labels]), np.concatenate(list(forces_eV_per_A))]
    )
    numbers = np.concatenate([atoms.numbers for atoms in structures])
    kept = _thinned(n_atoms)
    # Imported here: matplotlib takes half a second.
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(7.6, 3.9))
        left, right = figure.subplots(1, 2)
        firsts = np.flatnonzero(kept.is_first)
        left.scatter(*energies[:, kept.structure[firsts]], s=7, alpha=0.5, linewidths=0)
        _finish(left, energies, "energy less fitted energies of atoms (meV/atom)", "meV/atom")
        _draw_forces(right, forces[:, kept.rows], numbers[kept.rows])
        _finish(right, forces, "force component (eV/Å)", "meV/Å", scale=meV)
        figure.suptitle(title, fontsize=10)
    return Drawing(
        name=name,
        title=title,
        figure=figure,
        columns=_columns(kept, energies, forces, numbers),
        caption="On the line predictions equal the reference. " + _thinning(kept, n_atoms),
    )


def errors_by_element(
    labels: Sequence[Label], forces_eV_per_A: Sequence[Float[np.ndarray, "n_atoms 3"]]
) -> dict[str, dict[str, float | int]]:
    """Return the force errors on the atoms of each element, lightest first.

    Args:
        labels: Structures with reference forces.
        forces_eV_per_A: Predicted forces, one array per structure.

    Returns:
        By symbol: `n_atoms`, and `force_mae_meV_per_A`, `force_rmse_meV_per_A` over components.
    """
    if not labels:
        return {}
    numbers = np.concatenate([label.atoms.numbers for label in labels])
    reference = np.concatenate([label.forces_eV_per_A for label in labels])
    errors = (np.concatenate(list(forces_eV_per_A)) - reference) * meV
    found = {}
    for number in np.unique(numbers):
        own = errors[numbers == number]
        found[chemical_symbols[number]] = {
            "n_atoms": len(own),
            "force_mae_meV_per_A": round(float(np.abs(own).mean()), 3),
            "force_rmse_meV_per_A": round(float(np.sqrt((own**2).mean())), 3),
        }
    return found


class _Kept:
    """The atoms that are drawn, by their place among all; each with its structure."""

    def __init__(self, rows: Int[np.ndarray, " n_kept"], n_atoms: Int[np.ndarray, " n_structures"]) -> None:
        starts = np.cumsum(n_atoms) - n_atoms
        self.rows = rows
        self.structure = np.searchsorted(starts, rows, side="right") - 1
        self.atom = rows - starts[self.structure]
        self.is_first = self.atom == 0


def _thinned(n_atoms: Int[np.ndarray, " n_structures"]) -> _Kept:
    """Choose atoms, at random where there are many; the first of each structure stands for its energy."""
    # A fixed seed: the same predictions give the same picture. At random, for atoms of one place in a
    # molecule would be one element.
    random = np.random.default_rng(0)
    starts = np.cumsum(n_atoms) - n_atoms
    firsts = random.permutation(starts)[:_MOST_POINTS]
    rows = random.permutation(int(n_atoms.sum()))[: _MOST_POINTS // 3]
    return _Kept(np.union1d(firsts, rows), n_atoms)


def _thinning(kept: _Kept, n_atoms: Int[np.ndarray, " n_structures"]) -> str:
    drawn, there = len(kept.rows), int(n_atoms.sum())
    if drawn == there:
        return f"All {there} atoms of {len(n_atoms)} structures are drawn."
    return f"Drawn are {drawn} of {there} atoms of {len(n_atoms)} structures; the errors are those of all."


def _draw_forces(
    axes: Axes, forces: Float[np.ndarray, "2 n_atoms 3"], numbers: Int[np.ndarray, " n_atoms"]
) -> None:
    found, counts = np.unique(numbers, return_counts=True)
    colours = {number: COLOURS[i % len(COLOURS)] for i, number in enumerate(found)}
    # The rarest last: few points of one element would vanish under many of another.
    for number in found[np.argsort(-counts, kind="stable")]:
        reference, predicted = forces[:, numbers == number].reshape(2, -1)
        label = chemical_symbols[number]
        axes.scatter(reference, predicted, s=6, alpha=0.5, linewidths=0, color=colours[number], label=label)
    legend = axes.legend(loc="lower right", markerscale=2.5, handletextpad=0.1, borderaxespad=0.2)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


def _finish(
    axes: Axes, values: Float[np.ndarray, "2 ..."], what: str, unit: str, *, scale: float = 1.0
) -> None:
    """Draw the diagonal, name the axes, and say how large the errors are."""
    errors = (values[1] - values[0]) * scale
    text = f"MAE {_number(np.abs(errors).mean())} {unit}\nRMSE {_number(np.sqrt((errors**2).mean()))} {unit}"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=8)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin
    axes.plot([low, high], [low, high], color=QUIET, linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_title(what, fontsize=9)
    axes.set_xlabel("reference")
    axes.set_ylabel("predicted")


def _number(error: float) -> str:
    return f"{error:.3g}" if abs(error) < 100 else f"{error:.0f}"


def _columns(
    kept: _Kept,
    energies: Float[np.ndarray, "2 n_structures"],
    forces: Float[np.ndarray, "2 n_atoms 3"],
    numbers: Int[np.ndarray, " n_atoms"],
) -> list[Column]:
    def energy(which: int) -> list[Any]:
        found = energies[which, kept.structure]
        return [float(value) if first else None for value, first in zip(found, kept.is_first, strict=True)]

    columns = [
        Column("structure", "", kept.structure.tolist()),
        Column("atom", "", kept.atom.tolist()),
        Column("element", "", [chemical_symbols[number] for number in numbers[kept.rows]]),
        Column("reference_energy", "meV/atom", energy(0)),
        Column("predicted_energy", "meV/atom", energy(1)),
    ]
    for which, side in enumerate(("reference", "predicted")):
        for i, axis in enumerate(_AXES):
            columns.append(Column(f"{side}_force_{axis}", "eV/Å", forces[which, kept.rows, i].tolist()))
    return columns
