"""Asks, in a process of its own, whether a reference method can run here and treat some structures."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from fff.base.errors import ReferenceSetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

__all__ = ["probe_reference"]

_PROBE_LIMIT_S = 300.0


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
        # In a folder of its own, as where it will calculate: the current one may hold modules of anybody's.
        with tempfile.TemporaryDirectory(prefix="fff-probe-") as folder:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "fff.reference.probe"],
                input=json.dumps(question),
                capture_output=True,
                text=True,
                timeout=_PROBE_LIMIT_S,
                check=False,
                cwd=folder,
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
