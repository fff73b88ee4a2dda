"""Cores shared between child processes, and no more threads than there is work for."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from fff.base.cores import THREAD_VARIABLES, cores_found

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["are_useful_for", "shared_by", "threads_for"]

_ATOMS_FOR_THREADS = 500


def are_useful_for(n_atoms: float) -> bool:
    """Return whether several threads pay off where so many atoms are predicted at a time.

    With batches of 8 ethanol molecules on two cores, beside other work, a step of a training took 27 to 38 ms
    with one thread and 45 to 144 ms with two, which wait for each other at every operation.
    """
    return n_atoms >= _ATOMS_FOR_THREADS


@contextlib.contextmanager
def threads_for(n_atoms: float) -> Iterator[None]:
    """Have torch take one thread in the block where few atoms are predicted at a time.

    What the user said in the environment stays.

    Args:
        n_atoms: Atoms of a prediction.
    """
    import torch

    before = torch.get_num_threads()
    if not are_useful_for(n_atoms) and not _is_given():
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def shared_by(n_processes: int, *, at_most: int | None = None) -> Iterator[None]:
    """Have child processes that start in the block share the cores, unless the user said how many to take.

    Args:
        n_processes: How many run at a time.
        at_most: Threads of which each has a use; any number when None.
    """
    given = _is_given()
    share = max(1, cores_found() // n_processes)
    n_threads = str(share if at_most is None else min(share, at_most))
    try:
        if not given:
            os.environ.update(dict.fromkeys(THREAD_VARIABLES, n_threads))
        yield
    finally:
        if not given:
            for name in THREAD_VARIABLES:
                os.environ.pop(name, None)


def _is_given() -> bool:
    return any(os.environ.get(name) for name in THREAD_VARIABLES)
