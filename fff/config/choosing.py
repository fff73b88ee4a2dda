"""Sections about what is labelled: `selection`, `calculation`, `queue`, `stop`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fff.base.errors import ConfigError
from fff.config.section import Positive, PositiveInt, Section

__all__ = ["CalculationSection", "QueueSection", "SelectionSection", "StopSection"]


class SelectionSection(Section):
    """Which sampled frames are worth a label."""

    rule: Literal["diverse", "variance-pruning", "threshold", "random"] = Field(
        "diverse",
        description=(
            "How frames are chosen: high deviation and unlike each other (diverse), high deviation "
            "less similar ones (variance-pruning), deviation above a threshold (threshold), or any "
            "(random)."
        ),
    )
    deviation: Literal["max-force", "mean-force", "energy"] = Field(
        "max-force",
        description=(
            "Which disagreement of the members counts: on the worst atom's force, on all atoms' "
            "forces, or on the energy."
        ),
    )
    batch_size: PositiveInt | None = Field(
        None, description="Frames chosen at once; null: as many as `training.retrain_every`."
    )
    chunk_size: PositiveInt = Field(20, description="Frames that one task scores.")
    pool_size: PositiveInt = Field(
        1000, description="Frames kept waiting for a score or a choice; the oldest leave."
    )
    threshold_eV_per_A: float = Field(
        0.1,
        ge=0,
        description=(
            "Force deviation below which a frame is not worth a label (rule threshold only, which does not "
            "go with `deviation: energy`)."
        ),
    )
    prune_fraction: float = Field(
        0.05,
        gt=0,
        lt=1,
        description=(
            "Part of the frames removed as too similar to each chosen one (rule variance-pruning only)."
        ),
    )
    time_limit_s: Positive = Field(
        3600.0, description="Time after which a worker that scores, chooses or evaluates is killed."
    )

    def check(self) -> None:
        """Check what concerns several keys.

        Raises:
            ConfigError: If the pool cannot hold a chunk, which then never fills, or the threshold is not one
                of the chosen deviation.
        """
        if self.rule == "threshold" and self.deviation == "energy":
            msg = (
                "`selection.deviation` is energy, but `selection.rule` threshold compares force deviations, "
                "in eV/Å."
            )
            hint = "Set `selection.deviation` to max-force or mean-force, or choose another rule."
            raise ConfigError(msg, hint=hint, key="selection.deviation", value=self.deviation)
        if self.pool_size < self.chunk_size:
            least = self.chunk_size
            msg = f"`selection.pool_size` is {self.pool_size}, below `selection.chunk_size` ({least})."
            hint = f"Set `selection.pool_size` to at least {least}."
            raise ConfigError(msg, hint=hint, key="selection.pool_size", value=self.pool_size)


class CalculationSection(Section):
    """How reference calculations are handed out."""

    max_ahead: PositiveInt | None = Field(
        None,
        description=(
            "Labels that may be asked for before a newer committee is there; null: twice "
            "`training.retrain_every`."
        ),
    )
    max_consecutive_failures: PositiveInt = Field(
        10,
        description=(
            "Calculations in a row that fail by the set-up's fault, not the structure's, after which "
            "the campaign stops."
        ),
    )
    max_attempts: PositiveInt = Field(
        3, description="Tries of a task that was lost, or of a calculation that ran out of time."
    )


class QueueSection(Section):
    """When workers move between sampling and calculation."""

    length: int = Field(
        2, ge=0, description="Audits that should be waiting for a calculation; the balance of the two loops."
    )
    tolerance: int = Field(
        1,
        ge=0,
        description=(
            "How many more, or fewer, may wait before a worker moves from sampling to calculation, or back."
        ),
    )


class StopSection(Section):
    """When the campaign ends."""

    max_labels: int = Field(
        128,
        ge=1,
        le=1_000_000,
        description="Labels after which the campaign ends; those of the test set do not count.",
    )
    grace_s: float = Field(
        10.0, ge=0, description="Time that running tasks have to end, or to save, when a campaign is stopped."
    )
