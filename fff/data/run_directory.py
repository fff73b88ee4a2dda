"""The run directory: what lies where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fff.data.frames import FrameStore

__all__ = ["OPENING_NAMES", "RunDirectory"]

OPENING_NAMES = frozenset(
    {
        "config.yaml",
        "provenance.json",
        "inputs",
        "lock",
        "run.log",
        "labels.db",
        "labels.db-journal",
        "models",
        "frames",
        "test",
        "events.jsonl",
        "parsl",
        "store",
        "STOP",
    }
)
"""What a campaign that was killed before its first event may leave in its folder."""


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

    @property
    def stopping(self) -> Path:
        """Tells workers that the campaign is stopping: write a checkpoint and come back."""
        return self.tasks / "stopping"

    @property
    def is_opened(self) -> bool:
        """Whether a campaign was opened here: its first event is written."""
        try:
            with self.events.open("rb") as file:
                return file.readline().endswith(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            # It is there, though it cannot be read; reading it says why.
            return True
