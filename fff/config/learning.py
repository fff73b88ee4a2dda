"""Sections about the force field: `model`, `start`, `committee`, `training`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fff.base.errors import ConfigError
from fff.config.section import PATH, PathText, Positive, PositiveInt, Section

__all__ = ["CommitteeSection", "ModelSection", "StartSection", "TrainingSection"]


class ModelSection(Section):
    """The force field that is trained."""

    kind: Literal["schnetpack"] = Field("schnetpack", description="Package that the force field comes from.")
    representation: Literal["painn", "schnet"] = Field(
        "painn",
        description=(
            "How an atom sees its neighbours: by distances and directions (painn), or by distances "
            "alone (schnet), which is faster and needs more labels."
        ),
    )
    n_features: int = Field(
        64,
        ge=4,
        le=1024,
        description=(
            "Numbers that describe each atom inside the network: more can learn more, and cost more."
        ),
    )
    n_layers: int = Field(
        3,
        ge=1,
        le=8,
        description="Times that neighbouring atoms pass on what they know of their own neighbours.",
    )
    cutoff_A: float = Field(5.0, gt=1, le=20, description="Distance within which atoms see each other.")
    n_radial: int = Field(
        20, ge=4, le=128, description="Functions that tell distances up to the cutoff apart."
    )
    start: PathText | None = Field(
        None,
        json_schema_extra=PATH,
        description=(
            "Trained model or committee to fine-tune: the folder of a run, a round or a member; null: "
            "train from nothing."
        ),
    )


class StartSection(Section):
    """The first labels, when no labels are given."""

    n_labels: int = Field(
        16,
        ge=2,
        le=100_000,
        description="Labels made first: the given structures, then small random displacements of them.",
    )
    displacement_A: Positive = Field(
        0.05, description="Standard deviation of the random displacement of each coordinate."
    )


class CommitteeSection(Section):
    """The members whose disagreement says how wrong the force field is."""

    size: int = Field(
        4,
        ge=2,
        le=32,
        description=(
            "Models trained each round, each on its own draw of the labels; more of them judge better, "
            "and cost more."
        ),
    )


class TrainingSection(Section):
    """How each member is trained."""

    retrain_every: PositiveInt = Field(
        32,
        description=(
            "New labels after which the next training round starts, counted from the start of the "
            "round before."
        ),
    )
    start_from: Literal["initial", "previous"] = Field(
        "initial",
        description=(
            "Weights a round starts from: the campaign's first ones, random or those of `model.start` "
            "(initial), or those of the round before (previous)."
        ),
    )
    max_epochs: PositiveInt = Field(200, description="Passes over the training labels at most.")
    batch_size: PositiveInt = Field(8, description="Structures in each step of the optimiser.")
    learning_rate: float = Field(
        5e-3, gt=0, le=1, description="Size of the optimiser's steps (Adam) at the start."
    )
    energy_weight: float = Field(
        0.05,
        ge=0,
        description="Loss weight of the mean squared error of the energy, in (eV per atom)².",
    )
    force_weight: float = Field(
        0.95, ge=0, description="Loss weight of the mean squared error of force components, in (eV/Å)²."
    )
    plateau_patience: PositiveInt = Field(
        15,
        description=(
            "Epochs without improvement on the labels left out before the learning rate is lowered."
        ),
    )
    plateau_factor: float = Field(
        0.5, gt=0, lt=1, description="What the learning rate is then multiplied by."
    )
    stop_patience: PositiveInt = Field(
        40, description="Epochs without improvement on the labels left out before the training stops."
    )
    min_learning_rate: float = Field(
        1e-5, gt=0, le=1, description="Learning rate below which training stops."
    )
    ema_decay: float = Field(
        0.99,
        ge=0,
        lt=1,
        description=(
            "The model is the moving average of its weights over the last steps, about 1 / (1 - this "
            "many); 0: no average."
        ),
    )
    gradient_clip: Positive = Field(
        10.0, description="Largest norm of the gradient in a step; a longer one is cut to it."
    )
    time_limit_s: Positive = Field(
        86400.0, description="Time after which a training ends in order, with the best weights so far."
    )

    def check(self) -> None:
        """Check what concerns several keys.

        Raises:
            ConfigError: If the loss has no weight, or the least learning rate is above the first.
        """
        if self.energy_weight + self.force_weight == 0:
            msg = "`training.energy_weight` and `training.force_weight` are both 0; then nothing is learned."
            raise ConfigError(
                msg, hint="Set `training.force_weight` above 0.", key="training.force_weight", value=0.0
            )
        if self.min_learning_rate > self.learning_rate:
            msg = (
                f"`training.min_learning_rate` is {self.min_learning_rate}, above "
                f"`training.learning_rate` ({self.learning_rate})."
            )
            raise ConfigError(
                msg,
                hint=f"Set `training.min_learning_rate` to at most {self.learning_rate}.",
                key="training.min_learning_rate",
                value=self.min_learning_rate,
            )
