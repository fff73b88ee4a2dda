"""What may be decided between two sittings: other labels and slots, to go on, to take in labels found."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fff.compute.tasks import FUNCTIONS
from fff.steering.active_learning import ActiveLearning
from tests.support.drawing_campaigns import Chance, campaigns
from tests.support.playing_campaigns import LAPTOP, WORKSTATION, Game

POOLS = {"gpu": 2, "cpu": 4}
COMPARED = {"n_frames": 20, "random_baseline": True}


def trained(game: Game) -> list[str]:
    return [request.args["directory"] for request in game.asked if request.kind == "train-baseline"]


def check_finished(game: Game) -> None:
    """A campaign that finished has its labels, and its last committee knows them all."""
    assert game.policy.verdict is not None
    assert game.policy.verdict.state == "finished", game.policy.verdict
    assert game.open == []
    assert game.state.line == []
    assert game.state.n_own_labels >= game.config.stop.max_labels
    assert game.state.committee.n_labels == len(game.labels)
    if game.config.test.random_baseline:
        assert game.state.errors["baseline"]["n_labels"] == len(game.labels)
        assert sum(len(name) > 0 for name in game.state.errors) >= 2
    first_asks = [request.id for request in game.asked if request.attempt == 1 and request.kind != "refit"]
    assert len(first_asks) == len(set(first_asks))


# --- the config: more labels, fewer labels, other settings ----------------------------------------------


@pytest.mark.parametrize("more", [1, 4, 11])
def test_a_finished_campaign_that_is_extended_goes_on_and_trains_its_last_committee(more):
    game = Game(pools=POOLS).play()
    rounds = game.state.round
    assert game.change_config(stop={"max_labels": 20 + more})
    assert game.policy.verdict is None
    game.play()
    check_finished(game)
    assert game.n_made == 20 + more
    assert game.state.round > rounds
    assert game.policy.verdict.reason.startswith(f"{20 + more} labels were made")


def test_a_finished_campaign_whose_config_changes_otherwise_stays_finished():
    game = Game(pools=POOLS).play()
    verdict = game.policy.verdict
    assert game.change_config(audit={"energy_tolerance_eV_per_atom": 1.0}) == []
    assert game.change_config(stop={"max_labels": 12}) == []
    assert game.move(2) == []
    assert game.policy.verdict == verdict


def test_a_campaign_that_is_extended_while_it_runs_does_not_stop_at_the_old_budget():
    game = Game(pools=POOLS).play(lambda game: game.state.n_own_labels == 17)
    game.change_config(stop={"max_labels": 31})
    game.play()
    check_finished(game)
    assert game.n_made == 31


def test_a_campaign_whose_budget_is_cut_below_what_it_has_finishes_with_a_last_round():
    game = Game(pools=POOLS).play(lambda game: game.state.n_own_labels == 14)
    game.change_config(stop={"max_labels": 8})
    in_flight = len(game.of("calculate"))
    game.play()
    check_finished(game)
    assert game.n_made == 14 + in_flight


def test_changed_settings_count_from_the_next_request_on():
    game = Game(pools=POOLS).play_to_committee(0)
    game.change_config(committee={"size": 2}, training={"retrain_every": 2})
    game.play_to_committee(1)
    assert len(game.state.committee.members) == 2
    game.change_config(sampling={"temperature_K": [77.0]})
    before = len(game.asked)
    game.play()
    runs = [request for request in game.asked[before:] if request.kind == "dynamics"]
    assert {request.args["temperature_K"] for request in runs} == {77.0}
    check_finished(game)


def test_the_comparison_of_an_extended_campaign_is_made_anew_on_as_many_random_frames():
    game = Game(pools=POOLS, test=COMPARED).play()
    first = dict(game.state.errors["baseline"])
    assert first["n_labels"] == 20
    random_frames = sum(r.args["n_frames"] for r in game.asked if r.args.get("purpose") == "randomset")
    game.change_config(stop={"max_labels": 33})
    planned = sum(chunk.n_frames for chunk in game.state.chunks_waiting if chunk.purpose == "randomset")
    planned += sum(r.args["n_frames"] for r in game.of("reference-dynamics"))
    assert (random_frames, planned) == (20, 13)
    game.play()
    check_finished(game)
    assert game.state.errors["baseline"]["n_labels"] == 33
    assert trained(game) == [
        f"{folder}/member-{member}" for folder in ("baseline", "baseline-2") for member in range(3)
    ]
    assert {"train-baseline-m0", "train-baseline-2-m0", "evaluate-baseline", "evaluate-baseline-2"} <= {
        request.id for request in game.asked
    }
    # The test set stays what it was.
    tested = [tuple(r.args["files"]) for r in game.asked if r.kind == "evaluate"]
    assert len(set(tested)) == 1


@pytest.mark.parametrize(
    "moment",
    [
        lambda game: len(game.of("train-baseline")) == 2,
        lambda game: game.state.baseline is not None and not game.state.baseline.waiting,
        lambda game: game.of("evaluate") and game.state.baseline is not None,
        lambda game: "baseline" in game.state.errors,
    ],
    ids=["training", "last member", "measuring", "measured"],
)
@pytest.mark.parametrize("pools", [1, 3, POOLS], ids=str)
def test_a_campaign_that_is_extended_while_its_comparison_is_made_ends_with_the_comparison_of_its_end(
    moment, pools
):
    game = Game(pools=pools, test=COMPARED).play(moment)
    game.change_config(stop={"max_labels": 26})
    game.play()
    check_finished(game)
    assert trained(game)[-3:] == [f"baseline-2/member-{member}" for member in range(3)]


def test_a_campaign_can_be_extended_again_and_again():
    game = Game(pools=POOLS, test=COMPARED)
    for number, max_labels in enumerate((20, 24, 25, 40), start=1):
        if number > 1:
            game.change_config(stop={"max_labels": max_labels})
        game.play()
        check_finished(game)
        assert game.state.errors["baseline"]["n_labels"] == max_labels
    assert game.state.baseline_folder == "baseline-4"


# --- other slots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2, 9, {"gpu": 1, "cpu": 1}, {"gpu": 3, "cpu": 8}], ids=str)
@pytest.mark.parametrize("before", [1, 6, {"gpu": 1, "cpu": 1}, {"gpu": 2, "cpu": 6}], ids=str)
@pytest.mark.parametrize("n_events", [0, 3, 12, 40])
def test_a_campaign_goes_on_with_other_slots_whatever_was_open(before, after, n_events):
    game = Game(pools=before, test=COMPARED).play(lambda game: len(game.events) > n_events)
    asked = list(game.open)
    new = game.move(after)
    kept = [request for request in game.open if request not in new]
    # The same requests, each in the pool of its kind from now on.
    pool_of = LAPTOP if isinstance(after, int) else WORKSTATION
    assert [request.id for request in kept] == [request.id for request in asked]
    assert [request.pool for request in kept] == [pool_of[request.kind] for request in kept]
    assert game.state.pool_of == pool_of
    game.play()
    check_finished(game)
    assert game.n_made == 20


def test_where_there_are_fewer_slots_nothing_new_starts_until_enough_has_ended():
    game = Game(pools={"gpu": 1, "cpu": 6}).play_to_committee(0, hold=["dynamics"])
    for _ in range(2):
        game.finish(game.of("dynamics")[0], others=[])
    used = len([request for request in game.open if request.pool == "cpu"])
    assert used > 2
    assert game.move({"gpu": 1, "cpu": 1}) == []
    assert game.state.free["cpu"] == 1 - used
    while len([request for request in game.open if request.pool == "cpu"]) > 1:
        request = next(request for request in game.open if request.pool == "cpu")
        new = game.finish(request, **({"others": []} if request.kind == "dynamics" else {}))
        assert game.state.free["cpu"] <= 0
        assert len([r for r in new if r.pool == "cpu"]) <= 1


def test_slots_that_are_not_there_are_not_held_back():
    game = Game(pools={"gpu": 1, "cpu": 4}, calculation={"max_ahead": 4}, training={"retrain_every": 4})
    game.play_to_committee(0)
    game.play(lambda game: game.policy._calculator.is_held_back() and game.of("dynamics"), hold=["train"])
    assert game.policy._calculator.is_held_back()
    game.move({"gpu": 1, "cpu": 1})
    assert game.state.free["cpu"] < 0
    assert game.policy.held_back == 0


def test_more_slots_are_filled_at_once():
    game = Game(pools=1)
    assert game.kinds() == {"calculate": 1}
    assert len(game.move(4)) == 3
    assert game.kinds() == {"calculate": 4}


def test_a_pool_is_told_for_every_kind_of_task():
    assert set(FUNCTIONS) == set(LAPTOP) == set(WORKSTATION)


# --- to go on after a failure ---------------------------------------------------------------------------


def fail_all(kind: str, failure_class: str = "setup", *, since: int = 0, **options: Any) -> Game:
    """Return a campaign that failed because every task of a kind did, from so many events on."""
    game = Game(**options)
    for _ in range(3000):
        if game.policy.verdict is not None:
            break
        request = game.open[0]
        if request.kind == kind and len(game.events) > since:
            game.fail(request, "first words", failure_class)
        else:
            game.finish(request)
    assert game.policy.verdict is not None
    assert game.policy.verdict.state == "failed"
    return game


CALM = {"max_consecutive_failures": 1000}
FAILURES = {
    "no initial structure could be labelled: set-up": (
        lambda pools: fail_all("calculate", "setup", pools=pools, calculation=CALM),
        "No initial structure",
    ),
    "no initial structure could be labelled: structure": (
        lambda pools: fail_all("calculate", "structure", pools=pools, calculation=CALM),
        "No initial structure",
    ),
    "no initial structure could be labelled: lost": (
        lambda pools: fail_all("calculate", "retry", pools=pools, calculation=CALM),
        "No initial structure",
    ),
    "calculations in a row": (
        lambda pools: fail_all("calculate", pools=pools, calculation={"max_consecutive_failures": 3}),
        "3 reference calculations failed in a row",
    ),
    "calculations in a row, later": (
        lambda pools: fail_all("calculate", "structure", since=40, pools=pools),
        "reference calculations failed in a row",
    ),
    "the first round": (lambda pools: fail_all("train", pools=pools), "Round 0 gave 0 of 3"),
    "two rounds in a row": (lambda pools: fail_all("train", since=40, pools=pools), "a committee needs two"),
    "the last round, twice": (
        lambda pools: fail_all("train", since=20, pools=pools, stop={"max_labels": 8}),
        "a committee needs two",
    ),
    "the refit": (
        lambda pools: fail_all("refit", pools=pools, start_model=True),
        "could not be evaluated on the first labels",
    ),
    "choices in a row": (
        lambda pools: fail_all("choose", pools=pools, calculation={"max_consecutive_failures": 2}),
        "Choosing frames failed 2 times in a row",
    ),
    "runs that lead to nothing": (
        lambda pools: fail_all("dynamics", pools=pools, calculation={"max_ahead": 4}, stop={"max_labels": 9}),
        "runs of dynamics in a row led to no label",
    ),
}


@pytest.mark.parametrize("pools", [1, 3, POOLS], ids=str)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_campaign_goes_on_after_any_failure_whose_cause_was_put_right(failure, pools):
    fail, reason = FAILURES[failure]
    game = fail(pools)
    assert reason in game.policy.verdict.reason
    game.change(go_on=True)
    assert game.policy.verdict is None
    assert game.state.first_failure == {}
    game.play()
    check_finished(game)
    assert game.n_made == game.config.stop.max_labels


@pytest.mark.parametrize("failure", FAILURES)
def test_a_cause_that_was_not_put_right_ends_the_campaign_again(failure):
    game = FAILURES[failure][0](3)
    first = game.policy.verdict
    kind = game.events[-1].kind
    failure_class = game.events[-1].values["failure_class"]
    game.change(go_on=True)
    for _ in range(3000):
        if game.policy.verdict is not None:
            break
        request = game.open[0]
        if request.kind == kind:
            game.fail(request, "first words", failure_class)
        else:
            game.finish(request)
    assert game.policy.verdict.state == "failed"
    assert "first words" in game.policy.verdict.reason
    assert type(game.policy.verdict) is type(first)


def test_what_failed_for_no_fault_of_its_own_is_tried_again_and_what_failed_for_its_own_is_not():
    game = Game(
        pools=1, calculation={"max_consecutive_failures": 3, "max_attempts": 1}, start={"n_labels": 5}
    )
    game.finish(game.open[0])
    game.finish(game.open[0])
    game.play_to_committee(0) if not game.of("calculate") else None
    names = []
    for failure_class in ("structure", "setup", "retry"):
        game.play(lambda game: game.of("calculate"))
        (request,) = game.of("calculate")
        names.append(request)
        game.fail(request, failure_class=failure_class)
    assert game.policy.verdict.state == "failed"
    assert set(game.state.set_aside) == {request.args["hash"] for request in names}
    assert game.state.n_failed == 3
    game.change(go_on=True)
    tried = {request.id for request in [*game.of("calculate"), *game.state.line]}
    assert {names[1].id, names[2].id} <= tried
    game.play()
    check_finished(game)
    assert game.state.set_aside.keys() <= {names[0].args["hash"]}


def test_structures_that_get_another_chance_stay_within_the_budget():
    game = Game(pools=POOLS, calculation={"max_consecutive_failures": 3, "max_attempts": 1})
    while game.policy.verdict is None:
        calculations = game.of("calculate")
        in_a_row = game.state.consecutive_failures["calculate"]
        late = game.state.n_own_labels >= 17
        if calculations and (late or (calculations[0].args["source"] == "active" and in_a_row < 1)):
            game.fail(calculations[0])
        elif calculations:
            game.finish(calculations[0])
        else:
            game.finish(game.open[0])
    # More were set aside than the budget has room for.
    assert len(game.state.given_up) > 20 - game.state.n_own_labels
    game.change(go_on=True)
    game.play()
    check_finished(game)
    assert game.n_made == 20


def test_one_who_goes_on_has_as_many_attempts_again():
    game = Game(pools=1, calculation={"max_attempts": 2, "max_consecutive_failures": 1})
    (request,) = game.open
    game.lose(request)
    game.lose(request.next_attempt())
    assert game.policy.verdict.state == "failed"
    game.change(go_on=True)
    assert game.open[0].attempt == 3
    game.lose(game.open[0])
    assert game.policy.verdict is None
    assert game.open[0].attempt == 4


# --- labels that the database holds and no event tells of -----------------------------------------------


def found(*names: str, source: str = "active") -> list[dict[str, str]]:
    return [{"request": name, "hash": f"s-of-{name}", "source": source} for name in names]


def test_labels_without_events_are_taken_in_and_count():
    game = Game(pools=1).play(lambda game: game.state.n_own_labels == 6)
    before = game.policy.training_set(100)
    game.change(labels=found("label-00030", "label-00031"))
    assert game.policy.training_set(100) == [*before, "label-00030", "label-00031"]
    assert game.state.n_own_labels == 8
    assert game.policy.snapshot()["labels"]["done"] == 8
    game.play()
    check_finished(game)
    # The budget counts them, and no id is used twice.
    assert game.n_made == 18
    made = [request.id for request in game.asked if request.kind == "calculate"]
    assert len(set(made)) == len(made)
    assert not {"label-00030", "label-00031"} & set(made)
    assert max(made) > "label-00031"


def test_a_label_of_an_initial_structure_is_not_made_again():
    game = Game(pools=1)
    game.change(labels=[{"request": "label-00003", "hash": "s-initial-2", "source": "initial"}])
    game.play_to_committee(0)
    assert [request.args["frame"] for request in game.asked if request.args.get("source") == "initial"] == [
        "initial:0",
        "initial:1",
        "initial:3",
    ]


def test_a_label_that_the_campaign_has_under_another_name_only_takes_its_id():
    game = Game(pools=1).play(lambda game: game.state.n_own_labels == 2)
    known = game.state.labels[0].hash
    game.change(labels=[{"request": "label-00040", "hash": known, "source": "initial"}])
    assert game.state.n_own_labels == 2
    assert game.state.n_calculations == 41


def test_as_many_labels_as_the_budget_finish_the_campaign():
    game = Game(pools=1).play_to_committee(0)
    game.change(labels=found(*(f"label-{number:05d}" for number in range(30, 60))))
    game.play()
    check_finished(game)
    assert len(game.labels) == game.n_made + 30


def test_labels_are_counted_before_anything_is_tried_again():
    game = Game(pools=POOLS, calculation={"max_consecutive_failures": 2, "max_attempts": 1})
    game.play(lambda game: game.state.n_own_labels >= 17 and len(game.of("calculate")) >= 2)
    while game.policy.verdict is None:
        game.fail(game.of("calculate")[0])
    names = [f"label-{number:05d}" for number in range(50, 70 - game.state.n_own_labels)]
    game.change(go_on=True, labels=found(*names))
    assert game.state.n_own_labels == 20
    game.play()
    check_finished(game)


# --- anything at any time -------------------------------------------------------------------------------


def change_at_random(game: Game, chance: random.Random) -> None:
    """Change something that a user may change."""
    what = chance.choice(["more", "fewer", "slots", "labels", "settings", "both"])
    labels = game.config.stop.max_labels
    n = game.state.n_calculations
    if what == "both":
        config = game.config.model_dump(mode="json")
        config["stop"]["max_labels"] += 3
        game.change(config=config, capacity={"shared": 3}, pool_of=LAPTOP)
    if what == "more":
        game.change_config(stop={"max_labels": labels + chance.randint(1, 6)})
    if what == "fewer":
        least = max(game.config.start.n_labels, game.config.training.retrain_every)
        game.change_config(stop={"max_labels": max(least, labels - chance.randint(1, 6))})
    if what == "slots":
        game.move(chance.choice([1, 2, 5, {"gpu": 1, "cpu": 1}, {"gpu": 2, "cpu": 3}]))
    if what == "labels":
        game.change(labels=found(*(f"label-{n + i:05d}" for i in range(chance.randint(1, 3)))))
    if what == "settings":
        game.change_config(
            committee={"size": chance.randint(2, 4)},
            selection={"pool_size": 20, "chunk_size": chance.randint(1, 6)},
            calculation={"max_attempts": chance.randint(1, 3)},
        )


@settings(max_examples=60)
@given(
    options=campaigns(),
    seed=st.integers(0, 2**32),
    rates=st.fixed_dictionaries(
        dict.fromkeys(
            ["fails", "fails again", "its own", "ends at once", "met before", "no score", "audit fails"],
            st.sampled_from([0.0, 0.05, 0.3]),
        )
    ),
)
def test_whatever_is_changed_whenever_the_campaign_ends_and_its_log_replays_to_the_same_state(
    options, seed, rates
):
    options["selection"]["pool_size"] = max(options["selection"]["pool_size"], 20)
    game = Game(**options)
    replayed = ActiveLearning(game.opened)
    assert replayed.start() == game.asked
    chance, turns = Chance(seed, rates), random.Random(seed)
    changes = 0
    while game.policy.verdict is None or changes < 5:
        assert len(game.events) < 6000, "it does not end"
        over = game.policy.verdict
        before = len(game.asked)
        if over is not None or (changes < 5 and turns.random() < 0.04):
            changes += 1
            if over is not None and over.state == "failed":
                game.change(go_on=True)
            else:
                change_at_random(game, turns)
        else:
            chance.step(game)
        assert replayed.handle(game.events[-1]) == game.asked[before:]
        assert replayed.state == game.state
    if game.policy.verdict.state == "finished":
        assert game.state.committee.n_labels == len(game.labels)
        assert game.open == []
