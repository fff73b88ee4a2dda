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
def shared_by(n_processes: int) -> Iterator[None]:
    """Have child processes that start in the block share the cores, unless the user said how many to take."""
    given = any(os.environ.get(name) for name in THREAD_VARIABLES)
    n_threads = str(max(1, cores_found() // n_processes))
    try:
        if not given:
            os.environ.update(dict.fromkeys(THREAD_VARIABLES, n_threads))
        yield
    finally:
        if not given:
            for name in THREAD_VARIABLES:
                os.environ.pop(name, None)
