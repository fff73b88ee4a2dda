"""The run directory: what lies where."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fff.base.errors import RunDirectoryError
from fff.base.files import refuse_links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fff.data.frames import FrameStore

__all__ = ["CONTENTS", "OPENING_NAMES", "RunDirectory"]

CONTENTS = (
    ("report.html", "what came out: numbers, figures, worst structures in 3-D"),
    ("figures/", "the figures of the report, each beside its numbers (CSV)"),
    ("config.yaml", "every value of this run; `fff run` takes it"),
    ("provenance.json", "versions, machine, seed, checksums of the inputs"),
    ("status.json", "how far it is, replaced all the time"),
    ("summary.txt", "errors and where the time went, as text"),
    ("summary.json", "the same for programs"),
    ("events.jsonl", "everything that happened, in order"),
    ("run.log", "the same for people"),
    ("labels.db", "all labels, an ASE database"),
    ("models/", "the committees; committee.json names the present one"),
    ("frames/", "sampled structures"),
    ("scores/", "what committees said about them, and about the test set"),
    ("test/", "the test set, and the random frames of the comparison"),
    ("inputs/", "copies of the files the config names"),
    ("tasks/", "traces of failures, work directories of external codes"),
    ("parsl/", "logs of the workers"),
)
"""What a run directory holds, and what for, for people."""

_FILES = (
    "report.html",
    "config.yaml",
    "provenance.json",
    "status.json",
    "summary.json",
    "summary.txt",
    "events.jsonl",
    "run.log",
    "labels.db",
    "labels.db-journal",
    "lock",
    "STOP",
    "tasks/stopping",
)
_FOLDERS = ("figures", "inputs", "models", "frames", "scores", "test", "tasks", "store", "parsl")
_OWN_FOLDERS = ("store", "parsl")
_DATA_FOLDERS = ("models", "frames", "scores", "test")
_DATA_FILES = (".json", ".npz", ".safetensors")

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

    @classmethod
    def at(cls, path: Path) -> RunDirectory:
        """Return the run directory at a path that a user gave.

        Raises:
            RunDirectoryError: If the path cannot be followed: a link leads to itself.
        """
        try:
            return cls(path.resolve())
        except (OSError, RuntimeError, ValueError) as error:
            msg = f"The run directory {path} cannot be used: {str(error).rstrip('.')}."
            raise RunDirectoryError(msg, hint="Check the path.", path=str(path)) from None

    def check(self) -> None:
        """Check that files are files, and folders are folders, before any of them is opened.

        Raises:
            RunDirectoryError: If one is not: a pipe would be waited for, a link leads elsewhere, a folder is
                in the way of a file.
        """
        try:
            if not self.path.is_dir():
                return
            refuse_links(self.path)
            wrong = next(self._wrong(), None)
        except OSError as error:
            msg = f"The run directory {self.path} cannot be read: {error.strerror}."
            raise RunDirectoryError(msg, hint="Check who owns it.", path=str(self.path)) from error
        if wrong is not None:
            path, what = wrong
            msg = f"{path} is {what}."
            raise RunDirectoryError(msg, hint="Move it away; nothing of fff is in it.", path=str(path))

    def _wrong(self) -> Iterator[tuple[Path, str]]:
        for name in _FILES:
            path = self.path / name
            if path.exists() and not path.is_file():
                yield path, "a folder, where a file belongs" if path.is_dir() else "no regular file"
        for name in _FOLDERS:
            path = self.path / name
            if path.exists() and not path.is_dir():
                yield path, "no folder, where one belongs"
        for name in _OWN_FOLDERS:
            if (self.path / name).is_symlink():
                yield self.path / name, "a symbolic link, through which fff would change what lies elsewhere"
        for name in _DATA_FOLDERS:
            yield from _wrong_below(str(self.path / name), deep=True)
        # Below it external codes have left what they like.
        yield from _wrong_below(str(self.tasks), deep=False)

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
        # NumPy comes with it, and `fff status` must answer at once.
        from fff.data.frames import FrameStore

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
    def report(self) -> Path:
        """The report for people, one file."""
        return self.path / "report.html"

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
            if not stat.S_ISREG(self.events.stat().st_mode):
                return True  # what is there keeps the name
            with self.events.open("rb") as file:
                return file.readline().endswith(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            # It is there, though it cannot be read; reading it says why.
            return True


def _wrong_below(folder: str, *, deep: bool) -> Iterator[tuple[Path, str]]:
    """Yield what lies in a folder of data, if `deep` in those below it too, and is no data."""
    if not os.path.isdir(folder):  # noqa: PTH112 - a hundred thousand names: no object for each
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name.endswith(_DATA_FILES):
                    yield Path(entry.path), "a folder, where a file belongs"
                elif deep:
                    yield from _wrong_below(entry.path, deep=True)
            elif not entry.is_symlink() or _is_special(entry):
                yield Path(entry.path), "no regular file"


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether a link leads to what is neither file nor folder; one that leads nowhere is a missing file."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
