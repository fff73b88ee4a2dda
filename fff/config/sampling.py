"""Sections about dynamics: `sampling`, `audit`, `test`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fff.base.errors import ConfigError
from fff.config.section import PATH, Fraction, NumberList, PathText, Positive, PositiveInt, Section

__all__ = ["AuditSection", "SamplingSection", "TestSection"]


class SamplingSection(Section):
    """Molecular dynamics with the present model."""

    n_parallel: PositiveInt = Field(4, description="Trajectories that run at the same time.")
    n_trajectories: int = Field(
        8, ge=1, le=100_000, description="Trajectories altogether; at least one for each start structure."
    )
    n_steps: PositiveInt = Field(
        200,
        description=(
            "Length of a run at first, in time steps; its last frame is audited, and the length then adapts."
        ),
    )
    min_steps: PositiveInt = Field(
        20, description="Least length of a run, in time steps, after audits that failed."
    )
    max_steps: PositiveInt = Field(
        5000, description="Greatest length of a run, in time steps, after audits that passed."
    )
    thermostat: Literal["langevin", "nve", "npt"] = Field(
        "langevin",
        description=(
            "Dynamics at constant temperature (langevin), constant energy (nve), or constant pressure "
            "and temperature (npt, periodic structures only)."
        ),
    )
    temperature_K: NumberList = Field(
        default=[300.0], description="Target temperature, or several from which each run draws one."
    )
    timestep_fs: float = Field(
        0.5, gt=0, le=10, description="Time step; a tenth of the fastest vibration's period at most."
    )
    friction_per_fs: float = Field(
        0.01, gt=0, le=10, description="Friction of the thermostat: how fast it takes heat in and out."
    )
    pressure_GPa: float = Field(0.0, description="Target pressure, with thermostat npt only.")
    check_every: PositiveInt = Field(
        10, description="Time steps between two looks at the committee's deviation and at the guards below."
    )
    stop_deviation_eV_per_A: Positive = Field(
        2.0, description="A run ends where the committee's force deviation on an atom is above this."
    )
    max_temperature_factor: float = Field(
        10.0,
        gt=1,
        description="A run ends above this multiple of the target temperature plus its natural fluctuation.",
    )
    max_force_eV_per_A: Positive = Field(
        30.0, description="A run ends where the force on an atom is above this."
    )
    min_distance_factor: Fraction = Field(
        0.6, description="A run ends when two atoms come closer than this part of the sum of covalent radii."
    )
    n_frames: int = Field(10, ge=0, description="Frames a run returns for scoring, besides its last.")
    skin_A: float = Field(
        0.5,
        ge=0,
        le=3,
        description=(
            "Distance beyond the cutoff that neighbour lists cover, so that they last for several "
            "steps; speed only."
        ),
    )
    time_limit_s: Positive = Field(
        3600.0, description="Time after which a run ends in order, with the frames it has."
    )

    def check(self) -> None:
        """Check what concerns several keys.

        Raises:
            ConfigError: If two keys contradict each other.
        """
        for low, high in (
            ("min_steps", "n_steps"),
            ("n_steps", "max_steps"),
            ("check_every", "min_steps"),
            ("n_parallel", "n_trajectories"),
        ):
            a, b = getattr(self, low), getattr(self, high)
            if a > b:
                msg = f"`sampling.{low}` is {a}, above `sampling.{high}` ({b})."
                hint = f"Set `sampling.{low}` to at most {b}, or `sampling.{high}` to at least {a}."
                raise ConfigError(msg, hint=hint, key=f"sampling.{low}", value=a)


class AuditSection(Section):
    """The check of a trajectory's last frame by the reference."""

    energy_tolerance_eV_per_atom: Positive = Field(
        0.01,
        description=(
            "Error of the model's energy up to which an audit is passed and the trajectory goes on."
        ),
    )
    force_tolerance_eV_per_A: Positive = Field(
        0.5, description="Root mean square error of the model's forces up to which an audit is passed."
    )
    fraction: Fraction = Field(
        0.5, description="Chance that the next calculation is an audit where selected frames wait too."
    )
    on_failure: Literal["restart", "last-valid"] = Field(
        "restart",
        description="Where a trajectory goes on after a failed audit: its start, or its last audited frame.",
    )


class TestSection(Section):
    """The test set: made once, outside the loop, never trained on."""

    __test__ = False  # pytest takes classes of this name for tests

    labels: PathText | None = Field(
        None,
        json_schema_extra=PATH,
        description=(
            "File of structures with energies and forces to test on; null: they are made by dynamics "
            "that the reference drives."
        ),
    )
    temperatures_K: NumberList = Field(
        default=[300.0], description="Temperatures of the dynamics that make the test set."
    )
    n_frames: int | None = Field(
        50,
        ge=0,
        le=1_000_000,
        description="Structures of the test set, evenly spaced; 0: no test set; null: all of `test.labels`.",
    )
    interval_steps: PositiveInt = Field(20, description="Time steps between two frames of these dynamics.")
    timestep_fs: float = Field(0.5, gt=0, le=10, description="Time step of these dynamics.")
    equilibration_steps: int = Field(100, ge=0, description="Time steps before the first frame.")
    random_baseline: bool = Field(
        False,
        description=(
            "At the end also train a committee on frames of such dynamics, not chosen but as many as there "
            "are labels, imported ones counted too."
        ),
    )

    def check(self) -> None:
        """Check what concerns several keys.

        Raises:
            ConfigError: If all labels are asked for where no file of labels is given, or a comparison on a
                test set that is not made.
        """
        if self.n_frames is None and self.labels is None:
            msg = "`test.n_frames` is null (all), but `test.labels` names no file."
            hint = "Give `test.labels`, or a number of frames."
            raise ConfigError(msg, hint=hint, key="test.n_frames", value=None)
        if self.random_baseline and self.n_frames == 0:
            msg = "`test.random_baseline` is true, but `test.n_frames` is 0: no test set compares the two."
            hint = "Set `test.n_frames` above 0, or `test.random_baseline: false`."
            raise ConfigError(msg, hint=hint, key="test.random_baseline", value=True)
