"""Moves the atoms of packed clusters to a minimum nearby, before anything is done with them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ase.optimize import BFGS

from fff.config import XtbReference
from fff.reference.process import ReferenceProcess
from fff.reference.protocol import ReferenceCalculator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ase import Atoms

__all__ = ["relaxation"]

_RELAXED_eV_PER_A = 0.1
_MAX_RELAXATION_STEPS = 200
_RELAXATION_STEP_LIMIT_S = 600.0


@contextlib.contextmanager
def relaxation() -> Iterator[Callable[[Atoms], Atoms]]:
    """Give a function that relaxes packed clusters with GFN2-xTB, in a process of its own."""
    section = XtbReference(kind="xtb").model_dump(mode="json")
    # It starts with the first calculation: without a cluster there is none.
    with ReferenceProcess(section, time_limit_s=_RELAXATION_STEP_LIMIT_S) as process:

        def relax(atoms: Atoms) -> Atoms:
            relaxed = atoms.copy()
            relaxed.calc = ReferenceCalculator(process.calculate)
            # A minimum is not needed, only a structure without strain that dynamics can start from.
            BFGS(relaxed, logfile=None).run(fmax=_RELAXED_eV_PER_A, steps=_MAX_RELAXATION_STEPS)
            relaxed.calc = None
            return relaxed

        yield relax
