"""How many cores there are, and how numerical libraries are told to take fewer."""

from __future__ import annotations

import os

__all__ = ["THREAD_VARIABLES", "cores_found"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Environment variables that libraries read when they are loaded."""


def cores_found() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
