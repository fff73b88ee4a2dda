"""`fff train`: a committee, or one model, from labels that are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fff.cli.border import STOPPED, Border
from fff.cli.ending import again, conclude, table
from fff.cli.flags import CommitteeSize, Override, Seed, changes
from fff.cli.options import AsJson, Config, Quiet
from fff.cli.progress import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fff.steps.training import Trained

__all__ = ["train"]

_meV_PER_eV = 1000.0
_SINGLE = "1"


def train(
    labels: Annotated[
        list[str],
        typer.Argument(
            metavar="LABELS",
            help="Files with energies and forces (file@:100 for some), databases, run directories.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder of the committee; a training left there goes on.", metavar="DIR")
    ] = Path("committee"),
    test: Annotated[
        str | None, typer.Option(help="Labels to test on; nothing is trained on them.", metavar="FILE")
    ] = None,
    committee_size: CommitteeSize = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Also train on so many labels, for the error over their number.", metavar="N,N,..."
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Model or committee to fine-tune (model.start).", metavar="MODEL")
    ] = None,
    config: Config = None,
    override: Override = None,
    seed: Seed = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a committee on labels. With --committee-size 1 it is one model. Run again, it goes on."""
    flags = {
        "labels": ("LABELS", list(labels)),
        "model.start": ("--start", start),
        # A campaign's committee has two at least; a single model is a matter of this command alone.
        **changes({"committee_size": None if committee_size == _SINGLE else committee_size, "seed": seed}),
    }
    with Border() as border:
        from fff.cli.progress import progress
        from fff.steps.interruption import Interruption
        from fff.steps.settings import load_settings
        from fff.steps.training import train_committee

        loaded = load_settings(config, override or [], flags)
        border.started = True
        with progress("Training", "epochs", quiet=quiet) as tell, Interruption(note) as interruption:
            trained = train_committee(
                list(labels),
                loaded,
                output,
                n_members=1 if committee_size == _SINGLE else loaded.config.committee.size,
                test=test,
                sizes=_sizes(sizes),
                tell=tell,
                interruption=interruption,
            )
        _end(trained, as_json=as_json)


def _sizes(text: str | None) -> list[int]:
    from fff.base.errors import ConfigError

    try:
        return [] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        msg = f"`--sizes {text}` is no list of numbers."
        raise ConfigError(msg, hint="Write for example 100,300,1000.", key="--sizes", value=text) from None


def _end(trained: Trained, *, as_json: bool) -> NoReturn:
    values: dict[str, Any] = {
        "state": "stopped" if trained.is_stopped else "finished",
        "output": trained.folder,
        "n_labels": trained.n_labels,
        "members": trained.members,
        "test": trained.test,
        "test_by_n_labels": trained.by_size,
        "figures": trained.figures,
        "warnings": trained.warnings,
    }
    if trained.is_stopped:
        last = f"Stopped: {trained.n_done} of {trained.n_jobs} members are done. Go on with: {again()}"
        conclude("", last, STOPPED, values if as_json else None)
    for warning in trained.warnings:
        note(f"Warning: {warning}")
    what = f"a committee of {len(trained.members)}" if len(trained.members) > 1 else "one model"
    text = [
        f"Trained {what} on {trained.n_labels} labels; errors of forces, MAE in meV/Å",
        "",
        table([_HEADING, *(_row(i, member) for i, member in enumerate(trained.members))]),
        "",
        *_test(trained),
        f"Figures: {', '.join(str(path) for path in trained.figures)}",
    ]
    last = f"Finished: {what} is in {trained.folder}; fff evaluate, fff md and fff.calculator take it"
    conclude("\n".join(text), last, 0, values if as_json else None)


_HEADING = [
    "",
    "epochs",
    "best epoch",
    "time (s)",
    "labels",
    "training",
    "left out",
    "validation",
    "ended by",
]


def _row(index: int, member: dict[str, Any]) -> list[str]:
    return [
        f"member-{index}",
        str(member["epochs"]),
        str(member["best_epoch"]),
        f"{member['wall_s']:.0f}",
        str(member["n_train"]),
        _error(member["train_force_mae_eV_per_A"]),
        str(member["n_validation"]),
        _error(member["validation_force_mae_eV_per_A"]),
        member["stop_reason"],
    ]


def _error(error_eV: float | None) -> str:
    return "-" if error_eV is None else f"{_meV_PER_eV * error_eV:.1f}"


def _test(trained: Trained) -> Sequence[str]:
    if trained.test is None:
        told = (
            "No test set was given; validation errors also decide when to stop, so they are no test errors."
        )
        return [told, ""]
    rows = [["test set", "force MAE", "95 % interval", "force RMSE", "energy MAE (meV/atom)"]]
    for size, errors in sorted(trained.by_size.items()):
        interval = errors["force_mae_interval_meV_per_A"]
        rows.append(
            [
                f"{size} labels",
                f"{errors['force_mae_meV_per_A']:.1f}",
                "not known" if interval is None else f"{interval[0]:.1f} - {interval[1]:.1f}",
                f"{errors['force_rmse_meV_per_A']:.1f}",
                f"{errors['energy_mae_meV_per_atom']:.2f}",
            ]
        )
    n_structures = trained.test["n_structures"]
    baseline = trained.test["mean_force_mae_meV_per_A"]
    told = f"On {n_structures} test structures; the mean force everywhere would give {baseline:.1f} meV/Å."
    return [table(rows), told, ""]
