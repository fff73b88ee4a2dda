"""Replay: what a log tells, and the lines that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace as with_changes
from pathlib import Path

import pytest

from fff.base.errors import LogDamagedError, RunDirectoryError
from fff.data.events import Event
from fff.steering.active_learning.policy import POLICY_VERSION
from fff.steering.replay import replay
from tests.support.playing_campaigns import Game

LOG = Path("run/events.jsonl")


@pytest.fixture(scope="module")
def played() -> Game:
    """A campaign with two sittings and failures of all classes, up to the middle of its third round."""
    game = Game(pools=3, start_model=True, test={"n_frames": 20}, calculation={"max_attempts": 2})
    game.play_to_committee(0)
    game.lose(game.open[0])
    game.move({"gpu": 1, "cpu": 3})
    (request, *_) = game.play(lambda game: game.of("calculate")).of("calculate")
    game.fail(request, failure_class="structure")
    game.change_config(stop={"max_labels": 25})
    game.change(labels=[{"request": "label-00050", "hash": "s-found", "source": "active"}])
    return game.play(lambda game: game.state.committee.round == 2)


def changed(game: Game, index: int, **values) -> list[Event]:
    """Return the events of a game, one of them with other fields."""
    return [with_changes(e, **values) if e.seq == index else e for e in game.events]


def find(game: Game, kind: str, outcome: str = "done") -> Event:
    return next(event for event in game.events[1:] if (event.kind, event.outcome) == (kind, outcome))


def test_a_log_tells_the_policy_the_events_and_what_was_done(played):
    found = replay(played.events, LOG)
    assert found.policy.state == played.state
    assert found.events == played.events
    done = {event.request: event for event in played.events[1:] if event.request and event.outcome == "done"}
    assert {name: event for name, (_, event) in found.done.items()} == done
    for name, (request, event) in found.done.items():
        assert (request.id, request.kind, request.attempt) == (name, event.kind, event.attempt)
    assert "label-00050" not in found.done


def test_what_comes_after_is_taken_in_like_what_came_before(played):
    for n in range(1, len(played.events), 11):
        found = replay(played.events[:n], LOG)
        for event in played.events[n:]:
            found.take_in(event)
        assert found.policy.state == played.state
        assert found.events == played.events


def test_of_what_was_restored_the_new_values_count(played):
    name = find(played, "train").request
    restored = Event(len(played.events), "changed", values={"restored": {name: {"sha256": "anew"}}})
    found = replay([*played.events, restored], LOG)
    assert found.done[name][1].values["sha256"] == "anew"
    assert found.done[name][1].values["epochs"] == 10
    # The policy knows nothing of weights.
    assert found.policy.state == played.state


@pytest.mark.parametrize("events", [[], [Event(0, "train", "train-r000-m0")], [Event(0, "changed")]])
def test_a_log_that_does_not_begin_with_its_opening_is_damaged_at_its_first_line(events):
    with pytest.raises(LogDamagedError, match="line 1") as caught:
        replay(events, LOG)
    assert "head" not in caught.value.hint


@pytest.mark.parametrize("version", [None, POLICY_VERSION - 1, POLICY_VERSION + 1, str(POLICY_VERSION)])
def test_a_campaign_of_another_policy_is_refused_with_the_way_out(played, version):
    values = {**played.opened.values, "policy_version": version}
    with pytest.raises(RunDirectoryError, match=f"this fff has policy {POLICY_VERSION}") as caught:
        replay(changed(played, 0, values=values), LOG)
    assert f"was steered by policy {version}" in caught.value.message
    assert "provenance.json" in caught.value.hint
    assert "labels: [run/labels.db]" in caught.value.hint


@pytest.mark.parametrize("key", ["config", "capacity", "pool_of", "start_frames", "imported", "start_model"])
def test_an_opening_without_what_belongs_to_it_is_damage(played, key):
    values = {name: value for name, value in played.opened.values.items() if name != key}
    with pytest.raises(LogDamagedError, match="damaged at line 1: KeyError"):
        replay(changed(played, 0, values=values), LOG)


@pytest.mark.parametrize("key", ["config", "capacity", "start_frames", "imported"])
@pytest.mark.parametrize("value", [None, 7, "text", [1]], ids=str)
def test_an_opening_with_something_else_in_the_place_of_what_belongs_there_is_damage(played, key, value):
    with pytest.raises(LogDamagedError, match="damaged at line 1"):
        replay(changed(played, 0, values={**played.opened.values, key: value}), LOG)


def test_a_config_of_which_a_key_is_out_of_bounds_is_damage(played):
    config = {**played.opened.values["config"], "committee": {"size": -3}}
    with pytest.raises(LogDamagedError, match=r"damaged at line 1: ConfigError.*committee.size"):
        replay(changed(played, 0, values={**played.opened.values, "config": config}), LOG)


@pytest.mark.parametrize("n", [5, 30, 60])
def test_an_event_that_answers_nothing_is_damage_at_its_line(played, n):
    stranger = Event(n, "calculate", "label-99999", values={"wall_s": 1.0})
    events = [*played.events[:n], stranger, *(with_changes(e, seq=e.seq + 1) for e in played.events[n:])]
    with pytest.raises(LogDamagedError, match=f"damaged at line {n + 1}: it does not follow") as caught:
        replay(events, LOG)
    assert "label-99999" in caught.value.message
    assert f"head -n {n}" in caught.value.hint


def test_an_event_that_is_told_twice_is_damage(played):
    event = find(played, "calculate")
    events = [*played.events[: event.seq + 1], with_changes(event, seq=event.seq + 1)]
    with pytest.raises(LogDamagedError, match=f"damaged at line {event.seq + 2}"):
        replay(events, LOG)


def test_an_event_of_another_attempt_or_kind_is_damage(played):
    event = find(played, "dynamics")
    for change in ({"attempt": 2}, {"attempt": 0}, {"kind": "score"}, {"kind": "opened"}, {"kind": "x"}):
        with pytest.raises(LogDamagedError, match=f"damaged at line {event.seq + 1}"):
            replay(changed(played, event.seq, **change), LOG)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("dynamics", "last"), ("dynamics", "others"), ("score", "deviations"), ("choose", "frames")],
)
def test_a_result_without_what_it_says_is_damage_at_its_line(played, kind, key):
    event = find(played, kind)
    values = {name: value for name, value in event.values.items() if name != key}
    with pytest.raises(LogDamagedError, match=f"damaged at line {event.seq + 1}"):
        replay(changed(played, event.seq, values=values), LOG)


def test_a_change_that_tells_of_nothing_known_is_damage(played):
    n = len(played.events)
    for values in (
        {"restored": {"train-r099-m0": {"sha256": "x"}}},
        {"restored": [1]},
        {"config": {"kind": "nonsense"}},
        {"capacity": {"shared": 2}},
        {"capacity": 3, "pool_of": {}},
        {"labels": [{"request": "label-00001"}]},
        {"labels": 4},
    ):
        with pytest.raises(LogDamagedError, match=f"damaged at line {n + 1}"):
            replay([*played.events, Event(n, "changed", values=values)], LOG)


def test_names_that_are_none_are_found_before_anything_is_made_of_them(played):
    event = find(played, "reference-dynamics")
    with pytest.raises(LogDamagedError, match="a name or a number up to here is none"):
        replay(changed(played, event.seq, values={**event.values, "file": 7})[: event.seq + 1], LOG)


def test_a_line_that_was_taken_out_is_noticed_or_its_request_is_open_again(played):
    # The numbers are mended, so that only the policy can tell.
    noticed = 0
    for n in range(1, len(played.events) - 1, 3):
        if played.events[n].kind == "changed":
            continue
        rest = [with_changes(e, seq=e.seq - 1) for e in played.events[n + 1 :]]
        try:
            found = replay([*played.events[:n], *rest], LOG)
        except LogDamagedError as error:
            noticed += error.context["line"] > n
        else:
            assert played.events[n].request in found.policy.open_requests
            noticed += 1
    assert noticed > len(played.events) // 4


def test_a_replay_takes_what_json_gives(played):
    again = [Event.from_line(json.dumps(json.loads(event.to_line()))) for event in played.events]
    assert replay(again, LOG).policy.state == played.state
