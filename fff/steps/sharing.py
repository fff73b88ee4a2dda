"""Cores shared between child processes."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from fff.base.cores import THREAD_VARIABLES, cores_found

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["shared_by"]


@contextlib.contextmanager
def shared_by(n_processes: int, *, at_most: int | None = None) -> Iterator[None]:
    """Have child processes that start in the block share the cores, unless the user said how many to take.

    Args:
        n_processes: How many run at a time.
        at_most: Threads of which each has a use; any number when None.
    """
    given = any(os.environ.get(name) for name in THREAD_VARIABLES)
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
