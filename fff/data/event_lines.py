"""Events as lines for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fff.data.events import Event

__all__ = ["describe_event", "describe_outcome"]


def describe_event(event: Event) -> str:
    """Return an event as one line for people."""
    took = event.times["ended"] - event.times["started"] if {"started", "ended"} <= set(event.times) else None
    head = f"{event.request}" + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
    return f"{head}: {describe_outcome(event)}" + (
        "" if took is None else f" [{took:.2f} s on {event.worker}]"
    )


def describe_outcome(event: Event) -> str:
    """Return what came of the task that an event tells of, for people."""
    values = event.values
    if event.outcome == "failed":
        return f"failed ({values.get('failure_class')}): {values.get('message')}"
    return ", ".join(_DETAILS.get(event.kind, lambda _: [])(values)) or "done"


def _of_run(values: Mapping[str, Any]) -> list[str]:
    others = values.get("others", ())
    return [
        f"{values.get('steps')} steps",
        f"{values.get('reason')}",
        f"{len(others) if isinstance(others, (list, tuple)) else 0} frames",
    ]


def _of_label(values: Mapping[str, Any]) -> list[str]:
    if "energy_error" not in values:
        return []
    return [
        f"audit: {_number(values, 'energy_error'):.4f} eV/atom",
        f"{_number(values, 'force_error'):.3f} eV/Å",
    ]


def _of_training(values: Mapping[str, Any]) -> list[str]:
    known = values.get("validation_force_mae_eV_per_A") is not None
    error = 1000 * _number(values, "validation_force_mae_eV_per_A")
    left_out = f"{error:.0f} meV/Å on labels left out" if known else "no label left out"
    return [f"{values.get('epochs')} epochs", f"{values.get('stop_reason')}", left_out]


def _of_test(values: Mapping[str, Any]) -> list[str]:
    return [f"test force error {_number(values, 'force_mae_meV_per_A'):.1f} meV/Å"]


def _number(values: Mapping[str, Any], key: str) -> float:
    """Return a number of an event; NaN where there is none, since a log that is watched may hold anything."""
    value = values.get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


_DETAILS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "dynamics": _of_run,
    "calculate": _of_label,
    "train": _of_training,
    "train-baseline": _of_training,
    "evaluate": _of_test,
}
