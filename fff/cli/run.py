"""`fff run`: carry a campaign out, or show what would be done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fff.cli.border import Border

if TYPE_CHECKING:
    from fff.config import LoadedConfig

__all__ = ["run"]


def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; presets are in configs/.")],
    max_labels: Annotated[
        int | None, typer.Option(help="Labels made at most (stop.max_labels).", metavar="N")
    ] = None,
    committee_size: Annotated[
        int | None, typer.Option(help="Members of the committee (committee.size).", metavar="N")
    ] = None,
    retrain_every: Annotated[
        int | None, typer.Option(help="New labels per training round (training.retrain_every).", metavar="N")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Reference method: xtb, pyscf, ase (reference.kind).", metavar="KIND")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Machine: laptop, workstation (site.kind).", metavar="KIND")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Everything random follows from it (seed).", metavar="N")
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
        "stop.max_labels": ("--max-labels", max_labels),
        "committee.size": ("--committee-size", committee_size),
        "training.retrain_every": ("--retrain-every", retrain_every),
        "reference.kind": ("--reference", reference),
        "site.kind": ("--site", site),
        "seed": ("--seed", seed),
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


def _dry_run(loaded: LoadedConfig) -> tuple[str, int]:
    from fff.cli import screen
    from fff.cli.checks import check_inputs

    inputs = check_inputs(loaded)
    typer.echo(screen.values(loaded))
    typer.echo("")
    typer.echo(screen.found(inputs))
    typer.echo("")
    typer.echo(screen.first_screen(loaded, inputs))
    typer.echo("")
    return "Dry run: everything was checked, nothing was written.", 0


def _carry_out(loaded: LoadedConfig, border: Border) -> tuple[str, int]:
    from fff.cli import screen
    from fff.cli.checks import check_inputs

    inputs = check_inputs(loaded)
    typer.echo(screen.first_screen(loaded, inputs))
    typer.echo("")
    outcome: Any = _run_campaign(loaded, border)
    return screen.last_line(outcome.state, outcome.message), int(outcome.exit_code)


def _run_campaign(loaded: LoadedConfig, border: Border) -> Any:
    from fff.campaigns import run_campaign

    border.started = True
    return run_campaign(loaded, loaded.run_dir)
