"""What a check finds, and what its probes learn for each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fff.campaigns.inputs import Inputs
    from fff.config import ActiveLearningConfig, LoadedConfig

__all__ = ["Finding", "Known", "Status", "failed", "fine", "skipped", "warning"]

type Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of a check.

    Attributes:
        probe: What was looked at.
        status: `ok`; `warning`: a campaign would run, but; `failed`: none would, or not as asked;
            `skipped`: it was not looked at.
        found: What was found.
        repair: What to do about it; always given where it failed.
        values: The same as data, JSON-able, each number with its unit in the name.
    """

    probe: str
    status: Status
    found: str
    repair: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def fine(probe: str, found: str, **values: Any) -> Finding:
    """Return a finding that is in order."""
    return Finding(probe, "ok", found, values=values)


def warning(probe: str, found: str, repair: str, **values: Any) -> Finding:
    """Return a finding that keeps no campaign from running."""
    return Finding(probe, "warning", found, repair, values)


def failed(probe: str, found: str, repair: str, **values: Any) -> Finding:
    """Return a finding that keeps a campaign from running as asked."""
    return Finding(probe, "failed", found, repair, values)


def skipped(probe: str, why: str) -> Finding:
    """Return the note that something was not looked at."""
    return Finding(probe, "skipped", why)


@dataclass
class Known:
    """What is known so far: each probe reads what earlier ones found, and adds its own.

    Attributes:
        loaded: The config.
        scratch: An empty folder, gone afterwards.
        wait_s: How long one label may take before the check goes on without it.
        inputs: What the config's files and names are; None where they cannot be used.
        method: Name of the reference method; empty where it cannot run.
        label_s: Seconds of a label by number of atoms.
        label_slots: Slots on which it was calculated, by number of atoms.
        step_s: Seconds of a step of dynamics driven by the reference, for the smallest structure.
        start_s: Seconds until a worker has its libraries loaded.
        epoch_s: Seconds that a training takes for each structure in an epoch.
        dynamics_s: Seconds of a step of dynamics driven by the model.
        model_bytes: Size of a trained member on disk.
        lacks_executable: Whether the program that the reference runs was looked for in vain.
        place: The folder in which the run directory will be made; None where it is there, or cannot be made.
        free_bytes: Free disk where the run directory will be.
    """

    loaded: LoadedConfig
    scratch: Path
    wait_s: float
    inputs: Inputs | None = None
    method: str = ""
    label_s: dict[int, float] = field(default_factory=dict)
    label_slots: dict[int, int] = field(default_factory=dict)
    step_s: float | None = None
    start_s: float = 0.0
    epoch_s: float | None = None
    dynamics_s: float | None = None
    model_bytes: int = 0
    lacks_executable: bool = False
    place: Path | None = None
    free_bytes: int | None = None

    @property
    def config(self) -> ActiveLearningConfig:
        """The config; with `model.start`, the architecture in it is that model's."""
        return (self.inputs.loaded if self.inputs else self.loaded).config
