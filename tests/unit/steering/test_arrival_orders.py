"""Campaigns whose requests end in random orders and in random ways; what must hold whatever happens."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fff.steering.active_learning import ActiveLearning
from fff.steering.records import Request
from tests.support.playing_campaigns import Game, answer, frame

MAX_EVENTS = 6000
RATES = st.sampled_from([0.0, 0.05, 0.3])
POOLS = st.one_of(
    st.sampled_from([1, 2, 3, 7]),
    st.builds(lambda gpu, cpu: {"gpu": gpu, "cpu": cpu}, st.integers(1, 2), st.integers(1, 4)),
)


@st.composite
def campaigns(draw) -> dict[str, Any]:
    """Draw the options of a campaign."""
    retrain_every = draw(st.integers(1, 5))
    n_initial = draw(st.integers(2, 6))
    n_imported = draw(st.sampled_from([0, 0, 1, 2, 8]))
    n_trajectories = draw(st.integers(1, 5))
    chunk_size = draw(st.integers(1, 6))
    return {
        "pools": draw(POOLS),
        "n_starts": draw(st.integers(1, 3)),
        "n_imported": n_imported,
        "start_model": draw(st.booleans()),
        "test_files": draw(st.sampled_from([(), ("test/given.npz",)])),
        "seed": draw(st.integers(0, 3)),
        "start": {"n_labels": n_initial},
        "committee": {"size": draw(st.integers(2, 4))},
        "training": {
            "retrain_every": retrain_every,
            "start_from": draw(st.sampled_from(["initial", "previous"])),
        },
        "sampling": {
            "n_trajectories": n_trajectories,
            "n_parallel": draw(st.integers(1, n_trajectories)),
            "n_frames": draw(st.integers(0, 4)),
            "temperature_K": draw(st.sampled_from([[300.0], [300.0, 500.0]])),
        },
        "audit": {
            "fraction": draw(st.sampled_from([0.0, 0.5, 1.0])),
            "on_failure": draw(st.sampled_from(["restart", "last-valid"])),
        },
        "selection": {
            "chunk_size": chunk_size,
            "pool_size": draw(st.integers(chunk_size, 30)),
            "batch_size": draw(st.sampled_from([None, 1, 3])),
        },
        "calculation": {
            "max_ahead": draw(st.sampled_from([None, retrain_every, 3 * retrain_every])),
            "max_consecutive_failures": 10,
        },
        "queue": {"length": draw(st.integers(0, 3)), "tolerance": draw(st.integers(0, 2))},
        "test": {
            "n_frames": (n_frames := draw(st.sampled_from([0, 15]))),
            "random_baseline": n_frames > 0 and draw(st.booleans()),
        },
        "stop": {"max_labels": draw(st.integers(max(n_initial, retrain_every), 16))},
    }


class Chance:
    """Ends a random open request in a random way.

    Args:
        seed: Everything follows from it.
        rates: How often tasks fail at their first and at later tries, runs end at once, audits fail, frames
            are ones that were met before, and frames get no score.
    """

    def __init__(self, seed: int, rates: dict[str, float]) -> None:
        self._random = random.Random(seed)
        self._rates = rates
        self._hashes = ["s-start-0"]

    def step(self, game: Game) -> None:
        """End one request."""
        request = self._random.choice(game.open)
        if self._happens("fails" if request.attempt == 1 else "fails again"):
            its_own = request.kind == "calculate" and self._happens("its own")
            game.fail(request, failure_class="structure" if its_own else "retry")
            return
        change = getattr(self, f"_{request.kind.replace('-', '_')}", lambda values, request: None)
        values = answer(request, game.config)
        change(values, request)
        game.finish(request, **values)

    def _happens(self, what: str) -> bool:
        return self._random.random() < self._rates[what]

    def _dynamics(self, values: dict[str, Any], request: Request) -> None:
        if self._happens("ends at once"):
            values |= {"reason": "force", "steps": 0, "last": frame(f"{request.id}:0"), "others": []}
        for described in [*values["others"], values["last"]]:
            if self._happens("met before"):
                described["hash"] = self._random.choice(self._hashes)
            self._hashes.append(described["hash"])

    def _score(self, values: dict[str, Any], request: Request) -> None:
        values["deviations"] = [None if self._happens("no score") else self._random.random()] * len(
            request.args["frames"]
        )

    def _choose(self, values: dict[str, Any], request: Request) -> None:
        self._random.shuffle(values["frames"])

    def _calculate(self, values: dict[str, Any], request: Request) -> None:
        if request.args["source"] == "audit" and self._happens("audit fails"):
            values |= {"energy_error": 0.3, "force_error": 2.0}


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
    ["fails", "fails again", "its own", "ends at once", "met before", "no score"], 0.0
)


@settings(max_examples=40)
@given(options=campaigns(), seed=st.integers(0, 2**32), audit_fails=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_campaign_in_which_no_task_fails_finishes_whatever_the_order(options, seed, audit_fails):
    game = play(options, seed, {**NOTHING_FAILS, "audit fails": audit_fails})
    check_finished(game)
    rounds = {name for name in game.state.errors if name.startswith("round-")}
    has_test_set = options["test_files"] or options["test"]["n_frames"]
    assert len(rounds) == (game.state.round + 1 if has_test_set else 0)
    assert ("baseline" in game.state.errors) == bool(has_test_set and options["test"]["random_baseline"])


@settings(max_examples=40)
@given(
    options=campaigns(),
    seed=st.integers(0, 2**32),
    rates=st.fixed_dictionaries(
        dict.fromkeys(["fails", "ends at once", "met before", "no score", "audit fails"], RATES)
    ),
)
def test_a_campaign_in_which_every_task_works_at_the_second_try_finishes(options, seed, rates):
    options["calculation"]["max_consecutive_failures"] = 1000
    game = play(options, seed, {**rates, "fails again": 0.0, "its own": 0.0})
    check_finished(game)


@settings(max_examples=60)
@given(
    options=campaigns(),
    seed=st.integers(0, 2**32),
    rates=st.fixed_dictionaries(dict.fromkeys([*NOTHING_FAILS, "audit fails"], RATES)),
)
def test_a_campaign_in_which_tasks_fail_at_random_ends_with_a_verdict(options, seed, rates):
    game = play(options, seed, rates)
    assert game.policy.verdict is not None
    if game.policy.verdict.state == "finished":
        check_finished(game)
