"""`fff status` and `fff watch`: from files alone, with the state as it really is."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from typer.testing import CliRunner

from fff.cli.app import app
from fff.data.run_lock import RunLock
from tests.support.watched_campaigns import WatchedCampaign

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from fff.cli.app import main; main()"]
PLAIN = {**os.environ, "TERM": "xterm"}


def fff(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def campaign(tmp_path):
    made = WatchedCampaign(tmp_path / "run", began=time.time() - 60.0)
    made.play(until=lambda game: game.state.committee)
    return made


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_campaign_is_shown_and_nothing_is_written(campaign):
    campaign.play().write_status("finished", "20 labels were made")
    before = contents(campaign.run.path)
    result = fff("status", campaign.run.path)
    assert result.exit_code == 0
    assert "FINISHED" in result.stdout
    assert "20 of 20 labels" in result.stdout
    assert contents(campaign.run.path) == before


def test_a_campaign_whose_process_was_killed_was_left(campaign):
    campaign.write_status("running")
    result = fff("status", campaign.run.path)
    assert result.exit_code == 0
    assert "LEFT" in result.stdout
    assert "killed" in result.stdout
    assert "fff resume" in result.stdout


def test_json_is_one_object_with_the_state_as_it_is(campaign):
    campaign.write_status("running")
    told = json.loads(fff("status", campaign.run.path, "--json").stdout)
    recorded = json.loads(campaign.run.status.read_text())
    assert (told["schema_version"], told["state"], told["resumable"]) == (1, "left", True)
    assert told["labels"] == recorded["labels"]
    assert set(recorded) <= set(told)


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--watch",)])
def test_where_there_is_no_campaign_that_is_said(tmp_path, arguments):
    for folder in (tmp_path, tmp_path / "none", Path(__file__)):
        result = fff("status", folder, *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Error: There is no campaign in " in result.stderr
        assert "Hint: Give the folder that holds events.jsonl." in result.stderr


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(campaign):
    campaign.run.status.unlink(missing_ok=True)
    os.mkfifo(campaign.run.status)
    result = fff("status", campaign.run.path)
    assert result.exit_code == 2
    assert "is no regular file" in result.stderr


def test_a_damaged_log_is_read_as_far_as_it_goes(campaign):
    campaign.write_status("running")
    with campaign.run.events.open("a") as file:
        file.write("no event\n")
    result = fff("status", campaign.run.path)
    assert result.exit_code == 0
    assert "cannot be read" in result.stdout


def test_watching_what_is_over_shows_it_once_and_ends(campaign):
    campaign.play().write_status("finished", "20 labels were made")
    for command in (("status", "--watch"), ("watch",)):
        result = fff(command[0], campaign.run.path, *command[1:])
        assert result.exit_code == 0
        assert result.stdout.startswith("finished: 20 labels were made. Next: fff report ")


def read_until(handle, wanted, *, seconds=30.0):
    """Return what a terminal has been told, as soon as it holds some text."""
    os.set_blocking(handle, False)
    text, end = "", time.monotonic() + seconds
    while not re.search(wanted, text):
        assert time.monotonic() < end, f"no {wanted!r} in {text[-3000:]!r}"
        try:
            text += os.read(handle, 65536).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:  # the other side is closed
            assert re.search(wanted, text), f"no {wanted!r} in {text[-3000:]!r}"
    return text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_watching_on_a_terminal_leaves_it_as_it_was(campaign, number):
    lock = RunLock(campaign.run.lock)
    lock.take()
    campaign.write_status("running")
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (30, 100))
    try:
        process = subprocess.Popen(
            [*PROGRAM, "status", "--watch", str(campaign.run.path)],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=ROOT,
            env=PLAIN,
        )
        text = read_until(leader, "To stop it")
        process.send_signal(number)
        text += read_until(leader, r"\x1b\[\?1049l[\s\S]*To stop it")
        assert process.wait(timeout=20) == 0
    finally:
        lock.release()
        os.close(leader)
        os.close(follower)
    # It has its own screen and gives it back, the cursor too; then the last view stays.
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Traceback" not in text


def test_a_page_is_served_until_it_is_interrupted(campaign):
    campaign.write_status("running")
    process = subprocess.Popen(
        [*PROGRAM, "watch", str(campaign.run.path), "--web"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        told = [process.stdout.readline() for _ in range(5)]
        address = told[0].split()[1]
        with urllib.request.urlopen(f"{address}view.json", timeout=20) as answer:
            assert json.load(answer)["state"] == "left"
        with pytest.raises(HTTPError, match="403"):
            urllib.request.urlopen(re.sub(r"/[^/]+/$", "/", address), timeout=20)
        port = re.search(r":(\d+)/", address).group(1)
        again = fff("watch", campaign.run.path, "--web", "--port", port)
        assert again.exit_code == 2
        assert f"Error: The page cannot be served on port {port} of 127.0.0.1: " in again.stderr
        assert "Hint: Choose another with --port" in again.stderr
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert f"ssh -L {port}:127.0.0.1:{port} " in told[2]
    assert told[4] == "End    Ctrl-C\n"


def test_a_port_that_is_none_is_a_wrong_flag(campaign):
    assert fff("watch", campaign.run.path, "--web", "--port", "70000").exit_code == 2


@pytest.mark.parametrize("flags", [("--port", "8000"), ("--open",)])
def test_flags_of_the_page_without_it_are_refused(campaign, flags):
    result = fff("watch", campaign.run.path, *flags)
    assert result.exit_code == 2
    assert f"Invalid value for {flags[0]}: it belongs to --web" in result.stderr
