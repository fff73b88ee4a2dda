"""The config of a campaign: one frozen model per section, every parameter declared once."""

from __future__ import annotations

from fff.config.campaign import ActiveLearningConfig
from fff.config.choosing import CalculationSection, QueueSection, SelectionSection, StopSection
from fff.config.learning import CommitteeSection, ModelSection, StartSection, TrainingSection
from fff.config.loading import LoadedConfig, config_from_dict, config_to_yaml, load_config
from fff.config.problems import nearest, show
from fff.config.redis import RedisSection
from fff.config.reference import (
    AseReference,
    PyscfReference,
    ReferenceSection,
    XtbCliReference,
    XtbReference,
)
from fff.config.sampling import AuditSection, SamplingSection, TestSection
from fff.config.section import Section, unit_of
from fff.config.site import LaptopSite, SiteSection, WorkstationSite

__all__ = [
    "ActiveLearningConfig",
    "AseReference",
    "AuditSection",
    "CalculationSection",
    "CommitteeSection",
    "LaptopSite",
    "LoadedConfig",
    "ModelSection",
    "PyscfReference",
    "QueueSection",
    "RedisSection",
    "ReferenceSection",
    "SamplingSection",
    "Section",
    "SelectionSection",
    "SiteSection",
    "StartSection",
    "StopSection",
    "TestSection",
    "TrainingSection",
    "WorkstationSite",
    "XtbCliReference",
    "XtbReference",
    "config_from_dict",
    "config_to_yaml",
    "load_config",
    "nearest",
    "show",
    "unit_of",
]
