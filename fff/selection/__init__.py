"""Which frames are worth a reference calculation, and whether a trajectory may go on."""

from __future__ import annotations

from fff.selection.audit import AuditErrors, audit_errors, audit_frame
from fff.selection.deviation import Deviations, deviations
from fff.selection.rules import SelectionRule, make_rule

__all__ = [
    "AuditErrors",
    "Deviations",
    "SelectionRule",
    "audit_errors",
    "audit_frame",
    "deviations",
    "make_rule",
]
