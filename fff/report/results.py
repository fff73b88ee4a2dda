"""The parts of a report about what was asked and what came out."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.base.durations import duration
from fff.report import verdict
from fff.report.agreement import agreement_of
from fff.report.html import Markup, join, table, tag
from fff.report.numbers import DASH, interval, number, percent
from fff.report.parity import draw_parity, errors_by_element
from fff.report.pictures.audits import NO_AUDIT, PASSED, audited_runs, draw_audits
from fff.report.pictures.choice import draw_choice
from fff.report.pictures.deviation import before_training, draw_deviation, on_the_test_set
from fff.report.pictures.learning import draw_learning_curve
from fff.report.pictures.structure_map import draw_map
from fff.report.record import by_source
from fff.report.sittings import sittings_of
from fff.report.viewer import describe_worst, find_viewer, viewer_markup, worst_structures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fff.report.drawing import Drawing
    from fff.report.press import Press
    from fff.report.record import Prediction, Record

__all__ = [
    "asked",
    "audits",
    "deviation",
    "labels",
    "learning",
    "opening",
    "parity",
    "structure_map",
    "worst",
]

_PLAIN = frozenset({"kind", "method", "representation", "functional", "basis", "calculator"})

MOST_LEFT = 0.9
"""Part of the energy error that may be left without a shift for the shift to be worth telling."""

LONGEST_CONFIG = 200_000
"""Characters of the config that are put into the page."""


def opening(press: Press) -> Markup:
    """Return state, verdict, and what to do next."""
    record = press.record
    advice, command = verdict.next_step(record)
    tiles = [
        tag("div", tag("b", value), tag("span", what), class_="tile") for value, what in verdict.tiles(record)
    ]
    return join(
        [
            tag("p", " ".join(verdict.sentences(record)), class_="verdict"),
            press.part(
                "The result of the audits", lambda: tag("p", verdict.audits(record), class_="verdict")
            ),
            tag("div", *tiles, class_="tiles"),
            tag("p", tag("b", "What next. "), advice, class_="next"),
            tag("pre", command, class_="command") if command else "",
        ]
    )


def asked(press: Press) -> Markup:
    """Return the config, in short and whole."""
    record = press.record
    of = record.setting
    temperatures = of("sampling.temperature_K", [])
    temperatures = temperatures if isinstance(temperatures, list) else [temperatures]
    given = [*of("structures", []), *of("labels", [])]
    size, every = number(of("committee.size")), number(of("training.retrain_every"))
    step = of("sampling.timestep_fs", DASH)
    heat = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in temperatures)
    energy, force = (
        of(f"audit.{key}") for key in ("energy_tolerance_eV_per_atom", "force_tolerance_eV_per_A")
    )
    rows = [
        ("structures", ", ".join(map(str, given)) or DASH),
        ("reference", _settings(of("reference", {}), "kind", "method", "functional", "basis", "calculator")),
        (
            "model",
            _settings(of("model", {}), "representation", "n_features", "n_layers", "cutoff_A", "start"),
        ),
        ("committee", f"{size} members, trained again every {every} labels"),
        ("dynamics", f"{of('sampling.thermostat', DASH)}, {heat} K, steps of {step} fs"),
        ("selection", f"{of('selection.rule', DASH)}, by the deviation {of('selection.deviation', DASH)}"),
        ("audit tolerances", f"{energy} eV/atom, {force} eV/Å"),
        ("test set", _test_set(record)),
        ("ends at", f"{number(of('stop.max_labels'))} labels"),
        ("site", str(of("site.kind", DASH))),
    ]
    try:
        text = record.run.config.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        text = f"config.yaml cannot be read: {error.strerror or error}"
    if len(text) > LONGEST_CONFIG:
        text = f"{text[:LONGEST_CONFIG]}\n… (the rest is in config.yaml)"
    whole = tag("details", tag("summary", "The whole config"), tag("pre", text))
    return join([table(["", ""], rows, class_="text keys"), whole])


def _settings(section: Any, *keys: str) -> str:
    values = section if isinstance(section, dict) else {}
    known = [key for key in keys if values.get(key) is not None]
    return ", ".join(str(values[key]) if key in _PLAIN else f"{key} {values[key]}" for key in known) or DASH


def _test_set(record: Record) -> str:
    n_frames = record.setting("test.n_frames")
    if n_frames == 0 and not record.setting("test.labels"):
        return "none"
    count = "structures" if n_frames is None else f"{number(n_frames)} structures"
    return f"{count} {verdict.test_set_of(record)}"


def learning(press: Press) -> Markup:
    """Return the learning curve and its numbers."""
    record = press.record
    figure = press.figure("learning curve", draw_learning_curve)
    if not record.evaluations:
        return figure
    sittings = sittings_of(record)
    rows = [
        [
            evaluation.name if not evaluation.is_baseline else "as many random frames",
            number(evaluation.n_labels),
            number(evaluation.values["force_mae_meV_per_A"]),
            interval(evaluation.values.get("force_mae_interval_meV_per_A")),
            number(evaluation.values["force_rmse_meV_per_A"]),
            number(evaluation.values["energy_mae_meV_per_atom"]),
            duration(sittings.worked_by(evaluation.known_at)),
        ]
        for evaluation in record.evaluations
    ]
    heading = [
        "committee",
        "labels",
        "force MAE (meV/Å)",
        "95 % interval (meV/Å)",
        "force RMSE (meV/Å)",
        "energy MAE (meV/atom)",
        "trained after",
    ]
    return join([figure, table(heading, rows)])


def parity(press: Press) -> Markup:
    """Return predictions against the reference on the test set, and errors per element."""
    prediction = press.record.prediction
    if prediction is None:
        return tag("p", "No predictions on a test set are kept.", class_="quiet")

    def draw(_: Record) -> Drawing:
        title = f"{prediction.name} on {len(prediction.labels)} test structures"
        return draw_parity(prediction.labels, prediction.energy_eV, prediction.forces_eV_per_A, title=title)

    figure = press.figure("predictions against the reference", draw)
    said = [tag("p", sentence) for sentence in _energy_shift(prediction)]
    elements = errors_by_element(prediction.labels, prediction.forces_eV_per_A)
    rows = [
        [
            symbol,
            str(errors["n_atoms"]),
            number(errors["force_mae_meV_per_A"]),
            number(errors["force_rmse_meV_per_A"]),
        ]
        for symbol, errors in elements.items()
    ]
    heading = ["element", "atoms", "force MAE (meV/Å)", "force RMSE (meV/Å)"]
    return join([figure, *said, table(heading, rows)])


def _energy_shift(prediction: Prediction) -> list[str]:
    """Return how much of the energy error is the same for all structures, where that is much of it."""
    energy = np.array([label.energy_eV for label in prediction.labels])
    n_atoms = np.array([len(label.atoms) for label in prediction.labels])
    errors = (prediction.energy_eV - energy) / n_atoms * 1000.0
    # The median is the shift without which the mean absolute error is least.
    shift = float(np.median(errors))
    whole, rest = float(np.abs(errors).mean()), float(np.abs(errors - shift).mean())
    if rest > MOST_LEFT * whole:
        return []
    said = (
        f"Energies are typically {number(abs(shift))} meV/atom too {'high' if shift > 0 else 'low'} "
        "(median). What counts for dynamics are their differences: without that shift the mean absolute "
        f"error is {number(rest)} instead of {number(whole)} meV/atom."
    )
    return [said]


def deviation(press: Press) -> Markup:
    """Return whether the committee's disagreement is worth anything."""
    record = press.record
    said = []
    for what, (deviations, errors) in (
        ("On the test set", on_the_test_set(record)),
        ("On labels before training on them", before_training(record)),
    ):
        found = agreement_of(deviations, errors)
        if found is None:
            continue
        largest = f"{found.n_large} largest errors" if found.n_large > 1 else "largest error"
        if found.n_missed:
            missed = (
                f"of the {largest} {found.n_missed} ({percent(found.n_missed / found.n_large)}) had a small "
                f"deviation, below the median of {number(found.median_eV_per_A)} eV/Å: there the committee "
                "was sure and wrong"
            )
        else:
            missed = f"of the {largest} none had a small deviation (below the median)"
        said.append(
            f"{what} ({found.n_structures} structures) the rank correlation of deviation and error is "
            f"{found.rank_correlation:.2f}; {missed}."
        )
    figure = press.figure("deviation against error", draw_deviation)
    if not said:
        said = ["Too few structures have both a deviation and a known error to say how they go together."]
    said.append(
        "This is the raw deviation of the members, not a calibrated uncertainty: use it to rank structures, "
        "not as an error bar."
    )
    return join([*(tag("p", sentence) for sentence in said), figure])


def audits(press: Press) -> Markup:
    """Return how trajectories fared against the reference."""
    runs = audited_runs(press.record)
    audited = [run for run in runs if run.verdict != NO_AUDIT]
    passed = sum(run.verdict == PASSED for run in audited)
    said = (
        f"{len(runs)} runs of dynamics ended; {passed} of {len(audited)} audits of their last frames passed."
    )
    reasons = Counter(run.reason for run in runs)
    ends = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return join(
        [
            tag("p", said, f" Runs ended by: {ends}." if ends else ""),
            press.figure("audits", draw_audits),
        ]
    )


def labels(press: Press) -> Markup:
    """Return how each label was chosen."""
    record = press.record
    figure = press.figure("choice of labels", draw_choice)
    rows = []
    for source, items in by_source(record.judged).items():
        temperatures = sorted({item.temperature_K for item in items if math.isfinite(item.temperature_K)})
        rows.append(
            [
                source,
                str(len(items)),
                ", ".join(f"{temperature:g}" for temperature in temperatures) or DASH,
                _median([item.deviation_eV_per_A for item in items]),
                _median([item.error_eV_per_A for item in items]),
                duration(_sum([item.label.wall_s for item in items])),
            ]
        )
    heading = [
        "source",
        "labels",
        "temperatures (K)",
        "median deviation when chosen (eV/Å)",
        "median largest force error before training (eV/Å)",
        "reference time",
    ]
    return join([figure, table(heading, rows)]) if rows else figure


def _median(values: Sequence[float]) -> str:
    known = sorted(value for value in values if math.isfinite(value))
    if not known:
        return DASH
    middle = len(known) // 2
    return number(known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2)


def _sum(values: Sequence[float]) -> float:
    return sum(value for value in values if math.isfinite(value))


def structure_map(press: Press) -> Markup:
    """Return where the structures lie."""
    return press.figure("map of structures", draw_map)


def worst(press: Press) -> Markup:
    """Return the structures with the largest errors, as a table and in three dimensions."""
    found = worst_structures(press.record)
    if not found:
        return tag("p", "No structure has a known error yet.", class_="quiet")
    labels = "labels with the largest errors before anything was trained on them"
    which = (
        f"Structures of the test set with the largest errors of the last committee, then {labels}."
        if press.record.prediction
        else f"{labels.capitalize()}."
    )
    said = (
        f"{which} Look for what they have in common: a bond about "
        "to break, two molecules that touch, an angle that no training structure has."
    )
    is_shown = find_viewer() is not None
    if is_shown:
        how = tag(
            "p",
            "Drag to turn, scroll to zoom, the slider or a row of the table to go to another one.",
            class_="quiet screen-only",
        )
        return join([tag("p", said), how, viewer_markup(), describe_worst(found, shown=True)])
    line = (
        "The 3-D view is left out, because the package chemiscope is not installed: "
        "install it with `pip install chemiscope` and have the report written again."
    )
    press.warnings.append(line)
    return join([tag("p", said), tag("p", line, class_="note"), describe_worst(found, shown=False)])
