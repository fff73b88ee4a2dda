"""`fff check`: validate a config, then try out all that a campaign with it needs."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fff.cli.border import FAILED, STOPPED, Border
from fff.cli.flags import (
    CommitteeSize,
    ConfigFile,
    MaxLabels,
    Override,
    Reference,
    RetrainEvery,
    RunDir,
    Seed,
    SiteKind,
    changes,
)
from fff.cli.live import tell
from fff.cli.options import AsJson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fff.campaigns.checking import Finding
    from fff.config import LoadedConfig

__all__ = ["check"]

_MARKS = {"ok": "✔", "warning": "!", "failed": "✘", "skipped": "-"}
_PLAIN_MARKS = {"ok": "+", "warning": "!", "failed": "x", "skipped": "-"}
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}
_NAME_WIDTH = 15
_WIDEST = 120
_LEAST_WIDTH = 40


def check(
    config: ConfigFile,
    max_labels: MaxLabels = None,
    committee_size: CommitteeSize = None,
    retrain_every: RetrainEvery = None,
    reference: Reference = None,
    site: SiteKind = None,
    seed: Seed = None,
    run_dir: RunDir = None,
    wait: Annotated[
        str | None, typer.Option(help="How long one label may take: 90s, 30m; 5m by default.", metavar="TIME")
    ] = None,
    as_json: AsJson = False,
    override: Override = None,
) -> None:
    """Check a config, then try out what a campaign needs.

    Codes, accelerators, one real label, the workers, stores and queues, disk; and what it will cost. Nothing
    is written into the run directory, and nothing is left behind.
    """
    given = {
        "max_labels": max_labels,
        "committee_size": committee_size,
        "retrain_every": retrain_every,
        "reference": reference,
        "site": site,
        "seed": seed,
        "run_dir": run_dir,
    }
    with Border(), _one_way_to_stop():
        from fff.base.durations import seconds
        from fff.campaigns.checking import LONGEST_LABEL_S
        from fff.config import load_config

        flags = changes(given)
        loaded = load_config(config, override or [], flags=flags)
        wait_s = LONGEST_LABEL_S if wait is None else seconds(wait, "--wait")
        try:
            findings = _show(loaded, wait_s, quiet=as_json)
        except KeyboardInterrupt:
            typer.echo("Stopped: the check was interrupted; nothing is left of it.", err=True)
            raise typer.Exit(STOPPED) from None
    n_failed = sum(finding.status == "failed" for finding in findings)
    if as_json:
        tell(json.dumps(_as_json(str(config), findings, n_failed), ensure_ascii=False))
    else:
        tell(f"\n{_last_line(str(config), findings, has_flags=bool(flags or override))}")
    raise typer.Exit(FAILED if n_failed else 0)


@contextlib.contextmanager
def _one_way_to_stop() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: end the workers, remove the folder."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _show(loaded: LoadedConfig, wait_s: float, *, quiet: bool) -> list[Finding]:
    """Print each finding when it is known, and meanwhile what is done; return all of them."""
    from fff.campaigns.checking import check as look

    findings = []
    # A thread that drew a spinner would be there at the fork of the task server; so the line stands still.
    waiting = _WaitingLine(err=quiet)
    with contextlib.closing(look(loaded, wait_s=wait_s, announce=waiting.show)) as found:
        try:
            for finding in found:
                waiting.clear()
                findings.append(finding)
                if not quiet:
                    _print(finding)
                waiting.show_again()
        finally:
            waiting.clear()
    return findings


class _WaitingLine:
    """A line that says what is being done; only on a terminal, and gone with the next line.

    Args:
        err: Whether it goes to standard error.
    """

    def __init__(self, *, err: bool) -> None:
        self._file = sys.stderr if err else sys.stdout
        self._is_terminal = self._file.isatty()
        self._text = ""

    def show(self, text: str) -> None:
        """Show what is done now."""
        self._text = text
        self.clear()
        self.show_again()

    def show_again(self) -> None:
        """Show it below a line that was printed."""
        if self._is_terminal:
            width = max(shutil.get_terminal_size().columns - 1, 1)
            self._file.write(f"… {self._text} …"[:width])
            self._file.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_terminal:
            self._file.write("\r\x1b[2K")
            self._file.flush()


def _print(finding: Finding) -> None:
    mark = _marks()[finding.status]
    width = _WIDEST
    if sys.stdout.isatty():
        width = min(max(shutil.get_terminal_size().columns, _LEAST_WIDTH), _WIDEST)
    first = f"  {finding.probe:<{_NAME_WIDTH}}"
    lines = _wrapped(finding.found, first, " " * len(first), width - 1)
    if finding.repair:
        arrow = " " * len(first) + ("→ " if mark == _MARKS[finding.status] else "> ")
        lines += _wrapped(finding.repair, arrow, " " * len(arrow), width - 1)
    tell(typer.style(mark, fg=_COLOURS[finding.status], bold=True) + "\n".join(lines)[1:])


def _wrapped(text: str, first: str, rest: str, width: int) -> list[str]:
    """Return the lines of a text of several lines, each broken where it is too long."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        start = rest if lines else first
        lines += textwrap.wrap(
            line.strip(),
            width,
            initial_indent=start,
            subsequent_indent=rest,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return lines


def _marks() -> dict[str, str]:
    try:
        "".join(_MARKS.values()).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN_MARKS
    return _MARKS


def _last_line(config: str, findings: list[Finding], *, has_flags: bool) -> str:
    n_failed, n_warnings = (sum(f.status == status for f in findings) for status in ("failed", "warning"))
    warnings = f", {n_warnings} to think about (!)" if n_warnings else ""
    if n_failed:
        what = "One thing" if n_failed == 1 else f"{n_failed} things"
        return f"{what} to repair{warnings}: see the lines with {_marks()['failed']}."
    flags = " and the same flags" if has_flags else ""
    return f"All is in order{warnings}. Start it with: fff run {config}{flags}"


def _as_json(config: str, findings: list[Finding], n_failed: int) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "config": config,
        "ok": n_failed == 0,
        "findings": [
            {
                "probe": finding.probe,
                "status": finding.status,
                "found": finding.found,
                "repair": finding.repair,
                "values": dict(finding.values),
            }
            for finding in findings
        ],
    }
