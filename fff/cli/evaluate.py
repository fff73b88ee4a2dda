"""`fff evaluate`: how wrong a model is on labels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fff.cli.border import STOPPED, Border
from fff.cli.ending import again, conclude, table
from fff.cli.options import AsJson, Quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fff.steps.evaluation import Evaluated

__all__ = ["evaluate"]

_MOST_SOURCES = 20
_SHIFTED = 0.2
_LARGE = 20.0
_ENOUGH_TO_TIME = 50


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Run directory, folder of a training, a round or a member."),
    ],
    labels: Annotated[
        list[str],
        typer.Argument(
            metavar="LABELS",
            help="Files with energies and forces (file@::10 for some), databases, run directories.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for figure and numbers; a new `evaluation` by default.", metavar="DIR"),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a model on labels. Errors per element and per source, a parity figure, each structure's."""
    with Border() as border:
        from fff.cli.progress import progress
        from fff.steps.evaluation import evaluate_model
        from fff.steps.outputs import free_folder

        folder = free_folder(output, Path("evaluation"))
        border.started = True
        try:
            with progress("Evaluating", "structures", quiet=quiet) as tell:
                evaluated = evaluate_model(model, labels, folder, tell=tell)
        except KeyboardInterrupt:
            last = f"Stopped: nothing was written. Begin again with: {again()}"
            conclude("", last, STOPPED, {"state": "stopped"} if as_json else None)
        _end(evaluated, as_json=as_json)


def _end(evaluated: Evaluated, *, as_json: bool) -> NoReturn:
    what = f"a committee of {evaluated.n_members}" if evaluated.n_members > 1 else "one model"
    n = evaluated.errors["n_structures"]
    text = [
        f"{what[0].upper()}{what[1:]} on {n} {'structure' if n == 1 else 'structures'}{_speed(evaluated)}",
        "",
        table(list(_errors(evaluated))),
        "",
        table(list(_elements(evaluated))),
        "",
        *_remarks(evaluated),
    ]
    last = f"Finished: parity.png, structures.csv and evaluation.json are in {evaluated.folder}"
    values: dict[str, Any] = {"state": "finished", **asdict(evaluated)}
    conclude("\n".join(text).rstrip(), last, 0, values if as_json else None)


def _speed(evaluated: Evaluated) -> str:
    """Return what a structure took; nothing of few, where it is what the libraries take to begin."""
    is_known = evaluated.errors["n_structures"] >= _ENOUGH_TO_TIME
    return f", {1000 * evaluated.s_per_structure:.1f} ms each" if is_known else ""


def _errors(evaluated: Evaluated) -> Iterator[list[str]]:
    yield ["", "structures", "force MAE", "95 % interval", "force RMSE", "energy MAE", "energy RMSE"]
    yield ["", "", "meV/Å", "meV/Å", "meV/Å", "meV/atom", "meV/atom"]
    yield ["all", *_row(evaluated.errors)]
    if len(evaluated.by_source) > 1:
        for source, errors in list(evaluated.by_source.items())[:_MOST_SOURCES]:
            yield [source, *_row(errors)]
    yield ["mean force", "", f"{evaluated.errors['mean_force_mae_meV_per_A']:.1f}", "", "", "", ""]


def _row(errors: dict[str, Any]) -> list[str]:
    interval = errors["force_mae_interval_meV_per_A"]
    return [
        str(errors["n_structures"]),
        f"{errors['force_mae_meV_per_A']:.1f}",
        "not known" if interval is None else f"{interval[0]:.1f} - {interval[1]:.1f}",
        f"{errors['force_rmse_meV_per_A']:.1f}",
        f"{errors['energy_mae_meV_per_atom']:.2f}",
        f"{errors['energy_rmse_meV_per_atom']:.2f}",
    ]


def _elements(evaluated: Evaluated) -> Iterator[list[str]]:
    yield ["element", "atoms", "force MAE", "force RMSE"]
    yield ["", "", "meV/Å", "meV/Å"]
    for symbol, errors in evaluated.by_element.items():
        mae, rmse = errors["force_mae_meV_per_A"], errors["force_rmse_meV_per_A"]
        yield [symbol, str(errors["n_atoms"]), f"{mae:.1f}", f"{rmse:.1f}"]


def _remarks(evaluated: Evaluated) -> Iterator[str]:
    mean_force = evaluated.errors["mean_force_mae_meV_per_A"]
    yield f"Mean force: what predicting the mean force everywhere would give, {mean_force:.1f} meV/Å."
    if evaluated.errors["force_mae_meV_per_A"] >= mean_force:
        yield "Warning: the model is not better than that; its forces are worth nothing here."
    yield _on_deviation(evaluated)
    if evaluated.n_trained_on:
        n = evaluated.errors["n_structures"]
        yield (
            f"Warning: {evaluated.n_trained_on} of these {n} structures were trained on: "
            f"this is not a test error."
        )
    elif evaluated.n_trained_on is None:
        yield "What the model was trained on is not known here; whether this is a test error, you must know."
    shifted = evaluated.errors["energy_mae_shifted_meV_per_atom"]
    mae = evaluated.errors["energy_mae_meV_per_atom"]
    # Constants for each element reproduce the energies of as many structures, whatever these are.
    are_enough = evaluated.errors["n_structures"] > len(evaluated.by_element)
    if are_enough and mae > _LARGE and shifted < _SHIFTED * mae:
        yield (
            f"Energies differ by constants for each element; without them their MAE would be {shifted:.2f} "
            f"meV/atom.\nAnother reference method than the model's? Or a model trained on one composition "
            f"alone,\nwhich cannot tell the energies of single atoms from each other?"
        )


def _on_deviation(evaluated: Evaluated) -> str:
    if evaluated.n_members == 1:
        return "One model has no deviation: what it does not know, it does not say."
    if evaluated.agreement is None:
        return "Too few structures to tell whether the committee's deviation ranks the errors."
    found = evaluated.agreement
    return (
        f"Deviation against largest force error: rank correlation {found['rank_correlation']:.2f};\n"
        f"{found['n_missed']} of the {found['n_large']} largest errors have a deviation below the median."
    )
