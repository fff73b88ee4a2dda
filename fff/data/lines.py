"""Events, the status of a campaign, and durations as lines for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fff.base.durations import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fff.data.events import Event

__all__ = ["describe_event", "describe_outcome", "describe_pools", "describe_status"]


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


def describe_status(status: Mapping[str, Any]) -> str:
    """Return what `status.json` holds as one line for people."""
    labels, waiting = status["labels"], status["waiting"]
    minutes = status["usage"]["elapsed_s"] / 60
    running = ", ".join(f"{count} {kind}" for kind, count in status["running"].items()) or "nothing"
    eta_s = status.get("eta_s")
    parts = [
        f"{minutes:5.1f} min",
        f"labels {labels['done']}/{labels['target']}"
        + (f" ({labels['failed']} failed)" if labels["failed"] else "")
        + ("" if eta_s is None else f", {duration(eta_s)} to the last"),
        f"round {'-' if status['round'] is None else status['round']}",
        f"waiting: {waiting['audits']} audits, {waiting['selected']} selected",
        f"audits passed: {status['audits']['passed']}/{status['audits']['made']}",
        f"running: {running}",
        "busy: " + describe_pools(status["workers"], status.get("pools", {})),
    ]
    errors = [error for name, error in status["errors"].items() if name.startswith("round-")]
    if errors:
        interval = errors[-1].get("force_mae_interval_meV_per_A")
        between = f" ({interval[0]:.0f} - {interval[1]:.0f})" if interval else ""
        parts.append(f"test force error {errors[-1]['force_mae_meV_per_A']:.0f}{between} meV/Å")
    return " | ".join(parts)


def describe_pools(busy: Mapping[str, float], pools: Mapping[str, Any]) -> str:
    """Return what part of its time each pool was busy, and what workers it still waits for.

    Args:
        busy: Parts by name of the pool.
        pools: What `status.json` says of them; only those of batch systems have `jobs_waiting`.

    Example:
        >>> describe_pools({"cpu": 0.9, "gpu": 1.0}, {})
        'cpu 90%, gpu 100%'
        >>> describe_pools({"cpu": 0.9}, {"cpu": {"slots": 4, "workers": 2, "jobs_waiting": 1}})
        'cpu 90% (2 of 4 workers, 1 job waiting)'
    """
    return ", ".join(f"{name} {part:.0%}{_what_is_missing(pools.get(name))}" for name, part in busy.items())


def _what_is_missing(pool: Any) -> str:
    names = ("slots", "workers", "jobs_waiting")
    told = [pool.get(name) for name in names] if isinstance(pool, dict) else []
    numbers = [number for number in told if isinstance(number, int)]
    if len(numbers) < len(names):
        return ""
    slots, workers, waiting = numbers
    parts = [f"{workers} of {slots} workers"] if workers < slots else []
    parts += [f"{waiting} {'job' if waiting == 1 else 'jobs'} waiting"] if waiting else []
    return f" ({', '.join(parts)})" if parts else ""


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
