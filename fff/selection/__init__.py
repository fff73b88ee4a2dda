"""Which frames are worth a reference calculation, and whether a trajectory may go on."""

from __future__ import annotations

from fff.selection.audit import AuditVerdict, audit_verdict
from fff.selection.deviation import Deviations, deviations
from fff.selection.rules import SelectionRule, make_rule

__all__ = ["AuditVerdict", "Deviations", "SelectionRule", "audit_verdict", "deviations", "make_rule"]
