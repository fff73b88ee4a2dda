"""What a run says before and after: one sentence, the output as a tree, every value with its source."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fff.base.durations import duration
from fff.compute.sites import make_site
from fff.config.loading import DEFAULT
from fff.config.site import BatchSite
from fff.data.run_directory import CONTENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms

    from fff.base.allocation import Allocation
    from fff.campaigns.inputs import Inputs
    from fff.campaigns.resuming import Resumption
    from fff.campaigns.running import Campaign
    from fff.config import LoadedConfig
    from fff.config.site import SiteSection
    from fff.data.run_directory import RunDirectory

__all__ = ["beginning", "first_screen", "found", "notes", "scripts", "values", "where_it_is"]

# What the others hold is told of in the report.
_SHOWN = frozenset(
    {
        "report.html",
        "config.yaml",
        "provenance.json",
        "status.json",
        "events.jsonl",
        "run.log",
        "labels.db",
        "models/",
        "frames/",
        "inputs/",
    }
)
_MOST_FORMULAS = 4
_REPRESENTATIONS = {"painn": "PaiNN", "schnet": "SchNet"}


def first_screen(campaign: Campaign, allocation: Allocation | None = None) -> str:
    """Return what is said before a campaign begins or goes on."""
    job = [] if allocation is None else [_job(allocation)]
    if campaign.resumption is not None:
        return "\n".join([where_it_is(campaign.run, campaign.resumption), *job])
    assert campaign.inputs is not None  # noqa: S101 - for the type checker: a campaign begins or goes on
    return "\n".join([beginning(campaign.inputs), *job])


def _job(allocation: Allocation) -> str:
    """Return what is known of the job that this process runs in."""
    name = f"Job    {allocation.batch_system} job {allocation.job}"
    if allocation.problem:
        return f"{name}; when it ends is not known ({allocation.problem}): give --walltime to stop in time"
    if allocation.left_s is None:
        return f"{name}, which has no end"
    return f"{name} ends in {duration(allocation.left_s)}; the campaign stops in order before"


def where_it_is(run: RunDirectory, resumption: Resumption) -> str:
    """Return how far a campaign is that goes on."""
    config = resumption.loaded.config
    snapshot = resumption.policy.snapshot()
    labels, where = snapshot["labels"], _short(run.path)
    present = (
        "no committee yet" if snapshot["round"] is None else f"the committee of round {snapshot['round']}"
    )
    how_far = (
        f"Campaign {config.name} goes on: {labels['done']} of {config.stop.max_labels} labels, {present}, "
        f"{len(resumption.policy.open_requests)} tasks in flight, on {_machine(config.site)}."
    )
    return "\n".join(
        [
            how_far,
            "",
            f"Seed   {config.seed}",
            f"Output {where}/",
            *_commands(where),
        ]
    )


def notes(resumption: Resumption) -> list[str]:
    """Return what is out of order in a run directory, and would be repaired."""
    if not resumption.lost:
        return resumption.notes
    names = ", ".join(resumption.lost)
    when = " if it is extended" if resumption.is_over else ""
    return [*resumption.notes, f"The files of {names} are missing or damaged; they are made again{when}."]


def _commands(where: str) -> list[str]:
    folder = shlex.quote(where)
    return [
        f"Watch  fff watch {folder}, and with --web in the browser",
        f"Stop   Ctrl-C, or: fff stop {folder}; the same command again goes on",
    ]


def beginning(inputs: Inputs) -> str:
    """Return what is said before a new campaign begins."""
    loaded = inputs.loaded
    config = loaded.config
    where = _short(loaded.run_dir)
    contents = [(name, comment) for name, comment in CONTENTS if name in _SHOWN]
    width = max(len(name) for name, _ in contents) + 2
    tree = [f"  {where}/"]
    for i, (name, comment) in enumerate(contents):
        branch = "└──" if i == len(contents) - 1 else "├──"
        tree.append(f"  {branch} {name:<{width}}{comment}")
    return "\n".join(
        [
            _sentence(loaded, inputs),
            "",
            f"Seed   {config.seed}",
            "Output",
            *tree,
            *_commands(where),
        ]
    )


def _sentence(loaded: LoadedConfig, inputs: Inputs) -> str:
    config = loaded.config
    kind = _REPRESENTATIONS[config.model.representation]
    start = f", fine-tuned from {_short(Path(config.model.start))}" if config.model.start else ""
    structures = inputs.structures or [label.atoms for label in inputs.labels]
    given = f" besides {len(inputs.labels)} given ones" if inputs.labels else ""
    return (
        f"Campaign {config.name}: train {config.committee.size} {kind} force fields for "
        f"{_formulas(structures)}{start}, with at most {config.stop.max_labels} labels by {inputs.method}"
        f"{given}, on {_machine(config.site)}."
    )


def _formulas(structures: Sequence[Atoms]) -> str:
    counts = Counter(atoms.get_chemical_formula() for atoms in structures)
    names = list(counts)
    more = f" and {len(names) - _MOST_FORMULAS} more" if len(names) > _MOST_FORMULAS else ""
    return ", ".join(names[:_MOST_FORMULAS]) + more


def found(inputs: Inputs) -> str:
    """Return what the config's files and names turned out to be."""
    lines = ["Found"]
    for name, structures in (
        ("structures", inputs.structures),
        ("labels", [label.atoms for label in inputs.labels]),
        ("test labels", [label.atoms for label in inputs.test_labels]),
    ):
        counts = f"{len(structures)}: {_formulas(structures)}" if structures else "none"
        lines.append(f"  {name:<12} {counts}")
    lines.append(f"  {'reference':<12} {inputs.method}")
    return "\n".join(lines)


def values(loaded: LoadedConfig) -> str:
    """Return every value of the config with its source, in columns; on a terminal the defaults stand back."""
    flat = dict(_flat(loaded.config.model_dump(mode="json"), set(loaded.sources)))
    meant = _meant(loaded)
    rows = [
        (
            key,
            json.dumps(flat[key], ensure_ascii=False),
            f"{source}{f', which means {meant[key]}' if flat[key] is None and key in meant else ''}",
        )
        for key, source in loaded.sources.items()
    ]
    width = max(len(key) for key, _, _ in rows)
    wide = min(max(len(value) for _, value, _ in rows), 40)
    lines = [
        # What prints it takes such marks away where there is no terminal.
        typer.style(f"{key:<{width}}  {value:<{wide}}  {source}", dim=source.startswith(DEFAULT))
        for key, value, source in rows
    ]
    return "\n".join([f"{'Key':<{width}}  {'Value':<{wide}}  Source", *lines])


def scripts(loaded: LoadedConfig) -> str:
    """Return the batch scripts that would be submitted; empty where none would be.

    Raises:
        RunDirectoryError: If batch scripts cannot name the run directory.
    """
    site = loaded.config.site
    if not isinstance(site, BatchSite):
        return ""
    from fff.compute.batch import batch_scripts

    parts = []
    for name, text in batch_scripts(site, loaded.run_dir).items():
        nodes = site.nodes[name]
        size = f"{nodes.nodes_per_block} {'node' if nodes.nodes_per_block == 1 else 'nodes'}"
        what = (
            f"Started in this job for {name}, on {size}"
            if site.inside_allocation
            else f"Batch script of {name}, submitted for at most {nodes.max_blocks} jobs of {size}"
        )
        parts += [f"{what}:", "", textwrap.indent(text.strip(), "    "), ""]
    return "\n".join(parts).rstrip()


def _machine(site: SiteSection) -> str:
    """Return where the workers are, for people."""
    if not isinstance(site, BatchSite):
        return f"this {site.kind}"
    n = sum(make_site(site).pools.values())
    workers = f"{n} {'worker' if n == 1 else 'workers'}"
    if site.inside_allocation:
        return f"{workers} of this job"
    return f"at most {workers} in jobs of {'Slurm' if site.kind == 'slurm' else 'PBS'}"


def _meant(loaded: LoadedConfig) -> dict[str, str]:
    """Return what null stands for, for keys of which that depends on others or on the machine."""
    config = loaded.config
    means = {
        "run_dir": _short(loaded.run_dir),
        "selection.batch_size": str(config.batch_size),
        "calculation.max_ahead": str(config.max_ahead),
    }
    workers = {"n_workers": "shared", "n_cpu_workers": "cpu"}
    pools = make_site(config.site).pools
    return means | {f"site.{key}": str(pools[pool]) for key, pool in workers.items() if pool in pools}


def _flat(section: dict[str, Any], keys: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        key = prefix + name
        if key in keys:
            yield key, value
        else:
            yield from _flat(value, keys, f"{key}.")


def _short(path: Path) -> str:
    """Return the path from the current folder where it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)
