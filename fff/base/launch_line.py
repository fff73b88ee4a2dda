"""The command of a site that starts the ranks of an external code, with places to fill in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fff.base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PLACEHOLDERS", "check_launch_line", "fill", "placeholders_in"]

PLACEHOLDERS = {
    "ranks": "slots times the cores of a slot",
    "nodes": "the number of different hosts",
    "hosts": "these hosts, as n1,n2",
    "hosts_and_ranks": "these hosts, each with the ranks on it, as n1:16,n2:16",
}
"""What is filled in, by name."""

_SHELL = re.compile(r"[|&;<>`]")
_PLACE = re.compile(r"\{(\w*)\}")


def check_launch_line(line: str, key: str = "site.mpi_launch") -> None:
    """Check that a launch line has no other placeholders, and nothing that only a shell could read.

    Args:
        line: The line.
        key: Key of the config that it comes from.

    Raises:
        ConfigError: If it has.
    """
    if found := _SHELL.search(line):
        msg = f"`{key}` is {line!r}, which needs a shell from {line[found.start() :][:20]!r} on."
        raise ConfigError(msg, hint="Give one command with its options.", key=key, value=line)
    unknown = sorted(set(_PLACE.findall(line)) - set(PLACEHOLDERS))
    if unknown or re.search(r"[{}]", _PLACE.sub("", line)):
        what = f"the placeholder {{{unknown[0]}}} is unknown" if unknown else "it has a brace of its own"
        known = ", ".join(f"{{{name}}} ({meaning})" for name, meaning in PLACEHOLDERS.items())
        raise ConfigError(
            f"`{key}` is {line!r}, where {what}.", hint=f"There are {known}.", key=key, value=line
        )


def placeholders_in(line: str) -> frozenset[str]:
    """Return the names of a line's placeholders."""
    return frozenset(_PLACE.findall(line))


def fill(line: str, values: Mapping[str, object]) -> str:
    """Return a line with its placeholders filled in.

    Example:
        >>> fill("srun --nodes={nodes} --ntasks={ranks}", {"nodes": 2, "ranks": 32})
        'srun --nodes=2 --ntasks=32'
    """
    return _PLACE.sub(lambda found: str(values[found[1]]), line)
