"""`fff label`: energies and forces of structures by a reference method, into a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fff.cli.border import FAILED, STOPPED, Border
from fff.cli.ending import again, conclude
from fff.cli.flags import Override, Reference, Seed, changes
from fff.cli.options import AsJson, Config, Quiet

if TYPE_CHECKING:
    from fff.steps.labelling import Labelled

__all__ = ["label"]

_MOST_FAILURES = 10


def label(
    structures: Annotated[
        list[str],
        typer.Argument(
            metavar="STRUCTURES",
            help="Files that ASE reads (file@0:10 for some frames), folders, molecule:NAME, cluster:H2O:6 …",
        ),
    ],
    reference: Reference = None,
    output: Annotated[
        Path, typer.Option(help="Database of labels; made, or added to.", metavar="FILE")
    ] = Path("labels.db"),
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Calculations at a time; one for each core by default.", metavar="N"),
    ] = None,
    config: Config = None,
    override: Override = None,
    seed: Seed = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Label structures with energies and forces. Run again, it goes on; failed ones are tried again."""
    flags = {
        "structures": ("STRUCTURES", list(structures)),
        **changes({"reference": reference, "seed": seed}),
    }
    with Border() as border:
        from fff.cli.progress import note, progress
        from fff.steps.interruption import Interruption
        from fff.steps.labelling import label_structures
        from fff.steps.settings import load_settings

        settings = load_settings(config, override or [], flags, uses=["structures", "reference"]).config
        border.started = True
        with progress("Labelling", "structures", quiet=quiet) as tell, Interruption(note) as interruption:
            labelled = label_structures(
                settings.structures,
                settings,
                output,
                n_workers=workers,
                tell=tell,
                interruption=interruption,
            )
        _end(labelled, output, as_json=as_json)


def _end(labelled: Labelled, output: Path, *, as_json: bool) -> NoReturn:
    n_labels, n_failed = labelled.n_known + labelled.n_made, len(labelled.failed)
    each = f", {labelled.calculation_s / labelled.n_made:.2g} s each" if labelled.n_made else ""
    text = (
        f"{labelled.method}: {labelled.n_made} labels made{each}, {labelled.n_known} known before, "
        f"{n_failed} failed, of {labelled.n_structures} structures"
    )
    shown = [f"  {failed.name}: {failed.reason}" for failed in labelled.failed[:_MOST_FAILURES]]
    if n_failed > _MOST_FAILURES:
        shown.append(f"  and {n_failed - _MOST_FAILURES} more; --json lists all")
    if labelled.is_stopped:
        code, state = STOPPED, "stopped"
        last = f"Stopped: {n_labels} of {labelled.n_structures} labels are in {output}. Go on with: {again()}"
    elif n_failed:
        code, state = FAILED, "failed"
        missing = f"{n_failed} of {labelled.n_structures} structures have no label"
        last = f"Failed: {missing}; the others are in {output}"
    else:
        code, state = 0, "finished"
        last = f"Finished: {n_labels} labels in {output}; train on them with: fff train {output}"
    values = {
        "state": state,
        "method": labelled.method,
        "output": output,
        "n_structures": labelled.n_structures,
        "n_known": labelled.n_known,
        "n_made": labelled.n_made,
        "calculation_s": labelled.calculation_s,
        "failed": [{"structure": failed.name, "reason": failed.reason} for failed in labelled.failed],
    }
    conclude("\n".join([text, *shown]), last, code, values if as_json else None)
