"""The parts of a report about how a campaign went: workers, failures, cost, provenance, files."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING, Any

from fff.base.durations import duration
from fff.base.errors import RunDirectoryError
from fff.base.files import inside
from fff.data.run_directory import CONTENTS
from fff.report.failures import LEFT_OUT, Failures
from fff.report.html import Markup, join, table, tag
from fff.report.numbers import DASH, bytes_, percent, when
from fff.report.pictures.cost import draw_cost, worker_seconds
from fff.report.pictures.timeline import draw_timeline
from fff.report.sittings import account_of_slots, sittings_of
from fff.report.standing import number as number_in
from fff.report.standing import part

if TYPE_CHECKING:
    from pathlib import Path

    from fff.report.failures import Cause
    from fff.report.press import Press

__all__ = ["cost", "failures", "files", "provenance", "workers"]

MOST_LINKS = 5


def workers(press: Press) -> Markup:
    """Return what the workers did, and where their time went."""
    record = press.record
    figure = press.figure("workers over time", draw_timeline)
    sittings = sittings_of(record)
    held_back = number_in(part(record.status, "usage"), "held_back_slot_s") or 0.0
    account = account_of_slots(record.events, sittings, held_back)
    if not account.total_s:
        return figure
    spent = sorted(account.done_s.items(), key=lambda item: -item[1])
    lost = [
        ("failed tasks", account.failed_s),
        ("start-up, until the first task began", account.start_up_s),
        ("on the way, between sending a task and its beginning", account.overhead_s),
        (
            "left idle until a newer committee could choose labels (calculation.max_ahead)",
            account.held_back_s,
        ),
        ("idle, since all that could be done next waited for other tasks", account.waiting_s),
    ]
    rows = [
        [what, duration(time), percent(time / account.total_s), _bar(time / account.total_s)]
        for what, time in [*spent, *((what, time) for what, time in lost if time > 0)]
    ]
    n_sittings = len(sittings.stretches)
    said = (
        f"{percent(account.busy)} of the slots' time was spent on tasks that gave a result, in "
        f"{duration(sittings.worked_s)}"
        + (f" of work in {n_sittings} sittings." if n_sittings > 1 else " of work.")
    )
    return join([tag("p", said), figure, table(["slots' time", "time", "part", ""], rows)])


def _bar(share: float) -> Markup:
    return tag("div", tag("i", style=f"width:{100 * min(1.0, share):.1f}%"), class_="bar")


def failures(press: Press) -> Markup:
    """Return what failed, by cause, with the traces."""
    record = press.record
    found = Failures()
    for event in record.events:
        found.add(event)
    causes = found.causes()
    if not causes:
        return tag("p", "No task failed.")
    n_failed = sum(event.outcome == "failed" for event in record.events)
    n_tasks = sum(bool(event.request) for event in record.events)
    rows = [
        [
            cause.reason,
            str(cause.count),
            cause.kind,
            "member left out" if cause.failure_class == LEFT_OUT else cause.failure_class,
            tag("span", when(cause.last_seen) if cause.last_seen else DASH, class_="whole"),
            _traces(press, cause),
        ]
        for cause in causes
    ]
    said = (
        f"{n_failed} of {n_tasks} tasks failed ({percent(n_failed / max(1, n_tasks))}). A failed task is an "
        "event like any other: class retry is tried again, structure is set aside, setup ends the campaign "
        "when it repeats."
    )
    heading = ["reason", "times", "task", "class", "last seen", "traces"]
    return join([tag("p", said), table(heading, rows, class_="text")])


def _traces(press: Press, cause: Cause) -> Markup:
    links: list[str] = []
    newest = cause.traces[: -MOST_LINKS - 1 : -1]
    for trace in newest:
        links.append(_trace(press, trace))
        links.append(tag("br"))
    more = len(cause.traces) - len(newest)
    return join([*links, f"and {more} more in tasks/" if more > 0 else ""]) if links else join([DASH])


def _trace(press: Press, trace: str) -> str:
    try:
        path = inside(press.record.run.path, trace)
        if not path.is_file():
            return f"{trace} (gone)"
        return tag("span", press.link(path, trace), class_="whole")
    except (RunDirectoryError, OSError, ValueError):
        return trace


def cost(press: Press) -> Markup:
    """Return what a label cost."""
    record = press.record
    figure = press.figure("cost of labels", draw_cost)
    made = [item.label.wall_s for item in record.judged if item.source != "imported"]
    times = [time for time in made if time > 0]
    if not made:
        return figure
    spent = worker_seconds(record)
    total = sum(spent.values())
    each = duration(total / len(made))
    said = [f"{len(made)} labels took {duration(total)} of worker time, {each} each, all tasks included."]
    if times:
        said.append(
            f"The reference calculation itself took {duration(statistics.median(times))} (median), "
            f"{duration(max(times))} at most, {duration(sum(times))} in all."
        )
    tasks = [event.times for event in record.done("calculate")]
    workers_s = [task["ended"] - task["started"] for task in tasks if {"started", "ended"} <= task.keys()]
    if workers_s:
        said.append(
            f"A worker was busy with it for {duration(statistics.median(workers_s))} (median), since files "
            "are read and written besides: that is the time that `fff status` and `fff watch` tell."
        )
    return join([tag("p", " ".join(said)), figure])


def provenance(press: Press) -> Markup:
    """Return with what, where and from what the campaign was made."""
    record = press.record
    content = record.provenance
    if not content:
        return tag("p", "provenance.json is missing or damaged.", class_="note")
    versions = part(content, "versions")
    commit = content.get("git_commit")
    changed = " (with changes)" if content.get("git_changed") else ""
    packages = [f"{name} {version}" for name, version in versions.items() if version and name != "fff"]
    machine = (f"{content.get(key, DASH)}" for key in ("host", "n_cores", "platform"))
    rows = [
        ("seed", str(content.get("seed", DASH))),
        ("started", str(content.get("started", DASH))),
        ("host", "{}, {} cores, {}".format(*machine)),
        ("command", _words(content.get("command"))),
        ("fff", f"{versions.get('fff', DASH)}" + (f", commit {commit}{changed}" if commit else "")),
        ("Python", str(content.get("python", DASH))),
        ("packages", ", ".join(packages)),
    ]
    parts = [table(["", ""], rows, class_="text keys")]
    inputs = [item for item in _list(content.get("inputs")) if isinstance(item, dict)]
    if inputs:
        listed = [[str(item.get("path")), tag("code", str(item.get("sha256")))] for item in inputs]
        parts.append(table(["input", "sha256"], listed, class_="text"))
    resumed = [item for item in _list(content.get("resumed")) if isinstance(item, dict)]
    if resumed:
        listed = [
            [
                str(item.get("started")),
                str(item.get("host")),
                str(part(item, "versions").get("fff")),
                _words(item.get("command")),
            ]
            for item in resumed
        ]
        parts.append(tag("h3", "Went on"))
        parts.append(table(["when", "host", "fff", "command"], listed, class_="text"))
    return join(parts)


def _words(command: Any) -> str:
    return " ".join(str(word) for word in _list(command)) or DASH


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def files(press: Press) -> Markup:
    """Return what lies in the run directory, with sizes."""
    root = press.record.run.path
    rows = []
    for name, what in CONTENTS:
        path = root / name
        if path == press.page or path == press.figures or not path.exists():
            continue
        if path.is_dir():
            n_files, size = _count(path)
            rows.append([press.link(path, name), what, f"{n_files} files", bytes_(size)])
        else:
            rows.append([press.link(path, name), what, "", bytes_(path.stat().st_size)])
    said = tag("p", "The run directory is ", tag("code", str(root)), ".")
    return join([said, table(["file", "what it holds", "", "size"], rows, class_="text")])


def _count(folder: Path) -> tuple[int, int]:
    """Return how many files lie in and below a folder, and their bytes."""
    n_files = size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - many files
            except OSError:
                continue  # gone meanwhile: a campaign may be running
            n_files += 1
    return n_files, size
