"""A small campaign, and what a kill at any of its events would have left of its run directory."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fff.campaigns.running import open_campaign
from fff.config import load_config
from fff.data.events import EventLog, read_events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fff.data.events import Event

CONFIG = """
name: small
seed: 3
structures: ["bulk:Cu:1x1x1"]
reference: {kind: ase, calculator: emt}
model: {n_features: 4, n_layers: 1, cutoff_A: 3.0, n_radial: 4}
committee: {size: 2}
start: {n_labels: 4}
training: {retrain_every: 4, max_epochs: 4}
sampling:
  {n_parallel: 2, n_trajectories: 2, n_steps: 20, min_steps: 10, max_steps: 20, timestep_fs: 2.0, n_frames: 4}
audit: {energy_tolerance_eV_per_atom: 5.0, force_tolerance_eV_per_A: 50.0}
selection: {chunk_size: 4}
test: {n_frames: 4, interval_steps: 2, equilibration_steps: 4, timestep_fs: 2.0}
stop: {max_labels: 10}
site: {kind: laptop, n_workers: 1}
"""
"""Each part of a campaign, none larger than it must be. One worker: everything happens in one order."""


@dataclass(frozen=True)
class Images:
    """Copies of one run directory.

    Attributes:
        folder: Where they are.
        config: The config file.
        finished: The run directory of the finished campaign.
        events: Its log.
    """

    folder: Path
    config: Path
    finished: Path
    events: Sequence[Event]

    def before(self, event: Event) -> Path:
        """What a kill left that came after the files of an event were written, and before the event was."""
        return self.folder / f"{event.seq:04d}"

    def left(self, when: str) -> Path:
        """Return one of the images that tests are made of.

        Args:
            when: `opening`: before the first event. `row`: a label is in the database, its event is not.
                `audit`: the same of the label that judges a run. `middle`: in the second round, a model is
                written, its event is not. `tested`: in the last round, the test set is there. `finished`.
        """
        if when == "finished":
            return self.finished
        found = {
            "opening": self.events[0],
            "row": self._first(
                "calculate", lambda event: event.seq > self._round(0).seq and not _judges(event)
            ),
            "audit": self._first("calculate", _judges),
            "middle": self._round(1),
            "tested": self._first("evaluate", lambda event: event.seq > self._round(2).seq),
        }
        return self.before(found[when])

    def _round(self, number: int) -> Event:
        return self._first("train", lambda event: event.request.startswith(f"train-r{number:03d}"))

    def _first(self, kind: str, is_meant: Callable[[Event], bool]) -> Event:
        return next(event for event in self.events if event.kind == kind and is_meant(event))


def _judges(event: Event) -> bool:
    return "energy_error" in event.values


def make(folder: Path) -> Images:
    """Run the campaign, with a copy of its directory made before each event is written."""
    config = folder / "small.yaml"
    config.write_text(CONFIG)
    finished = folder / "finished"
    append = EventLog.append

    def copy_and_append(log: EventLog, event: Event) -> None:
        copy(finished, folder / f"{event.seq:04d}")
        append(log, event)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(EventLog, "append", copy_and_append)
        loaded = load_config(config, [f"run_dir={finished}"])
        with open_campaign(loaded, say=lambda line: None) as campaign:
            outcome = campaign.carry_out(say=lambda line: None)
    assert outcome.state == "finished", outcome.message
    return Images(folder, config, finished, read_events(finished / "events.jsonl"))


def copy(run_dir: Path, target: Path) -> None:
    """Copy a run directory that may be at work; the lock of its process does not come along."""
    # The status is being replaced by another thread meanwhile.
    shutil.copytree(run_dir, target, symlinks=True, ignore=shutil.ignore_patterns("*.part", "lock"))


def state_of(folder: Path) -> dict[str, str]:
    """Return what every path below a folder is and holds: nothing may differ where nothing may be written."""
    return {str(path.relative_to(folder)): _state(path) for path in sorted(folder.rglob("*"))}


def _state(path: Path) -> str:
    mode = f"{path.lstat().st_mode:o}"
    if path.is_symlink():
        return f"{mode} -> {path.readlink()}"
    if path.is_file():
        return f"{mode} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return mode
