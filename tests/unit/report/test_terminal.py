"""The view on a terminal fits it, whatever its size, and tells the same as the files."""

import io
import json
import time

import pytest
from rich.console import Console

from fff.data.run_lock import RunLock
from fff.report.terminal import plain, render, strip
from fff.report.view import View
from tests.support.watched_campaigns import WatchedCampaign

SIZES = [(60, 15), (60, 24), (75, 24), (80, 24), (100, 30), (120, 40), (200, 50), (40, 12)]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A campaign in its second round, with failures, errors and notes."""
    made = WatchedCampaign(tmp_path_factory.mktemp("watched") / "run", began=time.time() - 120.0)
    made.play(until=lambda game: game.of("calculate") and game.state.committee)
    made.fail(made.game.of("calculate")[0], "\x1b[2J\x07SCF took 251 cycles [bold]and more[/bold]\n\x1b]0;x")
    made.play(until=lambda game: game.state.training is not None and game.state.training.number == 1)
    error = {
        "n_labels": 4,
        "n_structures": 60,
        "force_mae_meV_per_A": 90.4,
        "force_mae_interval_meV_per_A": [70.2, 110.9],
    }
    made.write_status(errors={"round-000": error, "baseline": {**error, "force_mae_meV_per_A": 85.0}})
    lock = RunLock(made.run.lock)
    lock.take()
    yield made
    lock.release()


def printed(view, width, height=None):
    file = io.StringIO()
    Console(file=file, width=width, height=height, color_system=None).print(render(view, width, height))
    return file.getvalue()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_line_fits_and_so_do_all_of_them(campaign, width, height):
    lines = printed(View(campaign.run).look(), width, height).splitlines()
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width
    text = "\n".join(lines)
    assert "RUNNING" in text
    assert " of 20 labels" in text
    for panel in ("Trainer", "Sampler", "Selector", "Calculator"):
        assert panel in text


def test_the_numbers_are_those_of_the_files(campaign):
    view = View(campaign.run).look()
    text = printed(view, 120)
    assert f"{view['labels']['done']} of 20 labels, 1 failed" in text
    assert "of round 0, on 4 labels" in text
    assert "round 1" in text
    assert "90 meV/Å, 95 %: 70 - 111" in text
    assert "random frames 85" in text
    assert "1 x calculate (structure): " in text
    assert "workers busy: shared 75%" in text
    assert f"To stop it: fff stop {campaign.run.path}"[:100] in text


def test_what_a_program_has_printed_moves_no_cursor_and_sets_no_style(campaign):
    text = printed(View(campaign.run).look(), 120)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "SCF took 251 cycles [bold]and more[/bold]" in text
    assert plain("a\x1b[31mb\tc\r") == "a [31mb c "


def test_a_terminal_of_few_colours_loses_nothing(campaign):
    view = View(campaign.run).look()
    file = io.StringIO()
    Console(file=file, width=120, color_system="standard", force_terminal=True).print(render(view, 120))
    assert "\x1b[" in file.getvalue()
    assert "T train" in printed(view, 120)


@pytest.mark.parametrize("state", ["starting", "left", "failed", "stopped", "finished", "else"])
def test_every_state_has_a_word_and_a_way_to_go_on(campaign, state):
    view = {**View(campaign.run).look(), "state": state, "reason": "the reason why"}
    text = printed(view, 80, 24)
    assert state.upper() in text
    assert ("the reason why" in text) == (state != "finished")
    assert "fff " in text.splitlines()[-1]


def test_a_campaign_of_which_nothing_is_known_is_shown(tmp_path):
    from fff.data.run_directory import RunDirectory

    text = printed(View(RunDirectory(tmp_path)).look(), 80, 24)
    assert "LEFT" in text
    assert "no label yet" in text


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [[1]], {"a": {}}, {"made": "x"}])
def test_a_status_with_wrong_values_is_shown(campaign, value):
    good = json.loads(campaign.run.status.read_text())
    try:
        for key in good.keys() - {"schema_version", "state"}:
            campaign.run.status.write_text(json.dumps({**good, key: value}))
            printed(View(campaign.run).look(), 80, 24)
    finally:
        campaign.run.status.write_text(json.dumps(good))


def test_a_strip_in_fewer_characters_keeps_failures():
    assert strip("TTTT..DDDDDx", 4).plain == "T·Dx"
    assert strip("T" * 120, 500).plain == "T" * 120
    assert strip("", 5).plain == "·" * 5


def test_many_failures_and_many_workers_leave_room_for_the_rest(campaign):
    view = View(campaign.run).look()
    (cause,) = view["warnings"]
    view["warnings"] = [cause] * 20
    view["lanes"] = {**view["lanes"], "lanes": view["lanes"]["lanes"][:1] * 32, "n_slots": 1000}
    text = printed(view, 120, 40)
    assert len(text.splitlines()) <= 40
    assert "(968 more)" in text
    assert "Warnings" in text
    assert "Last events" in text


def test_the_middle_of_the_deviations_is_called_so_on_every_width(campaign):
    view = View(campaign.run).look()
    view["selector"]["deviations"] |= {"lowest": 0.14, "median": 0.2, "highest": 0.26, "unit": "eV/Å"}
    assert "middle 0.20, to 0.26 eV/Å" in printed(view, 80)
    assert "0.20 in the middle, 0.14 to 0.26 eV/Å" in printed(view, 120)
