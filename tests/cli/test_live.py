"""No view is worth a campaign: whatever becomes of the terminal, the campaign goes on."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fff.cli import live
from fff.cli.live import LiveView
from fff.report.view import View
from tests.support.watched_campaigns import WatchedCampaign

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def campaign(tmp_path):
    made = WatchedCampaign(tmp_path / "run", began=time.time() - 60.0)
    made.play(until=lambda game: game.state.committee).write_status()
    return made


@pytest.fixture
def clock(monkeypatch):
    """A clock that every look at it puts forward by two seconds."""
    ticks = iter(range(0, 10_000, 2))
    monkeypatch.setattr(live.time, "monotonic", lambda: float(next(ticks)))


class Terminal(io.StringIO):
    """A terminal that may be closed."""

    is_gone = False

    def isatty(self):
        return True

    def write(self, text):
        if self.is_gone:
            raise OSError(5, "Input/output error")
        return super().write(text)


def lived(monkeypatch, campaign):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    return terminal, LiveView(campaign.run)


def test_lines_are_printed_above_the_view_and_no_thread_is_started(campaign, clock, monkeypatch):
    terminal, view = lived(monkeypatch, campaign)
    with view:
        assert threading.active_count() == 1
        view.say("a note [of] some kind")
        view.show()
    text = terminal.getvalue()
    assert "a note [of] some kind\n" in text
    assert text.count("Trainer") >= 2
    # The block is wiped in the end, line by line, and the cursor is there.
    assert "\x1b[2K" in text[text.rindex("Trainer") :]
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_it_is_drawn_once_a_second_at_most(campaign, monkeypatch):
    _, view = lived(monkeypatch, campaign)
    looks = []
    monkeypatch.setattr(view._view, "look", lambda: looks.append(1) or View(campaign.run).look())
    with view:
        for _ in range(50):
            view.show()
    assert len(looks) == 1


def test_a_terminal_that_is_closed_ends_nothing(campaign, clock, monkeypatch):
    terminal, view = lived(monkeypatch, campaign)
    with view:
        terminal.is_gone = True
        view.show()
        view.show()
    assert view._live is None


def test_a_view_that_fails_ends_nothing_and_is_told_of_in_the_log(campaign, clock, monkeypatch, caplog):
    terminal, view = lived(monkeypatch, campaign)
    with view:
        monkeypatch.setattr(view._view, "look", lambda: 1 / 0)
        view.show()
        view.say("goes on")
        view.show()
    assert "The live view failed" in caplog.text
    assert "goes on" in terminal.getvalue()


def test_an_error_in_the_campaign_goes_its_way_and_leaves_the_terminal_clean(campaign, monkeypatch):
    terminal, view = lived(monkeypatch, campaign)
    with pytest.raises(KeyboardInterrupt), view:
        raise KeyboardInterrupt
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_replace_lines_is_none(monkeypatch, term):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("TERM", "xterm")
    assert live.is_terminal()
    monkeypatch.setenv("LINES", "8")
    assert not live.is_terminal()
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("TERM", term or "dumb")
    assert not live.is_terminal()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not live.is_terminal()


def test_the_program_starts_without_what_only_a_view_needs():
    code = (
        "import sys, fff.cli.app\n"
        "print([name for name in ('rich', 'aiohttp', 'numpy', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ
    )
    assert done.stdout.strip() == "[]"
