"""A command line as a list of arguments and files, read without a shell."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fff.base.errors import ReferenceSetupError
from fff.external.evidence import STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Command", "parse_command"]

_PART = re.compile(
    r"""[ \t]*(?:
        (?P<redirection> 2>&1 | [12]?> (?![>&]) | < (?![<&>]) )
      | (?P<word> (?!\d+[<>]) (?:
            [^\s'"\\<>|;&()`$*?\[\]{}~\#] | (?<=[\w.])[~\#] | '[^']*' | "[^"\\`$]*" | \\[^\n]
        )+ )
    )[ \t]*""",
    re.VERBOSE,
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


@dataclass(frozen=True)
class Command:
    """A command for `run`.

    Attributes:
        arguments: The executable and its arguments.
        launcher: What starts it, if it does not start alone: the words before its own, as of `mpiexec`.
        environment: Variables that it sets for itself.
        stdin: File that it reads, relative to its folder.
        stdout: File for its output.
        stderr: File for its messages; may be that for its output.
        key: Key of the config that names the executable, for messages.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    stdin: str = os.devnull
    stdout: str = STDOUT
    stderr: str = STDERR
    key: str = "reference.command"

    @property
    def name(self) -> str:
        """What is run, for messages: `nwchem`, or `nwchem by mpiexec`."""
        return " by ".join([self.arguments[0], *self.launcher[:1]])


def parse_command(text: str, key: str) -> Command:
    """Return the command that a line of shell means: words, quotes, `NAME=value` in front, `<`, `>`, `2>`.

    Args:
        text: The line.
        key: Key of the config that it comes from.

    Raises:
        ReferenceSetupError: If only a shell could run it.

    Example:
        >>> parse_command("OMP_NUM_THREADS=2 code -i 'my input' > out", "command").arguments
        ('code', '-i', 'my input')
    """
    words: list[str] = []
    environment: dict[str, str] = {}
    files: dict[str, str] = {}
    waiting = ""
    for kind, part in _parts(text, key):
        if kind == "redirection":
            if waiting:
                raise _refused(text, key, f"a file is missing after {waiting}")
            waiting = "" if part == "2>&1" else part
            if part == "2>&1":
                files["stderr"] = files.get("stdout", STDOUT)
            continue
        if waiting:
            files[_STREAMS[waiting]] = _unquoted(part)
            waiting = ""
        elif not words and _ASSIGNMENT.match(part):
            name, _, value = part.partition("=")
            environment[name] = _unquoted(value)
        else:
            words.append(_unquoted(part))
    if waiting or not words:
        raise _refused(
            text, key, f"a file is missing after {waiting}" if waiting else "it names no executable"
        )
    return Command(tuple(words), environment, (), key=key, **files)


_STREAMS = {"<": "stdin", ">": "stdout", "1>": "stdout", "2>": "stderr"}


def _parts(text: str, key: str) -> list[tuple[str, str]]:
    parts, position = [], 0
    text = text.strip()
    while position < len(text):
        found = _PART.match(text, position)
        if not found:
            raise _refused(text, key, f"it needs a shell from {text[position:][:20]!r} on")
        parts.append((str(found.lastgroup), found[str(found.lastgroup)]))
        position = found.end()
    return parts


def _unquoted(word: str) -> str:
    return "".join(shlex.split(word)) if word else ""


def _refused(text: str, key: str, reason: str) -> ReferenceSetupError:
    return ReferenceSetupError(
        f"{key} is {text!r}, which cannot be run: {reason}.",
        hint="Give one command with its arguments; of a shell's language only <, >, 2> and 2>&1 are known. "
        "Put anything else into a script of its own.",
        key=key,
        value=text,
    )
