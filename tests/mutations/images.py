"""A small campaign, and what a kill at any of its events would have left of its run directory."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fff.campaigns.running import open_campaign
from fff.config import load_config
from fff.data.events import EventLog

if TYPE_CHECKING:
    from pathlib import Path

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
        n_events: Events in its log.
    """

    folder: Path
    config: Path
    finished: Path
    n_events: int

    def at(self, n_events: int) -> Path:
        """What a kill left that came when so many events were written, and the files of the next."""
        return self.folder / f"{n_events:04d}"


def make(folder: Path) -> Images:
    config = folder / "small.yaml"
    config.write_text(CONFIG)
    finished = folder / "finished"
    append = EventLog.append

    def copy_and_append(log, event):
        copy(finished, folder / f"{event.seq:04d}")
        append(log, event)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(EventLog, "append", copy_and_append)
        loaded = load_config(config, [f"run_dir={finished}"])
        with open_campaign(loaded, say=lambda line: None) as campaign:
            outcome = campaign.carry_out(say=lambda line: None)
    assert outcome.state == "finished", outcome.message
    n_events = (finished / "events.jsonl").read_bytes().count(b"\n")
    return Images(folder, config, finished, n_events)


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
