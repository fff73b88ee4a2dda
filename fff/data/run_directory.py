"""The run directory: what lies where."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fff.base.errors import RunDirectoryError
from fff.data.frames import FrameStore

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RunDirectory"]


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one campaign.

    Attributes:
        path: The folder, absolute.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config: complete, re-runnable."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, host, seed and the sha256 of every input."""
        return self.path / "provenance.json"

    @property
    def status(self) -> Path:
        """Where the campaign stands, replaced as a whole."""
        return self.path / "status.json"

    @property
    def events(self) -> Path:
        """The event log, append only: the source of truth."""
        return self.path / "events.jsonl"

    @property
    def inputs(self) -> Path:
        """Copies of every file that the config names."""
        return self.path / "inputs"

    @property
    def lock(self) -> Path:
        """Names the process that works on this directory."""
        return self.path / "lock"

    @property
    def store(self) -> Path:
        """Models and training sets on their way to workers."""
        return self.path / "store"

    @property
    def log(self) -> Path:
        """The log for people."""
        return self.path / "run.log"

    @property
    def labels(self) -> Path:
        """All labels, an ASE database."""
        return self.path / "labels.db"

    @property
    def models(self) -> Path:
        """Trained models, a folder per round and member."""
        return self.path / "models"

    @property
    def committee(self) -> Path:
        """Names the members of the present committee."""
        return self.models / "committee.json"

    @property
    def frames(self) -> FrameStore:
        """Sampled frames."""
        return FrameStore(self.path / "frames")

    @property
    def scores(self) -> Path:
        """What committees said about frames."""
        return self.path / "scores"

    @property
    def test(self) -> Path:
        """The test set, and the random frames that the campaign is compared with."""
        return self.path / "test"

    @property
    def tasks(self) -> Path:
        """Results on their way, and traces of failures."""
        return self.path / "tasks"

    @property
    def stop_file(self) -> Path:
        """Create it to stop the campaign."""
        return self.path / "STOP"

    def take(self) -> None:
        """Make the folder and take its lock.

        Raises:
            RunDirectoryError: If another process works on it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.lock.open("x", encoding="utf-8") as file:
                json.dump({"host": platform.node(), "pid": os.getpid()}, file)
        except FileExistsError as error:
            holder = self.lock.read_text(encoding="utf-8") if self.lock.is_file() else "a file of this name"
            msg = f"The run directory {self.path} is taken: {holder}."
            hint = (
                f"Wait for it, choose another with --run-dir, or remove {self.lock} if that process is gone."
            )
            raise RunDirectoryError(msg, hint=hint, path=str(self.path)) from error
        except OSError as error:
            msg = f"The run directory {self.path} cannot be written: {error.strerror}."
            raise RunDirectoryError(
                msg, hint="Choose another with --run-dir.", path=str(self.path)
            ) from error

    def give_back(self) -> None:
        """Release the lock."""
        self.lock.unlink(missing_ok=True)
