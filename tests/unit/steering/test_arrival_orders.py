"""Campaigns whose requests end in random orders and in random ways; what must hold whatever happens."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fff.steering.active_learning import ActiveLearning
from tests.support.drawing_campaigns import Chance, campaigns
from tests.support.playing_campaigns import Game

MAX_EVENTS = 6000
ANY = st.one_of(campaigns(), campaigns(large=True))
RATES = st.sampled_from([0.0, 0.05, 0.3])


def play(options: dict[str, Any], seed: int, rates: dict[str, float]) -> Game:
    """Play a campaign to its end; a second policy is fed the log, and must agree after every event."""
    game = Game(**options)
    replayed = ActiveLearning(game.opened)
    first = replayed.start()
    assert first == game.asked
    chance = Chance(seed, rates)
    while game.policy.verdict is None:
        assert len(game.events) < MAX_EVENTS, "it does not end"
        asked_before = len(game.asked)
        chance.step(game)
        assert replayed.handle(game.events[-1]) == game.asked[asked_before:]
        assert replayed.state == game.state
        assert replayed.open_requests == game.policy.open_requests
        assert replayed.live_models == game.policy.live_models
    return game


def check_finished(game: Game) -> None:
    """A campaign that finished made all its labels, and its last committee knows them all."""
    assert game.policy.verdict is not None
    assert game.policy.verdict.state == "finished"
    assert game.open == []
    assert game.n_made == game.config.stop.max_labels
    assert game.state.committee is not None
    assert game.state.committee.n_labels == len(game.labels)


NOTHING_FAILS = dict.fromkeys(
    ["fails", "fails again", "with its block", "its own", "ends at once", "met before", "no score"], 0.0
)


@settings(max_examples=40)
@given(options=ANY, seed=st.integers(0, 2**32), audit_fails=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_campaign_in_which_no_task_fails_finishes_whatever_the_order(options, seed, audit_fails):
    game = play(options, seed, {**NOTHING_FAILS, "audit fails": audit_fails})
    check_finished(game)
    rounds = {name for name in game.state.errors if name.startswith("round-")}
    has_test_set = options["test_files"] or options["test"]["n_frames"]
    assert len(rounds) == (game.state.round + 1 if has_test_set else 0)
    assert ("baseline" in game.state.errors) == bool(has_test_set and options["test"]["random_baseline"])


@settings(max_examples=40)
@given(
    options=ANY,
    seed=st.integers(0, 2**32),
    rates=st.fixed_dictionaries(
        dict.fromkeys(
            ["fails", "with its block", "ends at once", "met before", "no score", "audit fails"], RATES
        )
    ),
)
def test_a_campaign_in_which_every_task_works_at_the_second_try_finishes(options, seed, rates):
    options["calculation"]["max_consecutive_failures"] = 1000
    game = play(options, seed, {**rates, "fails again": 0.0, "its own": 0.0})
    check_finished(game)


@settings(max_examples=60)
@given(
    options=ANY,
    seed=st.integers(0, 2**32),
    rates=st.fixed_dictionaries(dict.fromkeys([*NOTHING_FAILS, "audit fails"], RATES)),
)
def test_a_campaign_in_which_tasks_fail_at_random_ends_with_a_verdict(options, seed, rates):
    game = play(options, seed, rates)
    assert game.policy.verdict is not None
    if game.policy.verdict.state == "finished":
        check_finished(game)
