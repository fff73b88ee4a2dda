"""Stages: the life of a long loop. A training or a run of dynamics is a generator of steps; the rest is here.

Checkpoints by interval, going on from the newest sound one, stopping on request, tables whose rows beyond the
resumed step are cut, and the rule for numbers that are not finite: one place for all of them, `Stage.run`.
"""

from __future__ import annotations

from fff.stages.building import StageBuilder
from fff.stages.checkpoints import Checkpoint, Checkpoints, State
from fff.stages.stage import DIAGNOSIS, Lifetime, NonFinite, Resumable, Stage, StageResult, Status
from fff.stages.tables import Growing, Table

__all__ = [
    "DIAGNOSIS",
    "Checkpoint",
    "Checkpoints",
    "Growing",
    "Lifetime",
    "NonFinite",
    "Resumable",
    "Stage",
    "StageBuilder",
    "StageResult",
    "State",
    "Status",
    "Table",
]
