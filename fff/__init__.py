"""Fast-finetuned forcefields: machine-learned force fields that say how wrong they are.

`fff.calculator(path)` opens a trained committee as an ASE calculator. Everything heavy is imported on
first use, so that `import fff` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ase.calculators.calculator import Calculator

__version__ = "0.1.0"
__all__ = ["__version__", "calculator"]


def calculator(path: str | Path, *, device: str | None = None) -> Calculator:
    """Open a trained committee, or a single member of one, as an ASE calculator.

    Args:
        path: A run directory, a round directory (`models/round-003`) or a member directory.
        device: Torch device, for example `"cpu"` or `"cuda:0"`; the first accelerator found when None.

    Returns:
        A calculator with `energy` (eV), `forces` (eV/Å), `stress` (eV/Å³, periodic structures only) and,
        in its `results`, the committee's `deviation` (eV/Å).

    Raises:
        ModelFileError: If no trained model is found at `path`.
    """
    from pathlib import Path

    from fff.models.calculators import open_calculator

    return open_calculator(Path(path), device=device)
