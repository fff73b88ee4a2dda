"""Times as people write and read them: `90s`, `2h`, `1:30:00`; 5.0 s, 10 min, 3.4 h."""

from __future__ import annotations

import math
import re

from fff.base.errors import ConfigError

__all__ = ["duration", "seconds"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")
_CLOCK = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9}):([0-9]{2})(?::([0-9]{2}))?")
_LEAST_S = 60.0
_READ = (
    (0.0995, 1e-3, None, "ms"),
    (0.995, 1, None, "s"),
    (9.95, 1, 1, "s"),
    (99.5, 1, 0, "s"),
    (5400, 60, 0, "min"),
    (172_800, 3600, 1, "h"),
    (math.inf, 86_400, 1, "d"),
)


def seconds(text: str, key: str) -> float:
    """Return a time in seconds.

    Args:
        text: Numbers with units, as in `90s`, `2h` or `1h30m`, or a clock as batch systems write it:
            `[days-]hours:minutes[:seconds]`.
        key: Key or flag that it was given by, for messages.

    Raises:
        ConfigError: If it is none of these, or less than a minute.

    Example:
        >>> [seconds(text, "--walltime") for text in ("1h30m", "1:30:00", "2d")]
        [5400.0, 5400.0, 172800.0]
    """
    text = text.strip()
    total = 0.0
    if match := _CLOCK.fullmatch(text):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        total = 86400.0 * days + 3600.0 * hours + 60.0 * minutes + rest
    elif text and not _NUMBER.sub("", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in _NUMBER.findall(text))
    else:
        msg = f"`{key}` is {text!r}, which is no time."
        raise ConfigError(msg, hint="Write 90s, 30m, 2h, 1d or 1:30:00.", key=key, value=text)
    if total < _LEAST_S:
        msg = f"`{key}` is {text!r}, {total:g} s; it must be at least {_LEAST_S:g} s."
        hint = "Workers need some seconds to start, and the end takes some too."
        raise ConfigError(msg, hint=hint, key=key, value=text)
    return total


def duration(time_s: float) -> str:
    """Return a time as people read it, to two digits or three; a dash for what is no number.

    Example:
        >>> [duration(time_s) for time_s in (0.00213, 0.15, 5.04, 50, 600, 12_240, 200_000)]
        ['2.1 ms', '0.15 s', '5.0 s', '50 s', '10 min', '3.4 h', '2.3 d']
    """
    if not math.isfinite(time_s):
        return "\u2013"
    _, unit_s, digits, name = next(row for row in _READ if time_s < row[0])
    number = f"{time_s / unit_s:.2g}" if digits is None else f"{time_s / unit_s:.{digits}f}"
    return f"{number} {name}"
