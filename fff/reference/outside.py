"""Has ASE's file-based calculators run their codes through `fff.external`.

ASE writes the input and reads the results. Left to itself it would also run the code: most through a shell,
without a time limit, and with the error text lost.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from ase.calculators.calculator import FileIOCalculator, StandardProfile
from ase.calculators.genericfileio import GenericFileIOCalculator

from fff.base.errors import NotConvergedError, ReferenceFailure
from fff.external import Command, find_executable, parse_command, run, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fff.external import Launch

__all__ = ["Outside", "has_not_converged", "is_configured_by_ase", "runs_code", "without_blanks"]

_COMMAND_KEY = "reference.parameters.command"

_SEARCHED_BYTES = 1_000_000
# What codes print that end, or seem to end, without having converged.
_SAYS_SO = {
    "nwchem": r"calculation failed to converge",
    "espresso": r"convergence not achieved",
    "orca": r"scf not converged",
}
# What may be believed of a code that has failed anyhow.
_MAY_SAY_SO = (
    r"(did|does|has|have) not (been )?converged?\b|(failed|unable) to converge\b|\bnot converged\b"
    r"|convergence (was |is |has )?(not|failure|failed)\b|not reaching convergence"
)


def runs_code(calculator: Any) -> bool:
    """Return whether ASE runs the code of a calculator in a way that can be replaced."""
    kinds = FileIOCalculator | GenericFileIOCalculator
    return isinstance(calculator, kinds) and isinstance(calculator.profile.command, str)


def is_configured_by_ase(calculator: Any) -> bool:
    """Return whether a calculator takes its command from ASE's configuration file alone."""
    return isinstance(calculator, GenericFileIOCalculator)


@dataclass
class Outside:
    """Stands in for what runs the code of one ASE calculator (its profile).

    Attributes:
        calculator: The calculator, as ASE made it.
        launch: Where the ranks of its code run; None for a code that starts alone.
        has_run: Whether its code has run.

    Raises:
        ReferenceSetupError: If its command needs a shell, or its executable was not found.
    """

    calculator: Any
    launch: Launch | None = None
    has_run: bool = False

    def __post_init__(self) -> None:
        self._profile = self.calculator.profile
        key = _COMMAND_KEY
        if is_configured_by_ase(self.calculator):
            key = f"command in section [{self.calculator.name}] of ASE's configuration file"
        self.command = parse_command(self._profile.command, key)
        find_executable(self.command, {**os.environ, **self.command.environment}.get("PATH"))

    def go_to(self, folder: Path, *, time_limit_s: float) -> None:
        """Have the calculator work in a folder, and its code run there within the time limit."""
        if is_configured_by_ase(self.calculator):
            self.calculator.directory = folder
            self.calculator.profile = _GenericProfile(self, self._profile, folder, time_limit_s)
        else:
            self.calculator.directory = str(folder)
            self.calculator.profile = _Profile(self, self._profile.command, folder, time_limit_s)

    def execute(self, command: Command, folder: Path, time_limit_s: float) -> None:
        """Run a command of the calculator.

        Raises:
            NotConvergedError: If the code says that it has not converged.
            ReferenceFailure: If it failed otherwise; see `fff.external.run` and `Ended.check`.
        """
        if self.launch is not None:
            command = self.launch.put_before(command)
        ended = run(command, folder, environment=os.environ, time_limit_s=time_limit_s)
        self.has_run = True
        name = self.calculator.name
        if has_not_converged(folder, name, failed=ended.exit_code != 0):
            msg = f"{name} did not converge."
            raise NotConvergedError(msg, hint="The structure is set aside; see reference.parameters.")
        ended.check()
        if ended.exit_code:
            msg = f"{name} ended with exit code {ended.exit_code}."
            raise ReferenceFailure(msg, exit_code=ended.exit_code)

    def file_command(self) -> Command:
        """Return the command of a calculator that has a prefix for the names of its files."""
        prefix = self.calculator.prefix
        if isinstance(self._profile, StandardProfile):
            rules = self.calculator.fileio_rules
            words = [word.format(prefix=prefix) for word in (*self.command.arguments, *rules.extend_argv)]
            streams = {"stdin": rules.stdin_name, "stdout": rules.stdout_name}
            named = {key: name.format(prefix=prefix) for key, name in streams.items() if name}
            return replace(self.command, arguments=tuple(words), **named)
        stdin, stdout, stderr = (
            name.replace("PREFIX", prefix)
            for name in (self.command.stdin, self.command.stdout, self.command.stderr)
        )
        words = [word.replace("PREFIX", prefix) for word in self.command.arguments]
        return replace(self.command, arguments=tuple(words), stdin=stdin, stdout=stdout, stderr=stderr)


def has_not_converged(folder: Path, name: str, *, failed: bool) -> bool:
    """Return whether a code says so in what it wrote.

    Args:
        folder: Its work directory.
        name: The name of its calculator.
        failed: Whether it failed; then any words to that effect count, else only those known of it.
    """
    known = _SAYS_SO.get(name)
    if not failed and known is None:
        return False
    pattern = re.compile(_MAY_SAY_SO if failed else str(known), re.IGNORECASE)
    files = [path for path in folder.iterdir() if path.is_file()]
    return any(pattern.search(tail(path, _SEARCHED_BYTES)) for path in files)


@dataclass
class _Profile:
    """In the place of the profile of a `FileIOCalculator`."""

    outside: Outside
    command: str
    folder: Path
    time_limit_s: float

    def execute(self, _calculator: Any) -> None:
        self.outside.execute(self.outside.file_command(), self.folder, self.time_limit_s)


class _GenericProfile:
    """In the place of the profile of a `GenericFileIOCalculator`, which it otherwise is."""

    def __init__(self, outside: Outside, profile: Any, folder: Path, time_limit_s: float) -> None:
        self._outside = outside
        self._profile = profile
        self._folder = folder
        self._time_limit_s = time_limit_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._profile, name)

    def run(
        self,
        directory: Path,  # noqa: ARG002 - the signature of ASE's profiles; the folder is known
        inputfile: str | None,
        outputfile: str,
        errorfile: str | None = None,
        append: bool = False,  # noqa: ARG002 - as above; a new folder holds nothing
    ) -> None:
        command = self._outside.command
        words = (*command.arguments, *self._profile.get_calculator_command(inputfile))
        command = replace(command, arguments=words, stdout=outputfile, stderr=errorfile or command.stderr)
        self._outside.execute(command, self._folder, self._time_limit_s)


@contextmanager
def without_blanks(folder: Path) -> Iterator[Path]:
    """Give a path to a folder without blanks, which end a word in the input of many codes."""
    if not re.search(r"\s", str(folder)):
        yield folder
        return
    above = Path(mkdtemp(prefix="fff-"))
    link = above / "work"
    try:
        link.symlink_to(folder, target_is_directory=True)
        yield link
    finally:
        link.unlink(missing_ok=True)
        above.rmdir()
