"""A log that was cut anywhere, as a killed process leaves it, brings a campaign back to where it was.

The log of a real campaign is replayed in `test_campaign.py`; this one is of a played campaign, cut at places
that a real one would meet once in years.
"""

from __future__ import annotations

import copy

import pytest

from fff.data.events import EventLog, has_half_line, read_events
from fff.steering.replay import replay
from tests.support.playing_campaigns import Game


@pytest.fixture(scope="module")
def played():
    """A campaign of four sittings with failures of every kind: its events, and its state after each."""
    game = Game(
        pools=3, start_model=True, test={"n_frames": 20, "random_baseline": True}, start={"n_labels": 4}
    )
    sittings = {
        40: lambda: game.move({"gpu": 1, "cpu": 2}),
        75: lambda: game.change_config(stop={"max_labels": 26}, audit={"fraction": 0.3}),
        90: lambda: game.change(labels=[{"request": "label-00040", "hash": "s-found", "source": "active"}]),
    }
    states = [copy.deepcopy(game.state)]
    while game.policy.verdict is None:
        turn = len(game.events)
        request = game.open[turn * 7 % len(game.open)]
        if turn in sittings:
            sittings[turn]()
        elif turn % 6 == 0 and request.attempt == 1:
            game.fail(request, failure_class="structure" if turn % 12 == 0 else "retry")
        else:
            game.finish(request)
        states.append(copy.deepcopy(game.state))
    assert game.policy.verdict.state == "finished"
    assert len(game.events) > max(sittings)
    return game, states


def test_every_prefix_of_a_log_on_disk_replays_to_the_state_it_had_live(tmp_path, played):
    game, states = played
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        for event, state in zip(game.events, states, strict=True):
            log.append(event)
            policy = replay(read_events(path), path).policy
            assert policy.state == state
            assert policy.open_requests == state.open


def test_a_log_cut_at_any_byte_replays_to_its_last_whole_event_and_goes_on(tmp_path, played):
    game, states = played
    whole = tmp_path / "events.jsonl"
    with EventLog(whole) as log:
        for event in game.events:
            log.append(event)
    data = whole.read_bytes()
    first = data.index(b"\n") + 1
    path = tmp_path / "cut.jsonl"
    for size in range(first, len(data), 997):
        path.write_bytes(data[:size])
        n = data[:size].count(b"\n")
        assert has_half_line(path) == (data[size - 1 : size] != b"\n")
        with EventLog(path) as log:
            policy = replay(read_events(path), path).policy
            assert policy.state == states[n - 1]
            # What had no event yet is asked for again, and the campaign goes on as it did.
            assert game.events[n].kind == "changed" or game.events[n].request in policy.open_requests
            log.append(game.events[n])
        assert read_events(path) == game.events[: n + 1]
