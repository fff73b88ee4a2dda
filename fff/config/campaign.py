"""The whole config of an active-learning campaign, and what concerns several of its sections."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from fff.base.errors import ConfigError
from fff.base.launch_line import placeholders_in
from fff.base.redaction import find_secret
from fff.config.choosing import CalculationSection, QueueSection, SelectionSection, StopSection
from fff.config.learning import CommitteeSection, ModelSection, StartSection, TrainingSection
from fff.config.redis import RedisSection
from fff.config.reference import AseReference, ReferenceSection
from fff.config.sampling import AuditSection, SamplingSection, TestSection
from fff.config.section import PATH, PathText, Section
from fff.config.site import LaptopSite, PbsSite, SiteSection

__all__ = ["DEFAULT_KINDS", "ActiveLearningConfig"]

DEFAULT_KINDS = {"site": "laptop"}
"""Kinds that sections have which name none."""

_LONGEST_NAME_BYTES = 255


class ActiveLearningConfig(Section):
    """A campaign: structures in, a trained committee and its labels out."""

    schema_version: Literal[1] = Field(1, description="Version of the layout of this file.")
    kind: Literal["active-learning"] = Field(
        "active-learning", description="What the campaign does; there is one kind so far."
    )
    name: str = Field(
        "campaign",
        max_length=100,
        pattern=r"^[^/\\.\x00-\x1f\x7f-\x9f][^/\\\x00-\x1f\x7f-\x9f]*$",
        description="Name of the campaign, and of its folder in runs/; the config file's name when left out.",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description=(
            "Number that everything random follows from; another one packs, displaces, trains and "
            "chooses otherwise."
        ),
    )
    structures: list[PathText] = Field(
        default=[],
        json_schema_extra=PATH,
        description=(
            "Where trajectories start: files that ASE reads (all frames, or some, as file.xyz@0:10), folders "
            "of such, or names: molecule:CH3CH2OH, s22:Water_dimer, cluster:H2O:3..6, bulk:Cu:2x2x2."
        ),
    )
    labels: list[PathText] = Field(
        default=[],
        json_schema_extra=PATH,
        description=(
            "Files or ASE databases of structures with energies and forces, by the same reference "
            "method, to train on from the first."
        ),
    )
    run_dir: PathText | None = Field(
        None, json_schema_extra=PATH, description="Where everything is written; null: runs/NAME."
    )
    model: ModelSection = Field(default_factory=ModelSection, description="The force field.")
    reference: ReferenceSection = Field(description="What makes labels.")
    start: StartSection = Field(default_factory=StartSection, description="The first labels.")
    committee: CommitteeSection = Field(default_factory=CommitteeSection, description="The committee.")
    training: TrainingSection = Field(default_factory=TrainingSection, description="The training.")
    sampling: SamplingSection = Field(default_factory=SamplingSection, description="The dynamics.")
    audit: AuditSection = Field(default_factory=AuditSection, description="The check of trajectories.")
    selection: SelectionSection = Field(default_factory=SelectionSection, description="What is labelled.")
    calculation: CalculationSection = Field(
        default_factory=CalculationSection, description="The reference calculations."
    )
    queue: QueueSection = Field(default_factory=QueueSection, description="Moving workers.")
    test: TestSection = Field(default_factory=TestSection, description="The test set.")
    stop: StopSection = Field(default_factory=StopSection, description="The end.")
    site: SiteSection = Field(default_factory=LaptopSite, description="The machine.")
    redis: RedisSection = Field(default_factory=RedisSection, description="A Redis server.")

    @property
    def batch_size(self) -> int:
        """Frames chosen at once: `selection.batch_size`, or as many as a retraining needs."""
        return self.selection.batch_size or self.training.retrain_every

    @property
    def max_ahead(self) -> int:
        """Labels one committee may cause: `calculation.max_ahead`, or twice a retraining's."""
        return self.calculation.max_ahead or 2 * self.training.retrain_every

    @model_validator(mode="before")
    @classmethod
    def _fill_kinds(cls, data: Any) -> Any:
        """Read an empty section as one of defaults, and a site without kind as the default kind."""
        if not isinstance(data, dict):
            return data
        sections = {key for key in cls.model_fields if key in data and _is_section(key)}
        filled = {key: ({} if data[key] is None else data[key]) for key in sections}
        for key, kind in DEFAULT_KINDS.items():
            if isinstance(filled.get(key), dict):
                filled[key] = {"kind": kind, **filled[key]}
        return {**data, **filled}

    @model_validator(mode="after")
    def _check_across(self) -> ActiveLearningConfig:
        for key in type(self).model_fields:
            if isinstance(section := getattr(self, key), Section):
                section.check()
        _check_name(self)
        _check_inputs(self)
        _check_counts(self)
        _check_launch(self)
        _check_password_on_pbs(self)
        _check_secrets(self)
        return self


def _is_section(key: str) -> bool:
    field = ActiveLearningConfig.model_fields[key]
    annotation = field.annotation
    return field.discriminator is not None or (
        isinstance(annotation, type) and issubclass(annotation, Section)
    )


def _check_name(config: ActiveLearningConfig) -> None:
    if (size := len(config.name.encode())) > _LONGEST_NAME_BYTES:
        msg = (
            f"`name` takes {size} bytes, above the {_LONGEST_NAME_BYTES} that the name of a folder may have."
        )
        raise ConfigError(msg, hint="Choose a shorter one.", key="name", value=config.name)


def _check_inputs(config: ActiveLearningConfig) -> None:
    if config.structures or config.labels:
        return
    what = (
        "`model.start` is given, but nothing to sample: `structures` and `labels` are empty."
        if config.model.start
        else "`structures`, `labels` and `model.start` are all empty: there is nothing to start from."
    )
    hint = "Give structures, for example `structures: [molecule:CH3CH2OH]` or a file that ASE reads."
    raise ConfigError(what, hint=hint, key="structures", value=[])


def _check_counts(config: ActiveLearningConfig) -> None:
    retrain, total, first = config.training.retrain_every, config.stop.max_labels, config.start.n_labels
    rules = (
        ("start.n_labels", first, "stop.max_labels", total),
        ("training.retrain_every", retrain, "stop.max_labels", total),
        ("training.retrain_every", retrain, "calculation.max_ahead", config.max_ahead),
    )
    for low, a, high, b in rules:
        if a > b:
            msg = f"`{low}` is {a}, above `{high}` ({b})."
            hint = f"Set `{low}` to at most {b}, or `{high}` to at least {a}."
            raise ConfigError(msg, hint=hint, key=low, value=a)


def _check_launch(config: ActiveLearningConfig) -> None:
    """Refuse calculations on several slots where nothing would start them there."""
    key, most = "calculation.nodes_by_size", config.calculation.most_slots
    if most == 1:
        return
    wrong = f"`{key}` gives {most} slots to one calculation"
    if not isinstance(config.reference, AseReference):
        msg = f"{wrong}, but `reference.kind` {config.reference.kind} runs on one."
        hint = f"Leave `{key}` out, or choose an external code by `reference.kind: ase`."
        raise ConfigError(msg, hint=hint, key=key, value=config.calculation.nodes_by_size)
    if config.site.mpi_launch is None:
        msg = f"{wrong}, but `site.mpi_launch` is not set: nothing would start the code on them."
        hint = "Set it, for example to: mpiexec -n {ranks}"
        raise ConfigError(msg, hint=hint, key="site.mpi_launch", value=None)
    if not placeholders_in(config.site.mpi_launch):
        msg = f"{wrong}, but nothing in `site.mpi_launch` says so: {config.site.mpi_launch!r}."
        hint = "Write {ranks} for the number of ranks, as in: mpiexec -n {ranks}"
        raise ConfigError(msg, hint=hint, key="site.mpi_launch", value=config.site.mpi_launch)


def _check_password_on_pbs(config: ActiveLearningConfig) -> None:
    """Refuse a password that jobs would not have: PBS shows all users what goes along with a job."""
    name = config.redis.password_variable
    if config.redis.url is None or name is None or not isinstance(config.site, PbsSite):
        return
    reads_it = re.compile(rf'\s*export {re.escape(name)}="?\$\(.+\)"?\s*')
    for kind, nodes in config.site.nodes.items():
        if not any(map(reads_it.fullmatch, nodes.set_up)):
            msg = (
                f"`redis.password_variable` is {name}, which workers of `site.nodes.{kind}` would not have: "
                "PBS shows to all users what goes along with a job, so passwords do not."
            )
            hint = (
                "Leave the section `redis` out, as no server is needed; or have each kind of node read the "
                f"password from a file that only you can read, by a line of its `set_up`: export {name}="
                "$(cat ~/.redis-password)"
            )
            raise ConfigError(msg, hint=hint, key="redis.password_variable", value=name)


def _check_secrets(config: ActiveLearningConfig) -> None:
    """Refuse passwords: the config is copied into the run directory, and into the first event."""
    # The address of a Redis server may name a user; its section refuses passwords itself.
    if key := find_secret(config.model_dump(mode="json", exclude={"redis": {"url"}})):
        msg = f"`{key}` holds a password or token, of which copies would lie in the run directory."
        hint = "Leave it out; what needs one takes it from the environment, or from a file of its own."
        raise ConfigError(msg, hint=hint, key=key, value=None)
