"""Which reference methods can use several slots, and which codes of ASE the launch line of the site starts.

Three kinds of code. Most start alone, as one process or as one rank of an MPI launcher: `fff.external` runs
them, with the launch line before their command. Some are run by ASE itself, with a command among their
parameters: the line goes into it. And some start processes or threads of their own, as their input says: a
launch line would start the whole calculation several times.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ase.calculators.names import builtin

from fff.base.cores import cores_found
from fff.base.errors import ReferenceSetupError
from fff.config.site import BatchSite
from fff.external import Launch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fff.config.site import SiteSection

__all__ = [
    "check_code_can_use",
    "check_method_can_use",
    "is_launched",
    "launch_outside_campaign",
    "launch_unless_self_starting",
    "parameters_with_launch",
]

_RUN_BY_ASE = {"castep": "castep_command", "cp2k": "command", "lammpsrun": "command", "vasp": "command"}
"""Codes that only ASE can run, and the parameter with their command."""

_START_THEIR_OWN = {
    "dmol": "the processes that its command starts",
    "gamess_us": "the processes that its command starts",
    "gaussian": "`nprocshared` in reference.parameters",
    "mopac": "its keyword THREADS",
    "orca": "`orcablocks: '%pal nprocs 8 end'` in reference.parameters",
    "qchem": "`np` and `nt` in reference.parameters",
    "turbomole": "its variable PARNODES",
}
"""Codes that start their processes themselves, and what says how many."""


def launch_outside_campaign(site: SiteSection, *, slots: int = 1, cores: int = 1) -> Launch | None:
    """Return what starts a code that fff calculates with outside a campaign, on the machine it runs on.

    On the login node of a cluster nothing does: `srun` would ask for a job, and wait for it.

    Args:
        site: The section `site`.
        slots: How many slots; one on a cluster, whose others are on nodes that are not given here.
        cores: Cores of a slot, as the site gives them; on a cluster no more of them than this job has here.
    """
    if not isinstance(site, BatchSite):
        return Launch.on_this_machine(site.mpi_launch, slots, cores)
    is_in_job = bool({"SLURM_JOB_ID", "PBS_JOBID"} & os.environ.keys())
    return Launch.on_this_machine(site.mpi_launch, 1, min(cores, cores_found())) if is_in_job else None


def is_launched(settings: Mapping[str, Any]) -> bool:
    """Return whether the launch line of a site starts a reference method; that of a code unknown here does.

    Args:
        settings: The section `reference`, as JSON.
    """
    calculator = settings.get("calculator")
    return settings.get("kind") == "ase" and calculator not in {*builtin, *_START_THEIR_OWN}


def check_method_can_use(settings: Mapping[str, Any], launch: Launch | None) -> None:
    """Check that a reference method can use the slots of a calculation.

    Args:
        settings: The section `reference`, as JSON.
        launch: The slots.

    Raises:
        ReferenceSetupError: If it is a library, or a program that does not know MPI, and there are several.
    """
    kind, calculator = settings.get("kind"), settings.get("calculator")
    if kind != "ase":
        _check(f"reference.kind is {kind}", launch, "choose a reference that runs under MPI")
    elif calculator in builtin:
        _check(f"reference.calculator is {calculator}", launch, "choose a code that runs under MPI")


def check_code_can_use(name: str, launch: Launch | None, *, is_run_here: bool) -> None:
    """Check that a code of ASE can use the slots of a calculation.

    Args:
        name: Name of the calculator.
        launch: The slots.
        is_run_here: Whether `fff.external` runs it.

    Raises:
        ReferenceSetupError: If there are several, and it is not started by an MPI launcher.
    """
    if name in _START_THEIR_OWN:
        repair = f"say how many processes it starts by {_START_THEIR_OWN[name]}"
        _check(f"reference.calculator is {name}", launch, repair)
    elif not is_run_here and name not in _RUN_BY_ASE:
        _check(f"reference.calculator is {name}", launch, "choose a code that runs under MPI")


def launch_unless_self_starting(name: str, launch: Launch | None) -> Launch | None:
    """Return what starts a code of ASE that fff runs: nothing where it starts its processes itself."""
    return None if name in _START_THEIR_OWN else launch


def parameters_with_launch(name: str, parameters: Mapping[str, Any], launch: Launch | None) -> dict[str, Any]:
    """Return the parameters of a calculator, with the launch line in its command where ASE itself runs it.

    Raises:
        ReferenceSetupError: If the command is not among the parameters, or cannot be launched.
    """
    if launch is None or launch.line is None or name not in _RUN_BY_ASE:
        return dict(parameters)
    parameter = _RUN_BY_ASE[name]
    key = f"reference.parameters.{parameter}"
    if not isinstance(command := parameters.get(parameter), str):
        msg = f"{name} is started by ASE, and {key}, which site.mpi_launch would go before, is not given."
        raise ReferenceSetupError(msg, hint=f"Give {key}, without a launcher.", key=key, value=command)
    return {**parameters, parameter: launch.as_shell_text(command, key)}


def _check(what: str, launch: Launch | None, repair: str) -> None:
    if launch is not None and launch.slots > 1:
        raise ReferenceSetupError(
            f"{what}, which site.mpi_launch cannot start on several slots; a calculation has {launch.slots}.",
            hint=f"Leave calculation.nodes_by_size out, or {repair}.",
            slots=launch.slots,
        )
