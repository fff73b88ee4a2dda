"""Frames and labels as bytes, lossless, without pickle: an npz file with concatenated arrays."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from fff.data.records import Frame, Label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["UNPACKABLE", "frames_from_bytes", "frames_to_bytes", "labels_from_bytes", "labels_to_bytes"]

_SCHEMA_VERSION = 1

UNPACKABLE = (
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What NumPy and the zip format say about damaged files; RuntimeError: they seem to be encrypted."""


def frames_to_bytes(frames: Sequence[Frame]) -> bytes:
    """Pack frames; `frames_from_bytes` gives back the same, bit by bit."""
    arrays = _pack_atoms([frame.atoms for frame in frames])
    arrays["energy_eV"] = np.array([frame.energy_eV for frame in frames], dtype="f8")
    arrays["deviation_eV_per_A"] = np.array([frame.deviation_eV_per_A for frame in frames], dtype="f8")
    arrays["step"] = np.array([frame.step for frame in frames], dtype="i8")
    arrays["forces_eV_per_A"] = _concatenate(
        [
            np.full((len(f.atoms), 3), np.nan) if f.forces_eV_per_A is None else f.forces_eV_per_A
            for f in frames
        ]
    )
    return _to_npz(arrays)


def frames_from_bytes(data: bytes) -> list[Frame]:
    """Unpack what `frames_to_bytes` packed.

    Raises:
        ValueError: If `data` is no such package or holds pickled objects.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        loaded = dict(arrays)
    frames = []
    for i, (atoms, rows) in enumerate(_unpack_atoms(loaded)):
        forces = loaded["forces_eV_per_A"][rows]
        frames.append(
            Frame(
                atoms=atoms,
                energy_eV=float(loaded["energy_eV"][i]),
                forces_eV_per_A=None if np.isnan(forces).all() else forces,
                deviation_eV_per_A=float(loaded["deviation_eV_per_A"][i]),
                step=int(loaded["step"][i]),
            )
        )
    return frames


def labels_to_bytes(labels: Sequence[Label]) -> bytes:
    """Pack labels; `labels_from_bytes` gives back the same, bit by bit."""
    arrays = _pack_atoms([label.atoms for label in labels])
    arrays["energy_eV"] = np.array([label.energy_eV for label in labels], dtype="f8")
    arrays["wall_s"] = np.array([label.wall_s for label in labels], dtype="f8")
    arrays["segment"] = np.array([label.segment for label in labels], dtype="U")
    arrays["forces_eV_per_A"] = _concatenate([label.forces_eV_per_A for label in labels])
    arrays["stress_eV_per_A3"] = np.array(
        [np.full(6, np.nan) if x.stress_eV_per_A3 is None else x.stress_eV_per_A3 for x in labels], dtype="f8"
    ).reshape(-1, 6)
    return _to_npz(arrays)


def labels_from_bytes(data: bytes) -> list[Label]:
    """Unpack what `labels_to_bytes` packed.

    Raises:
        ValueError: If `data` is no such package or holds pickled objects.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        loaded = dict(arrays)
    labels = []
    for i, (atoms, rows) in enumerate(_unpack_atoms(loaded)):
        stress = loaded["stress_eV_per_A3"][i]
        labels.append(
            Label(
                atoms=atoms,
                energy_eV=float(loaded["energy_eV"][i]),
                forces_eV_per_A=loaded["forces_eV_per_A"][rows],
                stress_eV_per_A3=None if np.isnan(stress).all() else stress,
                segment=str(loaded["segment"][i]),
                wall_s=float(loaded["wall_s"][i]),
            )
        )
    return labels


def _pack_atoms(structures: Sequence[Atoms]) -> dict[str, Any]:
    return {
        "schema_version": np.array(_SCHEMA_VERSION),
        "n_atoms": np.array([len(atoms) for atoms in structures], dtype="i8"),
        "numbers": np.concatenate([np.zeros(0, "i4"), *(atoms.numbers for atoms in structures)]).astype("i4"),
        "positions_A": _concatenate([atoms.positions for atoms in structures]),
        "momenta": _concatenate([atoms.get_momenta() for atoms in structures]),
        "has_momenta": np.array([atoms.has("momenta") for atoms in structures], dtype=bool),
        "cell_A": np.array([atoms.cell.array for atoms in structures], dtype="f8").reshape(-1, 3, 3),
        "pbc": np.array([atoms.pbc for atoms in structures], dtype=bool).reshape(-1, 3),
    }


def _unpack_atoms(arrays: Mapping[str, Any]) -> list[tuple[Atoms, slice]]:
    version = int(arrays["schema_version"]) if "schema_version" in arrays else None
    if version != _SCHEMA_VERSION:
        msg = f"The package has schema version {version}; this fff reads version {_SCHEMA_VERSION}."
        raise ValueError(msg)
    ends = np.cumsum(arrays["n_atoms"])
    unpacked = []
    for i, (start, end) in enumerate(zip(ends - arrays["n_atoms"], ends, strict=True)):
        rows = slice(int(start), int(end))
        atoms = Atoms(
            numbers=arrays["numbers"][rows],
            positions=arrays["positions_A"][rows],
            cell=arrays["cell_A"][i],
            pbc=arrays["pbc"][i],
        )
        if arrays["has_momenta"][i]:
            atoms.set_momenta(arrays["momenta"][rows], apply_constraint=False)
        unpacked.append((atoms, rows))
    return unpacked


def _concatenate(parts: Sequence[Any]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 3)), *parts]).astype("f8")


def _to_npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
