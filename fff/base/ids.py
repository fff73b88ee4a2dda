"""Hashes that identify structures, settings and files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ase import Atoms

__all__ = ["settings_hash", "sha256_bytes", "sha256_file", "structure_hash"]


def structure_hash(atoms: Atoms) -> str:
    """Return a hash of the geometry: elements, positions (Å, all 64 bits), cell and periodicity.

    Momenta, calculators and `info` do not count: two frames that a reference method would treat alike
    have one hash. It starts with `s`, since ASE refuses database values that look like numbers.
    """
    digest = hashlib.blake2b(digest_size=12)
    digest.update(np.ascontiguousarray(atoms.numbers, dtype="<i4").tobytes())
    # Adding zero turns -0.0 into 0.0, which is the same place.
    digest.update((np.ascontiguousarray(atoms.positions, dtype="<f8") + 0.0).tobytes())
    digest.update((np.ascontiguousarray(atoms.cell.array, dtype="<f8") + 0.0).tobytes())
    digest.update(np.ascontiguousarray(atoms.pbc, dtype="u1").tobytes())
    return "s" + digest.hexdigest()


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return a hash of JSON-able settings that does not depend on the order of the keys."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return "h" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file at `path` in hexadecimal.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
