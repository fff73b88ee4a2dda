"""Numbers as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

__all__ = ["DASH", "bytes_", "interval", "number", "percent", "when"]

DASH = "\u2013"
"""Stands for a number that is not known."""


def number(value: Any) -> str:
    """Return a number with three digits, or a dash where there is none.

    Example:
        >>> number(57.964), number(615.04), number(12345.6), number(0.00123), number(None) == DASH
        ('58.0', '615', '12346', '0.00123', True)
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return DASH
    if value == 0 or isinstance(value, int):
        return str(value) if isinstance(value, int) else "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.0f}" if digits <= 0 else f"{value:.{min(digits, 8)}f}"


def interval(bounds: Any) -> str:
    """Return an interval, or what stands for one that is not known."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return "not known"
    return f"{number(bounds[0])} to {number(bounds[1])}"


def percent(part: float) -> str:
    """Return a part of one as a percentage."""
    return f"{100 * part:.0f} %" if part >= 0.0995 or part == 0 else f"{100 * part:.1f} %"


def when(time: float) -> str:
    """Return a Unix time as a date of this machine's time zone."""
    return datetime.fromtimestamp(time, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def bytes_(size: int) -> str:
    """Return a size of a file.

    Example:
        >>> bytes_(300), bytes_(45_000), bytes_(3_800_000)
        ('300 B', '45.0 kB', '3.80 MB')
    """
    if size < 1000:
        return f"{size} B"
    unit, power = next(
        (unit, power) for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)) if size >= 10**power
    )
    return f"{number(size / 10**power)} {unit}"
