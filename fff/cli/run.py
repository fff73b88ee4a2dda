"""`fff run` and `fff resume`: carry a campaign out, go on with one, or show what would be done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fff.cli.border import Border
from fff.cli.flags import (
    CommitteeSize,
    ConfigFile,
    MaxLabels,
    Override,
    Reference,
    RetrainEvery,
    RunDir,
    Seed,
    SiteKind,
    changes,
)
from fff.cli.live import LiveView, is_terminal, tell

if TYPE_CHECKING:
    from fff.base.allocation import Allocation
    from fff.config import LoadedConfig

__all__ = ["resume", "run"]

AFTERWARDS_S = 30.0
"""What is left of a job after fff, in seconds, for its batch script to submit the next one."""

Accept = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Go on with a changed config, as far as a campaign in progress can take it.",
    ),
]
Walltime = Annotated[
    str | None,
    typer.Option(
        help=(
            "Stop in order before this time is over: 90s, 30m, 2h, 1d or 1:30:00. In a job of Slurm or PBS "
            "the end of the job counts too."
        ),
        metavar="TIME",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, show every value and its source, do nothing.")
]


def run(
    config: ConfigFile,
    max_labels: MaxLabels = None,
    committee_size: CommitteeSize = None,
    retrain_every: RetrainEvery = None,
    reference: Reference = None,
    site: SiteKind = None,
    seed: Seed = None,
    run_dir: RunDir = None,
    walltime: Walltime = None,
    accept_changes: Accept = False,
    dry_run: DryRun = False,
    override: Override = None,
) -> None:
    """Run an active-learning campaign, which trains a force field. Run again, it goes on."""
    began = time.monotonic()
    given = {
        "max_labels": max_labels,
        "committee_size": committee_size,
        "retrain_every": retrain_every,
        "reference": reference,
        "site": site,
        "seed": seed,
        "run_dir": run_dir,
    }
    with Border() as border:
        from fff.config import load_config

        loaded = load_config(config, override or [], flags=changes(given))
        outcome = carry_out(
            loaded, border, accept_changes=accept_changes, dry_run=dry_run, walltime_end=_end(began, walltime)
        )
    finish(*outcome)


def resume(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a campaign that was left.")],
    walltime: Walltime = None,
    accept_changes: Accept = False,
    dry_run: DryRun = False,
    override: Override = None,
) -> None:
    """Go on with a campaign where it was left, however it was left."""
    began = time.monotonic()
    with Border() as border:
        from fff.campaigns.resuming import config_of
        from fff.data.run_directory import RunDirectory

        run = RunDirectory.at(run_dir)
        border.run_dir = None if dry_run else run.path
        run.check()
        loaded = config_of(run, override or [])
        outcome = carry_out(
            loaded, border, accept_changes=accept_changes, dry_run=dry_run, walltime_end=_end(began, walltime)
        )
    finish(*outcome)


def _end(began: float, walltime: str | None) -> float | None:
    """Return when this process must be over, on the clock `time.monotonic` (s)."""
    from fff.base.durations import seconds

    return None if walltime is None else began + seconds(walltime, "--walltime")


def _earlier(walltime_end: float | None, allocation: Allocation | None) -> float | None:
    """Return when this process must be over if it is to be over before the job that it runs in."""
    if allocation is None or allocation.left_s is None:
        return walltime_end
    job_end = time.monotonic() + allocation.left_s - AFTERWARDS_S
    return job_end if walltime_end is None else min(walltime_end, job_end)


def finish(message: str, code: int) -> NoReturn:
    """Print the last line and exit.

    Raises:
        typer.Exit: Always.
    """
    tell(message)
    raise typer.Exit(code)


def carry_out(
    loaded: LoadedConfig,
    border: Border,
    *,
    accept_changes: bool,
    dry_run: bool,
    walltime_end: float | None,
) -> tuple[str, int]:
    """Carry a campaign out, or show what would be done; return the last line and the exit code."""
    from fff.base.allocation import find_allocation
    from fff.campaigns.running import open_campaign
    from fff.cli import screen

    border.run_dir = None if dry_run else loaded.run_dir
    if dry_run:
        return _dry_run(loaded, accept_changes=accept_changes)
    allocation = find_allocation()
    walltime_end = _earlier(walltime_end, allocation)
    with open_campaign(loaded, accept_changes=accept_changes, say=tell) as campaign:
        if allocation is None:
            # Left for the next job of a batch system; who starts a campaign by hand wants it to go on.
            campaign.run.stop_file.unlink(missing_ok=True)
        tell(f"{screen.first_screen(campaign, allocation)}\n")
        border.started = True
        if is_terminal():
            with LiveView(campaign.run) as view:
                outcome = campaign.carry_out(say=view.say, show=view.show, walltime_end=walltime_end)
        else:
            outcome = campaign.carry_out(say=tell, walltime_end=walltime_end)
    if outcome.table:
        tell(f"\n{outcome.table.strip()}\n")
    if outcome.report:
        tell(outcome.report)
    return outcome.message, outcome.exit_code


def _dry_run(loaded: LoadedConfig, *, accept_changes: bool) -> tuple[str, int]:
    from fff.campaigns.inputs import load_inputs
    from fff.campaigns.running import look_at
    from fff.cli import screen
    from fff.data.run_directory import RunDirectory

    run = RunDirectory(loaded.run_dir)
    if run.is_opened:
        resumption = look_at(run, loaded, accept_changes=accept_changes)
        tell(screen.values(resumption.loaded))
        tell("")
        tell(screen.where_it_is(run, resumption))
        for note in screen.notes(resumption):
            tell(f"\n{note}")
        tell("")
        _tell_scripts(resumption.loaded)
        return "Dry run: everything was checked, nothing was written.", 0
    inputs = load_inputs(loaded, relax=False)
    tell(screen.values(inputs.loaded))
    tell("")
    tell(screen.found(inputs))
    tell("")
    tell(screen.beginning(inputs))
    tell("")
    _tell_scripts(inputs.loaded)
    return "Dry run: everything was checked, nothing was written.", 0


def _tell_scripts(loaded: LoadedConfig) -> None:
    from fff.cli import screen

    if text := screen.scripts(loaded):
        tell(f"{text}\n")
