"""A real campaign is watched while it runs: on a terminal, and as a page in a real browser."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from fff.data.events import read_events
from tests.integration.test_campaign import OVERRIDES
from tests.support.browser import browser, complaints, resize

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from fff.cli.app import main; main()"]
ENOUGH_S = 300.0


class Terminal:
    """A terminal on which a program runs, and everything that it was told."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self._leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (36, 110))
        os.set_blocking(self._leader, False)
        self.text = ""
        environment = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        os.close(follower)

    def read(self) -> str:
        """Take in what came, and return all of it."""
        try:
            while piece := os.read(self._leader, 65536):
                self.text += piece.decode(errors="replace")
        except OSError:  # nothing now, or nothing any more
            pass
        return self.text

    def read_until(self, wanted: str) -> None:
        end = time.monotonic() + ENOUGH_S
        while not re.search(wanted, self.read()):
            assert time.monotonic() < end, f"no {wanted!r} in {self.text[-3000:]!r}"
            time.sleep(0.1)

    def end(self) -> int:
        """Wait for the program, and return its exit code."""
        end = time.monotonic() + ENOUGH_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text[-3000:]
            self.read()
            time.sleep(0.1)
        self.read()
        os.close(self._leader)
        return self.process.returncode


def config(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text("structures: [bulk:Cu:1x1x1]\nreference: {kind: ase, calculator: emt}\n")
    return path


def start(folder: Path) -> Terminal:
    overrides = [part for override in OVERRIDES for part in ("-o", override)]
    return Terminal("run", str(config(folder)), "--run-dir", str(folder / "run"), *overrides, folder=folder)


def test_the_page_follows_a_campaign_to_its_end_and_the_terminal_is_left_clean(tmp_path):
    terminal = start(tmp_path)
    watching = None
    try:
        # In the live view, not in a line that was printed.
        terminal.read_until(r"\x1b\[.*RUNNING")
        watching = subprocess.Popen(
            [*PROGRAM, "watch", str(tmp_path / "run"), "--web"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        address = watching.stdout.readline().split()[1]
        counts, states = watch_in_browser(address, terminal)
        assert terminal.end() == 0
    finally:
        terminal.process.kill()
        if watching is not None:
            watching.terminate()
            watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert counts == sorted(counts)
    assert len(set(counts)) >= 3
    assert counts[-1] == 20
    assert "Running" in states
    assert states[-1] == "Finished"
    assert len(read_events(tmp_path / "run" / "events.jsonl")) > 20
    check_terminal(terminal.text)


def watch_in_browser(address: str, terminal: Terminal) -> tuple[list[int], list[str]]:
    """Return the numbers of labels and the states that the page has shown, until the campaign is over."""
    counts: list[int] = []
    states: list[str] = []
    end = time.monotonic() + ENOUGH_S
    with browser() as page:
        page.get(address)
        while not states or states[-1] != "Finished":
            assert time.monotonic() < end, (counts, states)
            terminal.read()
            count, state, lost = page.execute_script(
                "const at = id => document.getElementById(id);"
                "return [at('done').textContent, at('state').textContent, at('lost').textContent];"
            )
            assert lost == ""
            if count.isdigit() and (not counts or counts[-1] != int(count)):
                counts.append(int(count))
            if not states or states[-1] != state:
                states.append(state)
            time.sleep(0.2)
        assert len(page.find_elements("css selector", "#curve circle")) >= 2
        assert page.find_elements("css selector", "#lanes svg")
        resize(page, 390, 800)
        time.sleep(2.0)  # as wide as a phone; nothing is wider, also not what was drawn before
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        assert complaints(page) == []
    return counts, states


def check_terminal(text: str) -> None:
    """Check that the view was seen, that it is gone, and that the last words are as ever."""
    assert "Trainer" in text
    assert "Calculator" in text
    assert "\x1b[?1049h" not in text
    # Whoever is killed cannot show the cursor again: it is not hidden but for a moment.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    last = text[text.rindex("To stop it") :]
    assert "Trainer" not in last
    assert "Audits: " in last
    assert re.search(r"Finished: 20 labels were made, .*Results in ", last)
    assert "Traceback" not in text


def test_ctrl_c_stops_a_campaign_whose_view_is_on_the_terminal(tmp_path):
    terminal = start(tmp_path)
    try:
        terminal.read_until(r"\x1b\[.*RUNNING")
        terminal.read_until(r"label-0000\d")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 3
    finally:
        terminal.process.kill()
    last = terminal.text[terminal.text.rindex("To stop it") :]
    assert re.search(r"Stopped: SIGINT was received\. Resume with: fff resume ", last)
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
