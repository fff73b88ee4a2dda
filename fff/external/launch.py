"""Where the ranks of an external code run, and the command of the site that starts them there."""

from __future__ import annotations

import os
import platform
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fff.base.cores import THREAD_VARIABLES
from fff.base.errors import ConfigError, ReferenceSetupError
from fff.base.launch_line import check_launch_line, fill, placeholders_in
from fff.external.command import Command, parse_command
from fff.external.evidence import STDERR, STDOUT
from fff.external.surroundings import environment_of_code

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Launch"]

_KEY = "site.mpi_launch"
_LAUNCHERS = {"mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prun", "srun", "aprun", "jsrun", "ibrun"}
_EXAMPLE = "for example to: mpiexec -n {ranks}"


@dataclass(frozen=True)
class Launch:
    """Slots of a calculation, and the command that starts a code on them.

    Attributes:
        line: The launch line of the site, with placeholders; None where codes are started alone.
        hosts: The host of each slot.
        cores: Cores of a slot.
    """

    line: str | None
    hosts: tuple[str, ...]
    cores: int = 1

    @classmethod
    def on_this_machine(cls, line: str | None, slots: int = 1, cores: int = 1) -> Launch:
        """Return slots of this machine."""
        # Of a cluster's nodes some have another name than their batch system calls them by.
        host = os.environ.get("SLURMD_NODENAME") or platform.node()
        return cls(line, (host,) * slots, cores)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Launch:
        """Return what `as_json` described."""
        return cls(values["line"], tuple(values["hosts"]), values["cores"])

    def as_json(self) -> dict[str, Any]:
        """Return it for another process."""
        return {"line": self.line, "hosts": list(self.hosts), "cores": self.cores}

    @property
    def slots(self) -> int:
        """How many slots."""
        return len(self.hosts)

    def as_shell_text(self, text: str, key: str) -> str:
        """Return a command with the launch line before it, as text for a shell: ASE itself starts some codes.

        Args:
            text: The command.
            key: Key of the config that it comes from.

        Raises:
            ReferenceSetupError: As `put_before` and `parse_command` do.
        """
        command = self.put_before(parse_command(text, key))
        kept = environment_of_code(os.environ)
        gone = [word for name in os.environ if name not in kept for word in ("-u", name)]
        changed = {name: value for name, value in kept.items() if value != os.environ.get(name)}
        given = [f"{name}={value}" for name, value in {**changed, **command.environment}.items()]
        words = shlex.join(["env", *gone, *given, *command.launcher, *command.arguments])
        streams = (
            ("<", command.stdin, os.devnull),
            (">", command.stdout, STDOUT),
            ("2>", command.stderr, STDERR),
        )
        return " ".join(
            [words, *(f"{sign} {shlex.quote(file)}" for sign, file, usual in streams if file != usual)]
        )

    def put_before(self, command: Command) -> Command:
        """Return a command with the launch line before it; the same where there is no line.

        A rank has one thread, unless the launch line or the command sets `OMP_NUM_THREADS`, or what else a
        library reads.

        Raises:
            ReferenceSetupError: If there are several slots and no line that could use them, if the line has
                unknown placeholders, or needs a shell, or if the command has a launcher already.
        """
        self.check()
        if self.line is None:
            return command
        if Path(command.arguments[0]).name in _LAUNCHERS:
            msg = f"{command.key} begins with {command.arguments[0]}, and {_KEY} is given too."
            raise ReferenceSetupError(msg, hint=f"Leave one of them out; {_KEY} follows the number of slots.")
        launcher = parse_command(self._filled(self.line), _KEY)
        threads = dict.fromkeys(THREAD_VARIABLES, "1")
        environment = {**threads, **launcher.environment, **command.environment}
        return replace(command, launcher=launcher.arguments, environment=environment)

    def check(self) -> None:
        """Check that the launch line can use the slots.

        A line without a placeholder starts the same ranks for every calculation, so it serves calculations of
        one slot alone; one that names neither hosts nor their number would put all ranks on the first.

        Raises:
            ReferenceSetupError: If it cannot.
        """
        if self.line is None:
            if self.slots > 1:
                msg = f"A calculation has {self.slots} slots, but {_KEY} is not set."
                raise ReferenceSetupError(msg, hint=f"Set it, {_EXAMPLE}.", key=_KEY, value=None)
            return
        try:
            check_launch_line(self.line, _KEY)
        except ConfigError as error:
            raise ReferenceSetupError(error.message, hint=error.hint, **error.context) from error
        names = placeholders_in(self.line)
        if self.slots > 1 and not names:
            raise self._refused(f"a calculation has {self.slots} slots, and nothing in it says so")
        n_nodes = len(set(self.hosts))
        if n_nodes > 1 and names == {"ranks"}:
            raise self._refused(f"a calculation has {n_nodes} nodes, and nothing in it says so")

    def _filled(self, line: str) -> str:
        by_host = Counter(self.hosts)
        return fill(
            line,
            {
                "ranks": self.slots * self.cores,
                "nodes": len(by_host),
                "hosts": ",".join(by_host),
                "hosts_and_ranks": ",".join(f"{host}:{n * self.cores}" for host, n in by_host.items()),
            },
        )

    def _refused(self, reason: str) -> ReferenceSetupError:
        return ReferenceSetupError(
            f"{_KEY} is {self.line!r}, but {reason}.",
            hint="Give {ranks}, and {hosts} or {nodes} where calculations run across nodes.",
            key=_KEY,
            value=self.line,
        )
