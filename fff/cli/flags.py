"""The flags with which `fff run` and `fff check` change single keys of a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CommitteeSize",
    "ConfigFile",
    "MaxLabels",
    "Override",
    "Reference",
    "RetrainEvery",
    "RunDir",
    "Seed",
    "SiteKind",
    "changes",
]

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; `fff init` writes one.")]
MaxLabels = Annotated[str | None, typer.Option(help="Labels made at most (stop.max_labels).", metavar="N")]
CommitteeSize = Annotated[
    str | None, typer.Option(help="Members of the committee (committee.size).", metavar="N")
]
RetrainEvery = Annotated[
    str | None, typer.Option(help="New labels per training round (training.retrain_every).", metavar="N")
]
Reference = Annotated[
    str | None,
    typer.Option(help="Reference method: xtb, xtb-cli, pyscf, ase (reference.kind).", metavar="KIND"),
]
SiteKind = Annotated[
    str | None, typer.Option(help="Machine: laptop, workstation, slurm, pbs (site.kind).", metavar="KIND")
]
Seed = Annotated[str | None, typer.Option(help="Everything random follows from it (seed).", metavar="N")]
RunDir = Annotated[
    Path | None, typer.Option(help="Where everything is written; runs/<name> by default.", metavar="DIR")
]
Override = Annotated[
    list[str] | None,
    typer.Option("-o", help="Any other key, as in -o sampling.n_steps=400; repeatable.", metavar="KEY=VALUE"),
]

_KEYS = {
    "max_labels": "stop.max_labels",
    "committee_size": "committee.size",
    "retrain_every": "training.retrain_every",
    "reference": "reference.kind",
    "site": "site.kind",
    "seed": "seed",
    "run_dir": "run_dir",
    "temperature": "sampling.temperature_K",
    "thermostat": "sampling.thermostat",
    "timestep": "sampling.timestep_fs",
    "stop_deviation": "sampling.stop_deviation_eV_per_A",
}


def changes(given: Mapping[str, str | Path | None]) -> dict[str, tuple[str, Any]]:
    """Return the keys that flags set, each with the flag and the value.

    Args:
        given: Values by name of the command's argument; None where a flag was not given.
    """
    return {
        _KEYS[name]: (f"--{name.replace('_', '-')}", _value(name, value))
        for name, value in given.items()
        if value is not None
    }


def _value(name: str, value: str | Path) -> int | float | str:
    """Return a number where it is one; the config then says which key, value and bound do not fit."""
    if name in ("reference", "site", "run_dir", "thermostat"):
        return str(value)
    for kind in (int, float):
        try:
            return kind(str(value))
        except ValueError:
            continue
    return str(value)
