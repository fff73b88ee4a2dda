"""Molecular dynamics: runs of a model for the campaign, and of the reference for its test set."""

from __future__ import annotations

from fff.sampling.dynamics import DynamicsResult, DynamicsSettings, run_dynamics
from fff.sampling.reference_run import reference_dynamics

__all__ = ["DynamicsResult", "DynamicsSettings", "reference_dynamics", "run_dynamics"]
