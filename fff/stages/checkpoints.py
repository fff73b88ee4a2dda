"""Checkpoints of a stage: one safetensors file each, whose name carries the checksum of all its bytes.

Such a file opens with any safetensors tool, and nothing in it can execute. Since the name is part of the
checksum's contract, a file that was cut short, overwritten or has one flipped bit is recognised before a
single number of it is read.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load, save

from fff.base.files import write_bytes
from fff.base.ids import sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Checkpoint", "Checkpoints", "State"]

SCHEMA_VERSION = 1

_NAME = re.compile(r"checkpoint-(\d{9,})-([0-9a-f]{64})\.safetensors")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What a stage needs to go on.

    Attributes:
        arrays: Of finite numbers.
        values: JSON-able ones; states of random generators among them.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a stage after a step.

    Attributes:
        identity: Of the stage; a checkpoint of another one is of no use to it.
        step: The step.
        state: What the stage needs to go on.
        tables: The number of the last row of each table, by the table's name.
    """

    identity: str
    step: int
    state: State
    tables: Mapping[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the checkpoint as a safetensors file."""
        told = {
            "schema_version": SCHEMA_VERSION,
            "identity": self.identity,
            "step": self.step,
            "tables": dict(self.tables),
            "values": dict(self.state.values),
        }
        # safetensors writes the memory of an array as it lies there, whatever its strides say.
        arrays = {name: np.array(array, order="C", ndmin=1) for name, array in self.state.arrays.items()}
        return save(arrays, metadata={"stage": json.dumps(told, allow_nan=False)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Return what `to_bytes` packed; the arrays are copies of their own.

        Raises:
            ValueError: If `data` is no such file, or one of another version.
        """
        length = int.from_bytes(data[:8], "little")
        told = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["stage"])
        if told["schema_version"] != SCHEMA_VERSION:
            msg = f"It has schema version {told['schema_version']}; this fff reads {SCHEMA_VERSION}."
            raise ValueError(msg)
        arrays = {name: array.copy() for name, array in load(data).items()}
        return cls(told["identity"], told["step"], State(arrays, told["values"]), told["tables"])


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: Where they are; made when the first is written.
        keep: How many are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._own: list[Path] = []

    def newest(self, identity: str) -> Checkpoint | None:
        """Return the newest sound checkpoint of this identity, or None.

        What is passed over is reported as a warning and left where it is: only the next checkpoint that was
        written takes its place.
        """
        self._remove_parts()
        sound = []
        for path in sorted(self._all(), key=_age):
            checkpoint = _read(path)
            if checkpoint is not None and checkpoint.identity != identity:
                _log.warning("%s is of other settings, data or versions and was passed over.", path)
            elif checkpoint is not None:
                sound.append((path, checkpoint))
        self._own = [path for path, _ in sound]
        return sound[-1][1] if sound else None

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint: aside, synced, renamed; then remove all but the last ones of this stage.

        Raises:
            OSError: If it cannot be written; all others are still there then.
        """
        data = checkpoint.to_bytes()
        path = self._folder / f"checkpoint-{checkpoint.step:09d}-{sha256_bytes(data)}.safetensors"
        write_bytes(path, data)
        self._own = [*(own for own in self._own if own != path), path][-self._keep :]
        with contextlib.suppress(OSError):
            for other in self._all():
                if other not in self._own:
                    other.unlink(missing_ok=True)
        return path

    def _all(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]

    def _remove_parts(self) -> None:
        """Remove what processes that were killed while they wrote have left."""
        with contextlib.suppress(OSError):
            for path in self._folder.glob(".*.part"):
                path.unlink(missing_ok=True)


def _age(path: Path) -> tuple[int, str]:
    return int(path.name.split("-")[1]), path.name


def _read(path: Path) -> Checkpoint | None:
    """Return the checkpoint at `path`, or None, with a warning, if it is damaged."""
    match = _NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
        if match is None or sha256_bytes(data) != match.group(2):
            _log.warning("%s is damaged (its checksum is another) and was passed over.", path)
            return None
        return Checkpoint.from_bytes(data)
    except (OSError, ValueError, LookupError) as error:
        _log.warning("%s cannot be read and was passed over: %s", path, error)
        return None
