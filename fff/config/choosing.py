"""Sections about what is labelled: `selection`, `calculation`, `queue`, `stop`."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from fff.base.errors import ConfigError
from fff.config.section import Positive, PositiveInt, Section

__all__ = ["CalculationSection", "QueueSection", "SelectionSection", "StopSection"]

_PAIR = 2
# Two of them; `check` says so in words of its own.
_SizeAndNodes = Annotated[list[int], Field(json_schema_extra={"minItems": 2, "maxItems": 2})]


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
        3,
        description=(
            "Tries of a task that was lost, or of a calculation that ran out of time. To be lost with a "
            "whole block of nodes counts as a try only when it happens ten times in a row."
        ),
    )
    size_by: Literal["electrons", "atoms"] = Field(
        "electrons",
        description=(
            "What `calculation.nodes_by_size` counts in a structure: the electrons that it has when it is "
            "neutral, or its atoms."
        ),
    )
    nodes_by_size: list[_SizeAndNodes] = Field(
        [[0, 1]],
        min_length=1,
        max_length=100,
        description=(
            "Slots that a calculation takes: pairs of a size and the slots from that size on, as in "
            "[[0, 1], [100, 2], [400, 4]]. A slot is a worker, or a node where calculations run across "
            "nodes; more than one needs an external code and `site.mpi_launch`. The size of a sampled frame "
            "is that of the structure where its trajectory started."
        ),
    )

    @property
    def most_slots(self) -> int:
        """Slots that the largest structures take."""
        return max(slots for _, slots in self.nodes_by_size)

    def slots_for(self, n_atoms: int, n_electrons: int) -> int:
        """Return how many slots a structure of this size takes.

        Example:
            >>> section = CalculationSection(size_by="atoms", nodes_by_size=[[0, 1], [100, 2]])
            >>> section.slots_for(99, 500), section.slots_for(100, 500)
            (1, 2)
        """
        size = n_atoms if self.size_by == "atoms" else n_electrons
        return next(slots for least, slots in reversed(self.nodes_by_size) if least <= size)

    def check(self) -> None:
        """Check what concerns several keys.

        Raises:
            ConfigError: If the table is not one of pairs, the sizes do not rise from 0, or a structure would
                take no slot.
        """
        key, table = "calculation.nodes_by_size", self.nodes_by_size
        hint = "Write pairs of a size and the slots from that size on, as [[0, 1], [100, 2], [400, 4]]."
        for index, pair in enumerate(table):
            if len(pair) != _PAIR:
                msg = f"`{key}[{index}]` is {pair}; it must be a size and its slots."
                raise ConfigError(msg, hint=hint, key=f"{key}[{index}]", value=pair)
        sizes = [size for size, _ in table]
        if sizes[0] != 0:
            msg = f"`{key}` begins at size {sizes[0]}; the first size must be 0, to cover every structure."
            raise ConfigError(msg, hint=hint, key=key, value=table)
        for before, after in pairwise(sizes):
            if after <= before:
                msg = f"`{key}` has size {after} after {before}; sizes must rise."
                raise ConfigError(msg, hint=hint, key=key, value=table)
        if (least := min(slots for _, slots in table)) < 1:
            msg = f"`{key}` gives {least} slots to a size; a calculation takes at least 1."
            raise ConfigError(msg, hint=hint, key=key, value=table)

    def check_fits(self, pool: str, n_slots: int) -> None:
        """Check that every calculation fits into its pool.

        Args:
            pool: The pool that calculates.
            n_slots: Its slots.

        Raises:
            ConfigError: If the largest would wait for ever.
        """
        if self.most_slots <= n_slots:
            return
        key, size = "calculation.nodes_by_size", next(s for s, n in self.nodes_by_size if n > n_slots)
        msg = (
            f"`{key}` gives {self.most_slots} slots to one calculation, above the {n_slots} that it can have "
            f"in the pool {pool!r} of this site."
        )
        hint = (
            f"Set the slots from size {size} on to at most {n_slots}, or give the pool more workers, or its "
            "blocks more nodes, by `site`."
        )
        raise ConfigError(msg, hint=hint, key=key, value=self.nodes_by_size)


class QueueSection(Section):
    """When workers move between sampling and calculation, where these share them."""

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
