"""What the arguments of a single step name: structures to label, labels with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fff.base.draws import seed_for
from fff.base.errors import InputFileError
from fff.base.ids import structure_hash
from fff.data.reading import read_labels, split_index
from fff.data.structures import check_structures, load_structures
from fff.reference.relaxing import relaxation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from fff.config import ActiveLearningConfig
    from fff.data.records import Label

__all__ = ["LABELS", "Asked", "NamedLabels", "structures_to_label", "with_sources"]

LABELS = "labels.db"
"""The database of a run directory."""

_SEGMENT_LENGTH = 10


@dataclass(frozen=True)
class Asked:
    """A structure that is to be labelled.

    Attributes:
        atoms: The structure.
        name: What people call it: its file or name, with its number where that holds several.
        source: The file or name alone.
        segment: Segment for bootstraps: ten frames of a file that follow each other may be correlated.
    """

    atoms: Atoms
    name: str
    source: str
    segment: str


def structures_to_label(sources: Sequence[str], config: ActiveLearningConfig) -> list[Asked]:
    """Return the structures that files, folders and names stand for, each of them once.

    Args:
        sources: As in a config's `structures`.
        config: Its `reference` must be able to treat them; clusters are packed by its `seed`.

    Raises:
        FffError: If a file is missing, a name unknown, or a structure cannot be calculated.
    """
    found: dict[str, Asked] = {}
    every = []
    with relaxation() as relax:
        for source in sources:
            loaded = load_structures([source], relax=relax, seed=seed_for(config.seed, "structures"))
            every += loaded
            path = split_index(source)[0]
            name = path.name if path.exists() else source
            for i, atoms in enumerate(loaded):
                asked = Asked(atoms, str(atoms.info["source"]), name, _segment(path, i, len(loaded)))
                found.setdefault(structure_hash(atoms), asked)
    check_structures(every, config.reference)
    return list(found.values())


def _segment(path: Path, index: int, n_frames: int) -> str:
    is_trajectory = path.is_file() and n_frames > 1
    return f"{path.stem}-{index // _SEGMENT_LENGTH}" if is_trajectory else ""


@dataclass(frozen=True)
class NamedLabels:
    """Labels and where each comes from.

    Attributes:
        labels: The labels.
        sources: For each label: the key `source` of its database row, or the name of its file.
        files: The files that were read.
    """

    labels: list[Label]
    sources: list[str]
    files: list[Path]


def with_sources(sources: Sequence[str]) -> NamedLabels:
    """Return the labels of files, databases and run directories.

    Args:
        sources: Paths, with an ASE index behind `@` where not all frames are meant.

    Raises:
        InputFileError: If a file is missing or unreadable.
        StructureError: If a structure has no energy or forces, or numbers that are not finite.
    """
    labels, names, files = [], [], []
    for source in map(_database, sources):
        path = split_index(source)[0]
        files.append(path)
        for label, info in read_labels(source):
            labels.append(label)
            names.append(str(info.get("source", path.name)))
    return NamedLabels(labels, names, files)


def _database(source: str) -> str:
    """Return the labels of a run directory, or the source as it is."""
    path, index = split_index(source)
    if not path.is_dir():
        return source
    if not (path / LABELS).is_file():
        msg = f"The folder {path} holds no {LABELS}."
        raise InputFileError(msg, hint="Give a run directory, or a file of labels.", path=str(path))
    return f"{path / LABELS}@{index}" if index != ":" else str(path / LABELS)
