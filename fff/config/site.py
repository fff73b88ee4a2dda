"""Section `site`: the machine a campaign runs on, by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fff.base.errors import ConfigError
from fff.config.section import Section, TextList

__all__ = ["LaptopSite", "SiteSection", "WorkstationSite"]


class LaptopSite(Section):
    """One machine without accelerators; all kinds of task share its cores."""

    kind: Literal["laptop"] = Field(
        "laptop", description="One pool of workers on the cores found, for all kinds of task."
    )
    n_workers: int | None = Field(
        None, ge=1, le=1000, description="Workers, each doing one task at a time; null: one per core found."
    )


class WorkstationSite(Section):
    """One machine whose accelerators train and score while its cores sample and calculate."""

    kind: Literal["workstation"] = Field(
        "workstation", description="A pool of workers each with an accelerator, and one on the other cores."
    )
    n_gpus: int = Field(
        0,
        ge=0,
        le=64,
        description="Accelerators (CUDA devices) to use, from number 0 on; each gets one worker.",
    )
    accelerators: TextList = Field(
        default=[],
        description="Numbers of the accelerators to use, where the first `n_gpus` are not the right ones.",
    )
    n_gpu_workers: int = Field(
        1,
        ge=1,
        le=1000,
        description="Workers that take the accelerators' part on the CPU where there are none.",
    )
    n_cpu_workers: int | None = Field(
        None, ge=1, le=1000, description="CPU workers; null: the cores found less one per accelerator worker."
    )

    @property
    def devices(self) -> list[str]:
        """Ids of the accelerators; empty when CPU workers take their part."""
        return list(self.accelerators) or [str(i) for i in range(self.n_gpus)]

    def check(self) -> None:
        """Check what concerns several keys.

        Raises:
            ConfigError: If accelerators are named and another number of them is given.
        """
        named = len(self.accelerators)
        if named and self.n_gpus not in (0, named):
            msg = f"`site.n_gpus` is {self.n_gpus}, but `site.accelerators` names {named}."
            hint = "Leave `site.n_gpus` out where `site.accelerators` is given."
            raise ConfigError(msg, hint=hint, key="site.n_gpus", value=self.n_gpus)
        if len(set(self.accelerators)) < named:
            msg = f"`site.accelerators` names a device twice: {', '.join(self.accelerators)}."
            raise ConfigError(
                msg, hint="Name each device once.", key="site.accelerators", value=self.accelerators
            )


SiteSection = Annotated[LaptopSite | WorkstationSite, Field(discriminator="kind")]
