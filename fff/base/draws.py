"""Random draws by hashing (seed, purpose, counters): the same after a restart, in any order.

A generator that lives long would have to be stored at every step to be resumed; a hash needs nothing.
One draw costs about a microsecond.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["choice", "integer", "seed_for", "uniform"]


def seed_for(seed: int, purpose: str, *counters: int | str) -> int:
    """Return 63 random bits that depend on nothing but the arguments; good as a generator's seed."""
    key = "\x1f".join((str(seed), purpose, *map(str, counters)))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1


def uniform(seed: int, purpose: str, *counters: int | str) -> float:
    """Return a number drawn uniformly from [0, 1)."""
    return (seed_for(seed, purpose, *counters) >> 10) / float(1 << 53)


def integer(bound: int, seed: int, purpose: str, *counters: int | str) -> int:
    """Return an integer drawn uniformly from 0 to `bound` - 1.

    Raises:
        ValueError: If `bound` is below 1.
    """
    if bound < 1:
        msg = f"A draw needs at least one possibility; the bound was {bound}."
        raise ValueError(msg)
    return seed_for(seed, purpose, *counters) % bound


def choice[T](items: Sequence[T], seed: int, purpose: str, *counters: int | str) -> T:
    """Return one of `items`, all equally likely.

    Raises:
        ValueError: If `items` is empty.
    """
    return items[integer(len(items), seed, purpose, *counters)]
