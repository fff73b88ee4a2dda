"""Keeps the memory that one step of training frees for the next step."""

from __future__ import annotations

import contextlib
import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Parameters of mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_TRIM_BYTES = 512 * 2**20
# The largest that glibc accepts on 64 bits.
_MMAP_BYTES = 32 * 2**20


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed memory back to the system until it is 512 MiB.

    A step of training frees some 20 MB in pieces of a few 100 kB. By default they go back to the system, and
    the next step pays for every page again: 800 page faults, an eighth of a step's time of the default
    network at eight molecules. Elsewhere than on Linux with glibc this does nothing.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
