"""`fff run`: carry a campaign out, or show what would be done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fff.cli.border import Border

if TYPE_CHECKING:
    from fff.config import LoadedConfig

__all__ = ["run"]


def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; presets are in configs/.")],
    max_labels: Annotated[
        str | None, typer.Option(help="Labels made at most (stop.max_labels).", metavar="N")
    ] = None,
    committee_size: Annotated[
        str | None, typer.Option(help="Members of the committee (committee.size).", metavar="N")
    ] = None,
    retrain_every: Annotated[
        str | None, typer.Option(help="New labels per training round (training.retrain_every).", metavar="N")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Reference method: xtb, pyscf, ase (reference.kind).", metavar="KIND")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Machine: laptop, workstation (site.kind).", metavar="KIND")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="Everything random follows from it (seed).", metavar="N")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where everything is written; runs/<name> by default.", metavar="DIR")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show every value and its source, do nothing.")
    ] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", help="Any other key, as in -o sampling.n_steps=400; repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
) -> None:
    """Run an active-learning campaign: structures in, a trained force field out."""
    given = {
        "stop.max_labels": ("--max-labels", _number(max_labels)),
        "committee.size": ("--committee-size", _number(committee_size)),
        "training.retrain_every": ("--retrain-every", _number(retrain_every)),
        "reference.kind": ("--reference", reference),
        "site.kind": ("--site", site),
        "seed": ("--seed", _number(seed)),
        "run_dir": ("--run-dir", str(run_dir) if run_dir else None),
    }
    flags = {key: (flag, value) for key, (flag, value) in given.items() if value is not None}
    with Border() as border:
        from fff.config import load_config

        loaded = load_config(config, override or [], flags=flags)
        border.run_dir = loaded.run_dir
        message, code = _dry_run(loaded) if dry_run else _carry_out(loaded, border)
    typer.echo(message)
    raise typer.Exit(code)


def _number(text: str | None) -> int | float | str | None:
    """Return a number where it is one; the config then says which key, value and bound do not fit."""
    for kind in (int, float):
        try:
            return None if text is None else kind(text)
        except ValueError:
            continue
    return text


def _dry_run(loaded: LoadedConfig) -> tuple[str, int]:
    from fff.campaigns.inputs import load_inputs
    from fff.cli import screen

    inputs = load_inputs(loaded, relax=False)
    loaded = inputs.loaded
    typer.echo(screen.values(loaded))
    typer.echo("")
    typer.echo(screen.found(inputs))
    typer.echo("")
    typer.echo(screen.first_screen(loaded, inputs))
    typer.echo("")
    return "Dry run: everything was checked, nothing was written.", 0


def _carry_out(loaded: LoadedConfig, border: Border) -> tuple[str, int]:
    from fff.campaigns.inputs import load_inputs
    from fff.campaigns.running import run_campaign
    from fff.cli import screen

    inputs = load_inputs(loaded)
    loaded = inputs.loaded
    typer.echo(screen.first_screen(loaded, inputs))
    typer.echo("")
    border.started = True
    outcome = run_campaign(inputs, say=typer.echo)
    if outcome.table:
        typer.echo(f"\n{outcome.table.strip()}\n")
    return outcome.message, outcome.exit_code
