"""Frames on disk: one npz file per task, read by frame id."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from fff.base.errors import RunDirectoryError
from fff.base.files import inside, write_bytes
from fff.data.packing import UNPACKABLE, frames_from_bytes, frames_to_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fff.data.records import Frame

__all__ = ["FrameStore"]


class FrameStore:
    """The folder `frames/` of a run directory.

    A frame's id is `<request>:<index>`: the request that made it, whose file holds it, and its place there.

    Args:
        directory: The folder; made when first written to.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, request: str, frames: Sequence[Frame]) -> list[str]:
        """Write all frames of a request and return their ids, in the same order."""
        write_bytes(self.path(request), frames_to_bytes(frames))
        return [f"{request}:{i}" for i in range(len(frames))]

    def read(self, frame_id: str) -> Frame:
        """Return one frame.

        Raises:
            FileNotFoundError: If no such request wrote frames.
            IndexError: If that request wrote fewer frames.
            RunDirectoryError: If the id names a file elsewhere, or the file is damaged.
        """
        return self.read_many([frame_id])[0]

    def read_many(self, frame_ids: Sequence[str]) -> list[Frame]:
        """Return several frames in the order of their ids, reading each file once; raises as `read`."""
        indices: defaultdict[str, list[int]] = defaultdict(list)
        for frame_id in frame_ids:
            request, _, index = frame_id.rpartition(":")
            indices[request].append(int(index))
        found: dict[str, Frame] = {}
        for request, wanted in indices.items():
            frames = self._read_file(self.path(request))
            found |= {f"{request}:{i}": frames[i] for i in wanted}
        return [found[frame_id] for frame_id in frame_ids]

    def _read_file(self, path: Path) -> list[Frame]:
        data = path.read_bytes()
        try:
            return frames_from_bytes(data)
        except UNPACKABLE as error:
            msg = f"The frames in {path} cannot be read: {str(error).rstrip('.') or type(error).__name__}."
            hint = "Take the file from a copy of the run directory."
            raise RunDirectoryError(msg, hint=hint, path=str(path)) from error

    def path(self, request: str) -> Path:
        """Return the file that holds the frames of `request`.

        Raises:
            RunDirectoryError: If it would lie outside the folder.
        """
        return inside(self.directory, f"{request}.npz")
