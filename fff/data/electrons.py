"""Which charges and spin multiplicities a structure can have, and which elements GFN-xTB treats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fff.config import PyscfReference, XtbReference

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["LAST_XTB_ELEMENT", "SpinProblem", "find_spin_problem"]

LAST_XTB_ELEMENT = 86
"""Atomic number of radon, the heaviest element with GFN-xTB parameters."""

_LANTHANIDES = range(57, 72)


@dataclass(frozen=True)
class SpinProblem:
    """Why charge and multiplicity do not fit a structure.

    Attributes:
        message: A sentence: the key, its value, the number of electrons.
        hint: The repair.
        key: The key of the config.
        value: Its value.
    """

    message: str
    hint: str
    key: str
    value: int


def find_spin_problem(
    atoms: Atoms, name: str, reference: XtbReference | PyscfReference
) -> SpinProblem | None:
    """Return why a structure cannot have the charge and multiplicity of the method, or None if it can.

    Args:
        atoms: The structure.
        name: What it is called in the message.
        reference: The section of the config.
    """
    numbers = atoms.numbers
    if isinstance(reference, XtbReference):
        # GFN methods keep the f electrons of the lanthanides in the core, and three electrons outside.
        numbers = np.where(np.isin(numbers, _LANTHANIDES), 3, numbers)
    n_protons, charge, multiplicity = int(numbers.sum()), reference.charge, reference.multiplicity
    n_electrons, n_unpaired = n_protons - charge, multiplicity - 1
    if n_electrons < 1:
        msg = f"`reference.charge` is {charge}, which leaves {name} no electrons."
        return SpinProblem(msg, f"Set `reference.charge` below {n_protons}.", "reference.charge", charge)
    if n_unpaired <= n_electrons and (n_electrons - n_unpaired) % 2 == 0:
        return None
    possible = "1, 3, 5, …" if n_electrons % 2 == 0 else "2, 4, 6, …"
    return SpinProblem(
        f"`reference.multiplicity` is {multiplicity}, but {name} has {n_electrons} electrons "
        f"at charge {charge}.",
        f"Set `reference.multiplicity` to one of {possible}, or change `reference.charge`.",
        "reference.multiplicity",
        multiplicity,
    )
