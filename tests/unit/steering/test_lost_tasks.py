"""Tasks that are lost: their worker died, their time ran out, a file system was away."""

from __future__ import annotations

import copy
import dataclasses
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fff.compute.tasks import FUNCTIONS
from tests.support.drawing_campaigns import campaigns
from tests.support.playing_campaigns import Game, answer, frame

if TYPE_CHECKING:
    from fff.steering.records import Request

MAX_ATTEMPTS = 3
MAX_LOSSES = 10
# Where it is kept which tasks run; every other attribute is what some role knows.
BOOKKEEPING = {"free", "open", "line", "n_open", "sampling_slots", "trained_last"}


class Heard:
    """Notes which ends of requests the roles of a game hear of."""

    def __init__(self, game: Game) -> None:
        self.requests: list[tuple[str, int]] = []
        receivers = game.policy._receivers
        for kind, receive in receivers.items():
            receivers[kind] = self._noting(receive)

    def _noting(self, receive: Any) -> Any:
        def note(event: Any, request: Request) -> None:
            self.requests.append((request.id, request.attempt))
            receive(event, request)

        return note


def everything(**options: Any) -> Game:
    """Return a campaign in which tasks of every kind are asked for."""
    options = {"test": {"n_frames": 20, "random_baseline": True}, "start_model": True, **options}
    calculation = {"max_attempts": MAX_ATTEMPTS, **options.pop("calculation", {})}
    return Game(calculation=calculation, **options)


def known(game: Game) -> dict[str, Any]:
    """Return what the roles know."""
    return {
        field.name: copy.deepcopy(getattr(game.state, field.name))
        for field in dataclasses.fields(game.state)
        if field.name not in BOOKKEEPING
    }


@pytest.mark.parametrize("pools", [1, 4, {"gpu": 2, "cpu": 3}], ids=str)
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_lost_task_of_any_kind_is_asked_again_and_no_role_hears_of_it(kind, pools):
    game = everything(pools=pools).play(lambda game: game.of(kind))
    heard = Heard(game)
    request = game.of(kind)[0]
    before = known(game)
    for attempt in range(1, MAX_ATTEMPTS):
        assert game.lose(game.policy.open_requests[request.id])[0] == dataclasses.replace(
            request, attempt=attempt + 1
        )
        assert heard.requests == []
        assert known(game) == before
    game.play()
    assert [attempt for name, attempt in heard.requests if name == request.id] == [MAX_ATTEMPTS]
    assert game.policy.verdict.state == "finished"


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_after_the_last_attempt_the_role_hears_of_a_lost_task(kind):
    game = everything(pools={"gpu": 2, "cpu": 3}).play(lambda game: game.of(kind))
    heard = Heard(game)
    request = game.of(kind)[0]
    before = known(game)
    for _ in range(MAX_ATTEMPTS):
        assert heard.requests == []
        game.lose(game.policy.open_requests[request.id])
    assert heard.requests == [(request.id, MAX_ATTEMPTS)]
    assert known(game) != before
    assert all(open_.id != request.id for open_ in game.open)


def test_where_one_attempt_is_all_there_is_the_role_hears_of_the_first_loss():
    game = everything(pools=2, calculation={"max_attempts": 1})
    heard = Heard(game)
    (request, *_) = game.of("calculate")
    game.lose(request)
    assert heard.requests == [(request.id, 1)]
    assert request.args["hash"] in game.state.set_aside


def test_a_failure_that_is_no_loss_is_heard_of_at_once():
    game = everything(pools=1).play(lambda game: game.of("train"))
    heard = Heard(game)
    (request,) = game.of("train")
    game.fail(request, failure_class="setup")
    assert heard.requests == [(request.id, 1)]


def test_a_lost_calculation_costs_the_structure_nothing():
    game = Game(pools=1, calculation={"max_attempts": MAX_ATTEMPTS, "max_consecutive_failures": 1})
    (request,) = game.of("calculate")
    game.lose(request)
    game.lose(request.next_attempt())
    assert game.policy.verdict is None
    assert game.state.first_failure == {}
    game.finish(request.next_attempt().next_attempt())
    assert [label.request for label in game.state.labels] == [request.id]


# --- lost with the workers that ran them -----------------------------------------------------------------


def lose_with_its_block(game: Game, request: Request, times: int = 1) -> list[Request]:
    """Have a task be lost as often with all workers around it; returns what the policy asks for then."""
    new: list[Request] = []
    for _ in range(times):
        new = game.fail(game.policy.open_requests[request.id], "its block ended", "lost")
    return new


@pytest.mark.parametrize("pools", [1, 4, {"gpu": 2, "cpu": 3}], ids=str)
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_what_is_lost_with_its_block_is_asked_again_as_the_same_try(kind, pools):
    game = everything(pools=pools).play(lambda game: game.of(kind))
    heard = Heard(game)
    request = game.of(kind)[0]
    before = known(game)
    for losses in range(1, MAX_LOSSES):
        assert lose_with_its_block(game, request)[0] == dataclasses.replace(request, losses=losses)
        assert heard.requests == []
        assert known(game) == before
    game.play()
    assert [attempt for name, attempt in heard.requests if name == request.id] == [1]
    assert game.policy.verdict.state == "finished"


def test_ten_losses_in_a_row_count_as_one_try():
    game = Game(pools=1, calculation={"max_attempts": MAX_ATTEMPTS, "max_consecutive_failures": 1})
    (request,) = game.of("calculate")
    assert lose_with_its_block(game, request, MAX_LOSSES) == [request.next_attempt()]
    assert game.open[0].losses == 0
    # A loss of another kind is a try of its own, and those with a block count from the beginning.
    lose_with_its_block(game, request, MAX_LOSSES - 1)
    assert game.lose(game.open[0]) == [request.next_attempt().next_attempt()]
    assert game.policy.verdict is None
    assert game.state.set_aside == {}
    lose_with_its_block(game, request, MAX_LOSSES - 1)
    assert game.policy.verdict is None
    lose_with_its_block(game, request)
    assert game.state.set_aside == {request.args["hash"]: "its block ended"}
    assert game.policy.verdict.state == "failed"


def test_what_was_lost_too_often_may_be_tried_again_by_who_goes_on():
    game = Game(pools=1, calculation={"max_attempts": 1, "max_consecutive_failures": 1})
    (request,) = game.of("calculate")
    lose_with_its_block(game, request, MAX_LOSSES)
    assert game.policy.verdict.state == "failed"
    game.change(go_on=True)
    assert game.open == [request.next_attempt()]
    game.play()
    assert game.policy.verdict.state == "finished"


def test_losses_with_a_block_neither_stop_a_campaign_nor_cost_structures():
    game = Game(pools=4, calculation={"max_attempts": 1, "max_consecutive_failures": 1})
    while game.policy.verdict is None:
        request = game.open[0]
        if request.losses < MAX_LOSSES - 1 and len(game.events) % 3:
            lose_with_its_block(game, request)
        else:
            game.finish(request)
    assert game.policy.verdict.state == "finished"
    assert game.state.set_aside == game.state.first_failure == {}
    assert game.policy.snapshot()["labels"]["failed"] == 0


# --- where they stand in line ---------------------------------------------------------------------------


def test_a_lost_training_goes_before_frames_that_wait_to_be_looked_at():
    game = Game(pools={"gpu": 1, "cpu": 4}).play_to_committee(0, hold=["dynamics"])
    selector = game.policy._selector
    game.play(lambda game: game.of("train") and (selector.wants_score() or selector.wants_choice()))
    (training,) = game.of("train")
    assert game.lose(training) == [training.next_attempt()]
    assert {request.kind for request in game.finish(training.next_attempt())} & {"score", "choose"}


def test_lost_tasks_wait_where_there_are_fewer_slots_and_count_meanwhile():
    game = Game(pools={"gpu": 2, "cpu": 5}, stop={"max_labels": 8})
    game.play_to_committee(0, hold=["dynamics"])
    for name in ("a", "b", "c", "d"):
        game.finish(game.of("dynamics")[0], last=frame(name), others=[])
    assert game.kinds() == {"calculate": 4}
    assert game.state.budget_taken
    game.move({"gpu": 2, "cpu": 2})
    lost = game.of("calculate")
    for request in lost[:3]:
        game.lose(request)
    # Two slots: one is taken by the fourth, one by the first that was lost.
    assert [request.attempt for request in game.open] == [1, 2]
    assert len(game.state.line) == 2
    assert game.state.running("calculate") == 4
    assert {request.id for request in game.state.of_kind("calculate")} == {request.id for request in lost}
    # Nothing takes their places in the budget, and nothing new comes before them.
    assert game.state.budget_taken
    assert game.policy.snapshot()["labels"]["in_flight"] == 4
    assert game.finish(lost[3]) == [lost[1].next_attempt()]
    assert game.finish(lost[0].next_attempt()) == [lost[2].next_attempt()]


def test_a_lost_run_keeps_its_trajectory():
    game = Game(pools={"gpu": 2, "cpu": 4}).play_to_committee(0, hold=["dynamics"])
    run, other = game.of("dynamics")
    game.move({"gpu": 2, "cpu": 1})
    game.lose(run)
    assert game.state.line == [run.next_attempt()]
    assert game.state.trajectories[run.args["trajectory"]].status == "running"
    assert run.args["trajectory"] not in game.state.idle
    assert run.next_attempt() in game.finish(other, others=[])
    assert game.of("dynamics") == [run.next_attempt()]


# --- as if nothing had been lost ------------------------------------------------------------------------


def play_one_after_the_other(options: dict[str, Any], seed: int, losses: float) -> tuple[Game, list[Any]]:
    """Play a campaign with one slot; what a task gives depends on nothing but its request.

    Returns:
        The game, and what was asked by the requests that gave a result.
    """
    game = Game(**{**options, "pools": 1})
    chance = random.Random(seed)
    done: list[Any] = []
    while game.policy.verdict is None:
        (request,) = game.open
        is_lost = chance.random() < losses or (losses > 0 and not done)
        with_its_block = is_lost and chance.random() < 0.5 and request.losses + 1 < MAX_LOSSES
        if with_its_block or (is_lost and game.state.may_retry(request)):
            game.fail(request, "it was lost", "lost" if with_its_block else "retry")
            continue
        its_own = random.Random(f"{seed} {request.id}")
        values = answer(request, game.config)
        if request.kind == "dynamics" and its_own.random() < 0.1:
            values |= {"steps": 0, "others": []}
        if request.kind == "score":
            values["deviations"] = [its_own.random() for _ in request.args["frames"]]
        if request.kind == "calculate" and request.args["source"] == "audit" and its_own.random() < 0.3:
            values |= {"energy_error": 0.3, "force_error": 2.0}
        done.append((request.id, request.kind, dict(request.args), request.models))
        game.finish(request, **values)
    return game, done


@settings(max_examples=25)
@given(options=campaigns(), seed=st.integers(0, 2**32))
def test_in_serial_order_losses_change_nothing_that_is_asked_or_known(options, seed):
    options["calculation"]["max_attempts"] = MAX_ATTEMPTS
    whole, asked = play_one_after_the_other(options, seed, losses=0.0)
    with_losses, asked_with_losses = play_one_after_the_other(options, seed, losses=0.3)
    assert len(with_losses.events) > len(whole.events)
    assert asked_with_losses == asked
    assert with_losses.state == whole.state
