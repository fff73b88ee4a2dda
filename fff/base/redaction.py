"""What must not be written down: passwords in addresses, and values whose names say that they are secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["find_secret", "redact"]

_MASK = "***"
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@]+(?=@)")
_WORD = r"(?:password|passwd|passphrase|secret|token|api_?key|credentials?)"
_NAME = re.compile(rf"(?:.*[_.-])?{_WORD}", re.IGNORECASE)
_ASSIGNED = re.compile(rf"((?<![A-Za-z0-9]){_WORD}['\"]?\s*[=:]\s*)(\S+)", re.IGNORECASE)


def redact(text: str) -> str:
    """Return `text` without the secrets that can be told by their form.

    Example:
        >>> redact("redis://me:hunter2@host:6379 -o site.password=hunter2")
        'redis://***@host:6379 -o site.password=***'
    """
    return _ASSIGNED.sub(rf"\1{_MASK}", _IN_ADDRESS.sub(_MASK, text))


def find_secret(values: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> str | None:
    """Return the dotted key of the first value, in nested ones, that looks like a secret, or None.

    Example:
        >>> find_secret({"site": {"store": ["redis://me:hunter2@host"]}})
        'site.store[0]'
    """
    if isinstance(values, dict):
        pairs = [(f"{prefix}.{name}" if prefix else str(name), name, value) for name, value in values.items()]
    else:
        pairs = [(f"{prefix}[{i}]", "", value) for i, value in enumerate(values)]
    for key, name, value in pairs:
        if isinstance(value, dict | list | tuple):
            if found := find_secret(value, key):
                return found
        elif isinstance(value, str) and (_IN_ADDRESS.search(value) or (value and _NAME.fullmatch(str(name)))):
            return key
    return None
