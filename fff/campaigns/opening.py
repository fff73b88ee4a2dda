"""A new run directory: everything that the campaign starts from, copied and written down."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.base.draws import seed_for
from fff.base.errors import RunDirectoryError
from fff.base.files import write_bytes, write_json, write_text
from fff.base.ids import sha256_file
from fff.config import config_to_yaml
from fff.data.labels import LabelStore
from fff.data.packing import labels_to_bytes
from fff.data.provenance import collect_provenance
from fff.data.records import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from fff.campaigns.inputs import Inputs
    from fff.config import ActiveLearningConfig
    from fff.data.records import Label
    from fff.data.run_directory import RunDirectory

__all__ = ["initial_frames", "open_run"]


def open_run(run: RunDirectory, config: ActiveLearningConfig, inputs: Inputs) -> dict[str, Any]:
    """Write all that a campaign starts from into its run directory.

    What an opening that was killed has left there is written over with the same, or with what the inputs are
    now: the first event comes after all of it.

    Returns:
        The values of its first event, as far as they do not depend on the site.

    Raises:
        RunDirectoryError: If the database cannot be written, or a killed opening left other labels in it.
        OSError: If the disk is full.
    """
    write_text(run.config, config_to_yaml(config))
    write_json(run.provenance, collect_provenance(seed=config.seed, inputs=inputs.files))
    _copy_inputs(run, inputs)
    starts = [Frame(atoms) for atoms in inputs.structures]
    start_ids = run.frames.write("start", starts)
    initial = initial_frames(config, inputs.structures)
    initial_ids = run.frames.write("initial", initial)
    return {
        "config": config.model_dump(mode="json"),
        "start_frames": _named(start_ids, starts),
        "initial_frames": _named(initial_ids, initial),
        "imported": _import_labels(run, inputs.labels),
        "start_model": bool(inputs.start_members),
        "test_files": _write_test_set(run, inputs.test_labels),
    }


def _named(ids: Sequence[str], frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """Return what the policy knows about frames; electrons are those of the neutral structure."""
    return [
        {
            "id": name,
            "hash": frame.hash,
            "n_atoms": len(frame.atoms),
            "n_electrons": int(frame.atoms.numbers.sum()),
        }
        for name, frame in zip(ids, frames, strict=True)
    ]


def initial_frames(config: ActiveLearningConfig, structures: Sequence[Atoms]) -> list[Frame]:
    """Return the structures to label first: those given, then small random displacements of them."""
    n = config.start.n_labels
    frames = [Frame(atoms) for atoms in structures[:n]]
    for index in range(len(frames), n):
        atoms = structures[index % len(structures)].copy()
        rng = np.random.default_rng(seed_for(config.seed, "displacement", index))
        atoms.positions += rng.normal(scale=config.start.displacement_A, size=atoms.positions.shape)
        frames.append(Frame(atoms))
    return frames


def _import_labels(run: RunDirectory, labels: Sequence[Label]) -> list[dict[str, str]]:
    imported: list[dict[str, str]] = []
    seen: set[str] = set()
    with LabelStore(run.labels) as store:
        for label in labels:
            if label.hash in seen:
                continue
            seen.add(label.hash)
            request = f"imported-{len(imported):05d}"
            if request not in store:
                store.add(request, label, source="imported", method="imported", segment=label.segment)
            imported.append({"request": request, "hash": label.hash})
        if [row[:2] for row in store.origins()] != [(item["request"], item["hash"]) for item in imported]:
            msg = f"{run.labels} holds labels of an opening that was broken off, with other inputs."
            hint = "Choose another --run-dir, or move this folder away."
            raise RunDirectoryError(msg, hint=hint, path=str(run.labels))
    return imported


def _write_test_set(run: RunDirectory, labels: Sequence[Label]) -> list[str]:
    if not labels:
        return []
    file = run.test / "given.npz"
    write_bytes(file, labels_to_bytes(labels))
    return [str(file.relative_to(run.path))]


def _copy_inputs(run: RunDirectory, inputs: Inputs) -> None:
    run.inputs.mkdir(exist_ok=True)
    for file in inputs.files:
        # Two inputs may have one name; their content tells them apart. What others may not read stays so.
        target = run.inputs / f"{sha256_file(file)[:8]}-{file.name}"
        target.unlink(missing_ok=True)
        shutil.copy(file, target)
    for index, folder in enumerate(inputs.start_members):
        target = run.models / "start" / f"member-{index}"
        target.mkdir(parents=True, exist_ok=True)
        for name in ("model.json", "weights.safetensors"):
            shutil.copyfile(folder / name, target / name)
