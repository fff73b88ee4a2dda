"""Structures as tensors: prepared once, joined into batches by index arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fff.base.errors import StructureError
from fff.models.neighbours import find_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms
    from jaxtyping import Float, Int

__all__ = [
    "Batch",
    "PreparedStructures",
    "check_elements",
    "chunks_by_pairs",
    "join",
    "max_pairs",
    "prepare",
]

# On a core: below, launches dominate; above, the cache overflows.
_MAX_PAIRS_CPU = 4_000
_MAX_PAIRS_ACCELERATOR = 200_000


@dataclass(frozen=True)
class Batch:
    """Several structures as one graph whose parts are not connected.

    Attributes:
        numbers: Atomic numbers.
        structure: Index of the structure each atom belongs to.
        n_atoms: Atoms in each structure.
        first: Index of the first atom of each pair.
        second: Index of the second atom of each pair.
        vectors: From first to second atom in Å, float32.
        pair_structure: Index of the structure each pair belongs to.
    """

    numbers: Int[torch.Tensor, " n_atoms"]
    structure: Int[torch.Tensor, " n_atoms"]
    n_atoms: Int[torch.Tensor, " n_structures"]
    first: Int[torch.Tensor, " n_pairs"]
    second: Int[torch.Tensor, " n_pairs"]
    vectors: Float[torch.Tensor, "n_pairs 3"]
    pair_structure: Int[torch.Tensor, " n_pairs"]


@dataclass(frozen=True)
class PreparedStructures:
    """The tensors of each structure with indices that start at zero, and how many pairs each has."""

    numbers: list[Int[torch.Tensor, " n_atoms"]]
    first: list[Int[torch.Tensor, " n_pairs"]]
    second: list[Int[torch.Tensor, " n_pairs"]]
    vectors: list[Float[torch.Tensor, "n_pairs 3"]]

    def __len__(self) -> int:
        return len(self.numbers)


def prepare(
    structures: Sequence[Atoms], cutoff_A: float, device: torch.device | str = "cpu"
) -> PreparedStructures:
    """Find the pairs of each structure and put all of it on the device.

    Vectors are subtracted in double precision before they are rounded: far from the origin or in a large cell
    single precision would cost digits of the distance.
    """
    numbers, first, second, vectors = [], [], [], []
    for atoms in structures:
        pairs = find_pairs(atoms, cutoff_A)
        numbers.append(torch.as_tensor(atoms.numbers.astype(np.int64), device=device))
        first.append(torch.as_tensor(pairs.first, device=device))
        second.append(torch.as_tensor(pairs.second, device=device))
        found = pairs.vectors(atoms.positions).astype(np.float32).reshape(-1, 3)
        vectors.append(torch.as_tensor(found, device=device))
    return PreparedStructures(numbers, first, second, vectors)


def join(prepared: PreparedStructures, indices: Sequence[int]) -> Batch:
    """Return the structures with these indices, repeated ones repeated, as one batch."""
    numbers = [prepared.numbers[i] for i in indices]
    first = [prepared.first[i] for i in indices]
    device = numbers[0].device
    sizes = [len(part) for part in numbers]
    n_pairs = [len(part) for part in first]
    n_atoms = torch.tensor(sizes)
    pairs = torch.tensor(n_pairs)
    which = torch.arange(len(sizes))
    pair_structure = torch.repeat_interleave(which, pairs, output_size=sum(n_pairs)).to(device)
    starts = (torch.cumsum(n_atoms, 0) - n_atoms).to(device)
    offsets = starts.index_select(0, pair_structure)
    return Batch(
        numbers=torch.cat(numbers),
        structure=torch.repeat_interleave(which, n_atoms, output_size=sum(sizes)).to(device),
        n_atoms=n_atoms.to(device),
        first=torch.cat(first).add_(offsets),
        second=torch.cat([prepared.second[i] for i in indices]).add_(offsets),
        vectors=torch.cat([prepared.vectors[i] for i in indices]),
        pair_structure=pair_structure,
    )


def chunks_by_pairs(
    prepared: PreparedStructures, indices: Sequence[int], limit: int
) -> Iterator[Sequence[int]]:
    """Yield parts of `indices` with at most `limit` pairs together (a larger structure comes alone).

    On a core larger batches cost cache misses, on an accelerator smaller ones cost launches; memory
    grows with the pairs either way.
    """
    begin, total = 0, 0
    for place, index in enumerate(indices):
        n_pairs = len(prepared.first[index])
        if place > begin and total + n_pairs > limit:
            yield indices[begin:place]
            begin, total = place, 0
        total += n_pairs
    if begin < len(indices):
        yield indices[begin:]


def max_pairs(device: torch.device) -> int:
    """Return how many pairs to evaluate at once on this device."""
    return _MAX_PAIRS_CPU if device.type == "cpu" else _MAX_PAIRS_ACCELERATOR


def check_elements(structures: Sequence[Atoms], known: Sequence[int]) -> None:
    """Refuse what a model cannot know.

    Raises:
        StructureError: If a structure is empty or has an element that is not in `known`.
    """
    allowed = set(known)
    for index, atoms in enumerate(structures):
        if len(atoms) == 0:
            msg = f"Structure {index} has no atoms."
            raise StructureError(msg, hint="Take it out.")
        unknown = {int(z) for z in np.unique(atoms.numbers)} - allowed
        if unknown:
            symbols = sorted({a.symbol for a in atoms if a.number in unknown})
            names = ", ".join(symbols)
            msg = f"The model was made without {names}, which structure {index} ({atoms.symbols}) has."
            raise StructureError(msg, hint="Train a model on labels with these elements.")
