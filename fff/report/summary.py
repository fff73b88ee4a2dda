"""The summary at the end of a campaign: errors and where the time went, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fff.base.files import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fff.data.run_directory import RunDirectory

__all__ = ["no_errors", "summary_table", "write_summary"]


def write_summary(run: RunDirectory, snapshot: Mapping[str, Any], *, has_test_set: bool) -> str:
    """Write `summary.json` and `summary.txt`; return the latter's text.

    Args:
        run: The run directory.
        snapshot: State and numbers of the campaign.
        has_test_set: Whether its config asks for a test set.
    """
    table = summary_table(snapshot, has_test_set=has_test_set)
    write_json(run.path / "summary.json", {"schema_version": 1, **snapshot})
    write_text(run.path / "summary.txt", table)
    return table


def summary_table(snapshot: Mapping[str, Any], *, has_test_set: bool) -> str:
    """Return the errors on the test set and the time by kind of task, as text."""
    audits = snapshot["audits"]
    line = (
        f"Audits: {audits['passed']} of {audits['made']} passed (the reference checks the last frame of a "
        f"run of dynamics); the best trajectory passed {audits['most_in_a_row']} one after the other"
    )
    errors = _errors(snapshot, has_test_set=has_test_set)
    return "\n".join([*errors, "", line, *_set_aside(snapshot), *_times(snapshot["usage"])]) + "\n"


def _set_aside(snapshot: Mapping[str, Any]) -> list[str]:
    reasons = Counter(reason.splitlines()[0] for reason in snapshot["set_aside"].values() if reason)
    if not reasons:
        return []
    n_failed = snapshot["labels"]["failed"]
    reason, count = reasons.most_common(1)[0]
    what = "structure was" if n_failed == 1 else "structures were"
    return [f"{n_failed} {what} set aside without a label; most often ({count}): {reason}"]


def _errors(snapshot: Mapping[str, Any], *, has_test_set: bool) -> list[str]:
    errors: Mapping[str, Mapping[str, Any]] = snapshot["errors"]
    rounds = sorted(name for name in errors if name.startswith("round-"))
    if not rounds:
        return [no_errors(snapshot, has_test_set=has_test_set)]
    rows = [(f"first committee ({rounds[0]})", errors[rounds[0]])]
    last = rounds[-1]
    if len(rounds) > 1:
        rows.append((f"last committee ({last})", errors[last]))
    if "baseline" in errors:
        rows.append(("as many random frames", errors["baseline"]))
    first = errors[rounds[0]]
    lines = [
        f"Errors on {first['n_structures']} test structures that no committee was trained on",
        "",
        _row("", ["labels", "force MAE", "95 % interval", "force RMSE", "energy MAE"]),
        _row("", ["", "meV/Å", "meV/Å", "meV/Å", "meV/atom"]),
    ]
    lines += [_row("mean force as predictor", ["", f"{first['mean_force_mae_meV_per_A']:.1f}", "", "", ""])]
    for name, error in rows:
        interval = error["force_mae_interval_meV_per_A"]
        numbers = [
            str(error["n_labels"]),
            f"{error['force_mae_meV_per_A']:.1f}",
            "not known" if interval is None else f"{interval[0]:.1f} - {interval[1]:.1f}",
            f"{error['force_rmse_meV_per_A']:.1f}",
            f"{error['energy_mae_meV_per_atom']:.2f}",
        ]
        lines.append(_row(name, numbers))
    present = snapshot["round"]
    if present is not None and last != f"round-{present:03d}":
        why = snapshot["first_failures"].get("evaluate", "the campaign ended before it was measured")
        lines += ["", f"The present committee is that of round-{present:03d}; its error is not known: {why}."]
    return lines


def no_errors(snapshot: Mapping[str, Any], *, has_test_set: bool) -> str:
    """Return why no error on a test set is known, as far as a snapshot says."""
    failures = snapshot.get("first_failures")
    failures = failures if isinstance(failures, dict) else {}
    why = failures.get("reference-dynamics") or failures.get("evaluate")
    if not has_test_set:
        why = "no test set was asked for (test.n_frames is 0)"
    elif not why and snapshot.get("round") is None:
        why = "no committee was complete yet"
    return f"No error on a test set is known: {why or 'no committee was measured on the test set yet'}."


def _times(usage: Mapping[str, Any]) -> list[str]:
    busy = ", ".join(f"{pool} {fraction:.0%}" for pool, fraction in usage["busy_fraction"].items())
    lines = [
        (
            f"Time: {usage['elapsed_s']:.0f} s; workers busy: {busy}; "
            f"left idle until a newer committee chooses labels (calculation.max_ahead): "
            f"{usage['held_back_slot_s']:.0f} s of all workers"
        ),
        "",
        _row("", ["tasks", "failed", "worker s", "s per task"]),
    ]
    for kind, row in usage["by_kind"].items():
        each = row["worker_s"] / max(1, row["tasks"])
        lines.append(
            _row(kind, [str(row["tasks"]), str(row["failed"]), f"{row['worker_s']:.1f}", f"{each:.2f}"])
        )
    return lines


def _row(name: str, cells: Sequence[str]) -> str:
    return f"  {name:<28}" + "".join(f"{cell:>15}" for cell in cells)
