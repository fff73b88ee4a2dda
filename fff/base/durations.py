"""Walltimes as people write them: `90s`, `30m`, `2h`, `1d`, `1:30:00`."""

from __future__ import annotations

import re

from fff.base.errors import ConfigError

__all__ = ["seconds"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")
_CLOCK = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9}):([0-9]{2})(?::([0-9]{2}))?")
_LEAST_S = 60.0


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
