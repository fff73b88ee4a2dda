"""Where a campaign stands: `status.json` for programs, a line a minute for people."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from fff.base.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fff.data.events import Event
    from fff.data.run_directory import RunDirectory

__all__ = ["StatusWriter", "describe", "describe_event"]

WRITE_EVERY_S = 2.0
SAY_EVERY_S = 60.0


class StatusWriter:
    """Keeps `status.json` current and says a line a minute.

    Args:
        run: The run directory.
        say: Prints a line for people.
        started: When the campaign began, in Unix seconds; now when None.
    """

    def __init__(
        self, run: RunDirectory, say: Callable[[str], None], *, started: float | None = None
    ) -> None:
        self.run = run
        self._say = say
        self.started = time.time() if started is None else started
        self._written = -WRITE_EVERY_S
        self._said = time.monotonic()

    def update(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Write and say what is due; `snapshot` is asked only then."""
        now = time.monotonic()
        if now - self._written < WRITE_EVERY_S:
            return
        current = snapshot()
        self.write(current, state="running", reason="", resumable=True)
        self._written = now
        if now - self._said >= SAY_EVERY_S:
            self._said = now
            self._say(describe(current))

    def write(self, snapshot: Mapping[str, Any], *, state: str, reason: str, resumable: bool) -> None:
        """Replace `status.json`."""
        now = time.time()
        status = {
            "schema_version": 1,
            "state": state,
            "reason": reason,
            "resumable": resumable,
            **snapshot,
            "workers": snapshot["usage"]["busy_fraction"],
            "started": self.started,
            "updated": now,
            "eta_s": _eta_s(snapshot) if state == "running" else None,
        }
        # Rewritten every two seconds: a power cut may cost the last of them.
        write_json(self.run.status, status, sync=state != "running")


def _eta_s(snapshot: Mapping[str, Any]) -> float | None:
    labels = snapshot["labels"]
    if not labels["done"]:
        return None
    per_label = snapshot["usage"]["elapsed_s"] / labels["done"]
    return float(round(per_label * max(0, labels["target"] - labels["done"]), 1))


def describe(snapshot: Mapping[str, Any]) -> str:
    """Return a snapshot as one line for people."""
    labels, waiting = snapshot["labels"], snapshot["waiting"]
    minutes = snapshot["usage"]["elapsed_s"] / 60
    running = ", ".join(f"{count} {kind}" for kind, count in snapshot["running"].items()) or "nothing"
    parts = [
        f"{minutes:5.1f} min",
        f"labels {labels['done']}/{labels['target']}"
        + (f" ({labels['failed']} failed)" if labels["failed"] else ""),
        f"round {'-' if snapshot['round'] is None else snapshot['round']}",
        f"waiting: {waiting['audits']} audits, {waiting['selected']} selected",
        f"audits passed: {snapshot['audits']['passed']}/{snapshot['audits']['made']}",
        f"running: {running}",
    ]
    errors = [error for name, error in snapshot["errors"].items() if name.startswith("round-")]
    if errors:
        parts.append(f"test force error {errors[-1]['force_mae_meV_per_A']:.0f} meV/Å")
    return " | ".join(parts)


def describe_event(event: Event) -> str:
    """Return an event as one line for people."""
    values = event.values
    took = event.times["ended"] - event.times["started"] if {"started", "ended"} <= set(event.times) else None
    head = f"{event.request}" + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
    if event.outcome == "failed":
        what = f"failed ({values.get('failure_class')}): {values.get('message')}"
    else:
        what = ", ".join(_DETAILS.get(event.kind, lambda _: [])(values)) or "done"
    return f"{head}: {what}" + ("" if took is None else f" [{took:.2f} s on {event.worker}]")


def _of_run(values: Mapping[str, Any]) -> list[str]:
    return [
        f"{values.get('steps')} steps",
        f"{values.get('reason')}",
        f"{len(values.get('others', ()))} frames",
    ]


def _of_label(values: Mapping[str, Any]) -> list[str]:
    if "energy_error" not in values:
        return []
    return [f"audit: {values['energy_error']:.4f} eV/atom", f"{values.get('force_error', math.nan):.3f} eV/Å"]


def _of_training(values: Mapping[str, Any]) -> list[str]:
    error = values.get("validation_force_mae_eV_per_A")
    left_out = "no label left out" if error is None else f"{1000 * error:.0f} meV/Å on labels left out"
    return [f"{values.get('epochs')} epochs", f"{values.get('stop_reason')}", left_out]


def _of_test(values: Mapping[str, Any]) -> list[str]:
    return [f"test force error {values.get('force_mae_meV_per_A', math.nan):.1f} meV/Å"]


_DETAILS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "dynamics": _of_run,
    "calculate": _of_label,
    "train": _of_training,
    "train-baseline": _of_training,
    "evaluate": _of_test,
}
