"""Writes the report of a run directory: one page that needs nothing else, figures beside their numbers."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fff.base.errors import RunDirectoryError
from fff.base.files import write_text
from fff.report import process, results
from fff.report.html import Markup, join, raw, tag
from fff.report.numbers import when
from fff.report.press import Press
from fff.report.record import read_record
from fff.report.viewer import find_viewer, scripts, worst_structures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fff.data.run_directory import RunDirectory
    from fff.report.record import Record

__all__ = ["Report", "write_report"]

_SECTIONS = (
    ("asked", "What was asked", results.asked),
    ("learning", "Learning curve", results.learning),
    ("parity", "Predictions against the reference", results.parity),
    ("deviation", "Is the uncertainty worth anything?", results.deviation),
    ("audits", "Audits of trajectories", results.audits),
    ("labels", "How each label was chosen", results.labels),
    ("map", "Where the structures lie", results.structure_map),
    ("worst", "The worst structures", results.worst),
    ("workers", "Workers, and where time was lost", process.workers),
    ("failures", "Failures", process.failures),
    ("cost", "Cost per label", process.cost),
    ("provenance", "Provenance", process.provenance),
    ("files", "Files", process.files),
)


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: The page.
        figures: The folder with the figures.
        warnings: What could not be read or made, a sentence each; the page says it too.
    """

    path: Path
    figures: Path
    warnings: list[str]


def write_report(run: RunDirectory, output: Path | None = None) -> Report:
    """Write the report of a campaign, whatever its state, from its files alone.

    No lock is taken and nothing of the campaign is changed. Parts that fail are a line in the page.

    Args:
        run: The run directory.
        output: The page; `report.html` in the run directory when None.

    Raises:
        RunDirectoryError: If there is no campaign, or the page cannot be written.
    """
    began = time.monotonic()
    page = run.report if output is None else output.absolute()
    record = read_record(run)
    _check_writable(page)
    # Elsewhere a folder of the same name may be somebody's.
    figures = run.path / "figures" if page == run.report else page.with_name(f"{page.stem}_figures")
    press = Press(record, page, figures)
    head = press.part("The verdict", partial(results.opening, press))
    sections = [
        (anchor, title, press.part(f"The section “{title}”", partial(make, press)))
        for anchor, title, make in _SECTIONS
    ]
    inlined, allowed = _scripts(press)
    warnings = [*record.troubles, *press.warnings]
    body = join(
        [
            _header(record, head, warnings),
            _contents(sections),
            tag("main", *(_section(*section) for section in sections)),
            _footer(record, time.monotonic() - began),
            inlined,
        ]
    )
    try:
        write_text(page, _document(record, body, allowed))
    except OSError as error:
        raise _unwritable(page, error) from error
    return Report(page, figures, warnings)


def _check_writable(page: Path) -> None:
    """Find out before the work whether the page can be written."""
    if page.is_dir():
        msg = f"{page} is a folder, where the report is to be written."
        raise RunDirectoryError(msg, hint="Give the name of a file, for example report.html.", path=str(page))
    probe = page.with_name(f".{page.name}.probe")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(page, error) from error


def _unwritable(page: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(
        f"The report {page} cannot be written: {error.strerror or error}.",
        hint="Write it elsewhere with --output FILE.",
        path=str(page),
    )


def _scripts(press: Press) -> tuple[Markup, list[str]]:
    """Return the viewer with its structures, and what the page's policy must allow."""
    viewer = find_viewer()
    if viewer is None:
        return raw(""), []
    try:
        worst = worst_structures(press.record)
        return scripts(worst, viewer) if worst else (raw(""), [])
    except Exception as error:  # noqa: BLE001 - any damaged input costs its part of the report only
        press.warnings.append(f"The 3-D view could not be made: {type(error).__name__}: {error}.")
        return raw(""), []


def _header(record: Record, head: Markup, warnings: Sequence[str]) -> Markup:
    state = record.standing.state
    name = str(record.setting("name", record.run.path.name))
    parts = [tag("h1", name, " ", tag("span", state, class_=f"state {state}")), head]
    if warnings:
        listed = tag("ul", *(tag("li", warning) for warning in warnings))
        parts.append(tag("div", tag("b", "What this report lacks"), listed, class_="note"))
    return tag("header", *parts)


def _contents(sections: Sequence[tuple[str, str, Markup]]) -> Markup:
    links = [tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title, _ in sections]
    return tag("nav", tag("ol", *links), aria_label="Contents")


def _section(anchor: str, title: str, content: Markup) -> Markup:
    return tag("section", tag("h2", title), content, id=anchor)


def _footer(record: Record, took_s: float) -> Markup:
    version = importlib.metadata.version("fff")
    return tag(
        "footer",
        f"Written {when(record.read_at)} by fff {version} in {took_s:.1f} s from {record.run.path}. "
        "This page needs no network, and its policy allows none. The 3-D view is chemiscope (BSD 3-clause "
        "licence, chemiscope.org), taken from the installed package.",
    )


def _document(record: Record, body: Markup, allowed: Sequence[str]) -> str:
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    name = str(record.setting("name", record.run.path.name))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(allowed)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{name}: report of a campaign"),
        tag("style", raw(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _policy(allowed: Sequence[str]) -> str:
    """Return a policy under which the page loads nothing, sends nothing, and runs these scripts only."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in allowed]
    scripts_allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts_allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src data:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
