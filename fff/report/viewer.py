"""The worst structures in three dimensions: the viewer of an installed package, put into the page.

The JavaScript is chemiscope's (BSD 3-clause licence, https://chemiscope.org), read from the installed package
when a report is written. It needs no network, and runs under a policy that allows none.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.report.html import Markup, join, raw, table, tag
from fff.report.numbers import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fff.data.records import Label
    from fff.report.record import Record

__all__ = ["Worst", "describe_worst", "find_viewer", "viewer_markup", "worst_structures"]

MOST = 12
"""Structures of each kind that are shown."""

_SCRIPT = Path("sphinx") / "static" / "chemiscope.min.js"


@dataclass(frozen=True)
class Worst:
    """A structure with a large error.

    Attributes:
        name: What it is called in the campaign's files.
        source: Where it came from: `test`, or the source of the label.
        label: The structure with what the reference says.
        error_eV_per_A: Largest error of the force on one atom.
        deviation_eV_per_A: Largest force deviation of the committee; NaN where not known.
    """

    name: str
    source: str
    label: Label
    error_eV_per_A: float
    deviation_eV_per_A: float


def worst_structures(record: Record) -> list[Worst]:
    """Return the structures with the largest errors: of the test set, then of labels before training."""
    found: list[Worst] = []
    prediction = record.prediction
    if prediction is not None:
        for row in np.argsort(-prediction.error_eV_per_A, kind="stable")[:MOST]:
            label = prediction.labels[row]
            error, deviation = prediction.error_eV_per_A[row], prediction.deviation_eV_per_A[row]
            found.append(Worst(label.segment or "given", "test", label, float(error), float(deviation)))
    known = [item for item in record.judged if math.isfinite(item.error_eV_per_A)]
    known.sort(key=lambda item: -item.error_eV_per_A)
    for item in known[:MOST]:
        worst = Worst(item.request, item.source, item.label, item.error_eV_per_A, item.deviation_eV_per_A)
        found.append(worst)
    return found


def describe_worst(worst: Sequence[Worst], *, shown: bool) -> Markup:
    """Return the table of the structures; where a viewer stands above it, a row shows its structure."""
    rows = []
    for index, item in enumerate(worst):
        formula = item.label.atoms.get_chemical_formula()
        # Counted as the viewer counts.
        name: str = f"{index}: {formula}"
        if shown:
            name = tag("button", name, class_="show", type="button", data_structure=str(index))
        numbers = [number(item.error_eV_per_A), number(item.deviation_eV_per_A)]
        rows.append([name, *numbers, item.source, item.name])
    heading = ["structure", "largest force error (eV/Å)", "deviation (eV/Å)", "source", "met in"]
    return table(heading, rows, class_="names")


def find_viewer() -> str | None:
    """Return the viewer's JavaScript from the installed package, or None where it is not installed."""
    # Found, not imported: the package itself would bring notebooks along.
    spec = find_spec("chemiscope")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        try:
            return (Path(folder) / _SCRIPT).read_text(encoding="utf-8")
        except OSError:
            continue
    return None


def viewer_markup() -> Markup:
    """Return the places that the viewer fills."""
    return tag(
        "div",
        tag("div", id="meta"),
        tag("div", id="structure"),
        tag("div", id="info"),
        id="viewer",
    )


def scripts(worst: Sequence[Worst], viewer: str) -> tuple[Markup, list[str]]:
    """Return the elements with data and scripts, and the texts of those that a policy must allow."""
    ours = Path(__file__).with_name("report.js").read_text(encoding="utf-8")
    allowed = [_inline(viewer), _inline(ours)]
    # No text can end the element or begin another: no < is left in it.
    data = json.dumps(_dataset(worst), allow_nan=False).replace("<", "\\u003c")
    elements = [
        tag("script", raw(data), type="application/json", id="structures"),
        *(tag("script", raw(text)) for text in allowed),
    ]
    return join(elements), allowed


def _inline(script: str) -> str:
    """Return a script that no sequence in one of its strings or comments can end or hide."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _dataset(worst: Sequence[Worst]) -> dict[str, Any]:
    """Return the structures as chemiscope's input: https://chemiscope.org/docs/manual/json-format.html."""
    return {
        "meta": {"name": "Structures with the largest errors"},
        "structures": [_structure(item) for item in worst],
        "properties": {
            "largest force error": {
                "target": "structure",
                "values": [round(item.error_eV_per_A, 4) for item in worst],
                "units": "eV/Å",
            },
            "source": {"target": "structure", "values": [f"{item.source} ({item.name})" for item in worst]},
        },
        "settings": {
            "structure": [
                {
                    "bonds": True,
                    "spaceFilling": False,
                    "unitCell": any(item.label.atoms.pbc.any() for item in worst),
                    "keepOrientation": False,
                }
            ]
        },
    }


def _structure(item: Worst) -> dict[str, Any]:
    atoms = item.label.atoms
    x, y, z = np.round(atoms.positions, 4).T.tolist()
    structure = {"size": len(atoms), "names": atoms.get_chemical_symbols(), "x": x, "y": y, "z": z}
    if atoms.pbc.any():
        structure["cell"] = np.round(atoms.cell.array, 5).ravel().tolist()
    return structure
