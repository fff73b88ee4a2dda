"""`fff md`: molecular dynamics with a trained model, which ends where the model does not know any more."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fff.cli.border import FAILED, STOPPED, Border
from fff.cli.ending import again, conclude
from fff.cli.flags import Override, Seed, changes
from fff.cli.options import AsJson, Config, Quiet

if TYPE_CHECKING:
    from fff.steps.dynamics import Moved

__all__ = ["md"]


class Driver(StrEnum):
    """What gives the forces."""

    MEAN = "mean"
    FIRST = "first"


def md(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Run directory, folder of a training, a round or a member."),
    ],
    structure: Annotated[
        str,
        typer.Argument(metavar="STRUCTURE", help="File (file@0; momenta are kept) or name, as molecule:H2O."),
    ],
    steps: Annotated[int, typer.Option(min=1, help="Steps to make.", metavar="N")] = 10_000,
    temperature: Annotated[
        str | None, typer.Option(help="Target temperature in K (sampling.temperature_K).", metavar="K")
    ] = None,
    thermostat: Annotated[
        str | None, typer.Option(help="langevin, nve or npt (sampling.thermostat).", metavar="KIND")
    ] = None,
    timestep: Annotated[
        str | None, typer.Option(help="Time step in fs (sampling.timestep_fs).", metavar="FS")
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Steps between two frames that are looked at and written.", metavar="N")
    ] = 10,
    driver: Annotated[
        Driver,
        typer.Option(help="Forces: mean of all members, or the first one's as in a campaign (faster)."),
    ] = Driver.MEAN,
    stop_deviation: Annotated[
        str | None,
        typer.Option(
            help="Force deviation in eV/Å that ends the run (sampling.stop_deviation_eV_per_A); by default "
            "the campaign's, or what the training found.",
            metavar="X",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Trajectory: .traj, or .xyz; table and figure lie beside it.", metavar="FILE")
    ] = Path("md.traj"),
    config: Config = None,
    override: Override = None,
    seed: Seed = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run dynamics with a model. Exit code 1 if it ended early, 3 if stopped: run again, it goes on."""
    flags = changes(
        {
            "temperature": temperature,
            "thermostat": thermostat,
            "timestep": timestep,
            "stop_deviation": stop_deviation,
            "seed": seed,
        }
    )
    with Border() as border:
        from fff.cli.progress import note, progress
        from fff.steps.dynamics import Course, move
        from fff.steps.interruption import Interruption
        from fff.steps.settings import load_settings

        loaded = load_settings(config, override or [], flags)
        border.started = True
        with progress("Dynamics", "steps", quiet=quiet) as tell, Interruption(note) as interruption:
            moved = move(
                model,
                structure,
                loaded,
                output,
                course=Course(steps, every, driver.value),
                tell=tell,
                interruption=interruption,
            )
        _end(moved, as_json=as_json)


def _end(moved: Moved, *, as_json: bool) -> NoReturn:
    text = [f"Ends above a deviation of: {_limit(moved)}"]
    if moved.max_deviation_eV_per_A is not None:
        text.append(f"Largest deviation: {moved.max_deviation_eV_per_A:.3g} eV/Å")
    if moved.drift_eV_per_atom_ps is not None and moved.scatter_eV_per_atom is not None:
        text.append(
            f"Total energy: drift {1000 * moved.drift_eV_per_atom_ps:.3g} meV/atom per ps, "
            f"scatter {1000 * moved.scatter_eV_per_atom:.3g} meV/atom"
        )
    text.append(f"Files: {', '.join(moved.files)}")
    code, last = {
        "finished": (0, f"Finished: {moved.sentence}"),
        "stopped": (STOPPED, f"Stopped: {moved.sentence} Go on with: {again()}"),
        "ended-early": (FAILED, f"Failed: {moved.sentence}"),
    }[moved.state]
    conclude("\n".join(text), last, code, asdict(moved) if as_json else None)


def _limit(moved: Moved) -> str:
    value = moved.threshold.value_eV_per_A
    if value is None:
        return f"none, {moved.threshold.source}; physical guards watch alone"
    return f"{value:.3g} eV/Å ({moved.threshold.source})"
