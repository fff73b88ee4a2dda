"""Files that the log tells of and that are gone: which are missed, and who makes them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fff.base.errors import RunDirectoryError
from fff.campaigns.restoring import find_lost, is_as_before
from fff.data.events import Event, read_events
from fff.data.packing import labels_to_bytes
from fff.data.records import Frame
from fff.steering.replay import Replay, replay
from tests.support.left_campaigns import LeftCampaign, labelled, water

POOLS = {"gpu": 2, "cpu": 4}


def replayed(left: LeftCampaign) -> Replay:
    return replay(read_events(left.run.events), left.run.events)


def lost(left: LeftCampaign) -> list[str]:
    found = find_lost(left.run, replayed(left))
    assert [event.seq for _, event in found] == sorted(event.seq for _, event in found)
    for request, event in found:
        assert (request.id, request.kind) == (event.request, event.kind)
        assert event.outcome == "done"
    return [request.id for request, _ in found]


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> LeftCampaign:
    """A campaign in its second round: models, frames, scores and a test set."""
    path = tmp_path_factory.mktemp("played") / "run"
    left = LeftCampaign(path, pools=POOLS, test={"n_frames": 20, "random_baseline": True})
    return left.play(lambda game: game.state.round == 2 and game.state.scored)


@pytest.fixture
def left(tmp_path, played) -> LeftCampaign:
    return played.copied(tmp_path / "run")


def files_of(left: LeftCampaign, name: str) -> list[Path]:
    """Return the files of a request that the log tells of."""
    request, _ = replayed(left).done[name]
    if request.kind in {"train", "train-baseline"}:
        folder = left.run.models / request.args["directory"]
        return [folder / "weights.safetensors", folder / "model.json"]
    folder = {"dynamics": "frames", "score": "scores", "reference-dynamics": "test"}[request.kind]
    return [left.run.path / folder / f"{name}.npz"]


def needed(left: LeftCampaign, kind: str) -> list[str]:
    """Return the requests of a kind that have given their result and whose files are needed."""
    found = replayed(left)
    names = sorted(found.policy.needed_results & found.done.keys())
    return [name for name in names if found.done[name][0].kind == kind]


def test_where_everything_is_there_nothing_is_lost(left):
    assert lost(left) == []


DAMAGE = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(b"\xff" * path.stat().st_size),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["dynamics", "train", "score", "reference-dynamics"])
def test_a_needed_file_that_is_gone_or_damaged_is_missed(left, kind, damage):
    for name in needed(left, kind)[:2]:
        (path, *_) = files_of(left, name)
        before = path.read_bytes()
        DAMAGE[damage](path)
        assert lost(left) == [name]
        if path.is_dir():
            path.rmdir()
        path.write_bytes(before)
    assert lost(left) == []


def test_a_model_without_its_description_is_missed(left):
    name = needed(left, "train")[0]
    files_of(left, name)[1].unlink()
    assert lost(left) == [name]


def test_every_member_of_the_committee_and_of_the_round_that_is_trained_is_needed(tmp_path):
    left = LeftCampaign(tmp_path / "run", pools=POOLS)
    left.play(lambda game: game.state.training is not None and len(game.state.training.members) == 2)
    training, committee = left.game.state.training, left.game.state.committee
    expected = {f"train-r{training.number:03d}-m{member}" for member in training.members}
    if committee is not None:
        expected |= {f"train-r{committee.round:03d}-m{member}" for member in committee.members}
    assert set(needed(left, "train")) == expected


def test_the_members_so_far_of_a_comparison_are_needed(tmp_path):
    test = {"n_frames": 20, "random_baseline": True}
    left = LeftCampaign(tmp_path / "run", pools=1, test=test)
    left.play(lambda game: game.state.baseline is not None and len(game.state.baseline.members) == 2)
    assert needed(left, "train-baseline") == ["train-baseline-m0", "train-baseline-m1"]
    files_of(left, "train-baseline-m0")[0].unlink()
    assert lost(left) == ["train-baseline-m0"]


def test_frames_of_another_structure_or_too_few_of_them_are_missed(left):
    name = needed(left, "dynamics")[0]
    (path,) = files_of(left, name)
    frames = left.run.frames.read_many([f"{name}:{i}" for i in range(4)])
    left.run.frames.write(name, [*frames[:3], Frame(water(999))])
    assert lost(left) == [name]
    left.run.frames.write(name, frames[:2])
    assert lost(left) == [name]
    left.run.frames.write(name, frames)
    assert lost(left) == []
    assert path.is_file()


def test_scores_of_another_number_of_frames_are_missed(left):
    name = needed(left, "score")[0]
    np.savez(files_of(left, name)[0], deviation=np.zeros(1))
    assert lost(left) == [name]


def test_scores_of_which_any_part_is_damaged_are_missed(left):
    name = needed(left, "score")[0]
    (path,) = files_of(left, name)
    whole = path.read_bytes()
    for part in (b"features.npy", b"energy_eV.npy"):
        # Within the numbers, a good way behind the name and the header.
        place = whole.index(part) + 170
        path.write_bytes(whole[:place] + b"\x7f" + whole[place + 1 :])
        assert lost(left) == [name]
    path.write_bytes(whole)
    assert lost(left) == []


@pytest.mark.parametrize("kind", ["dynamics", "score", "reference-dynamics"])
def test_a_byte_that_was_changed_is_noticed_or_does_no_harm(left, kind):
    name = needed(left, kind)[0]
    (path,) = files_of(left, name)
    whole = path.read_bytes()
    request, event = replayed(left).done[name]
    noticed = 0
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        for value in (0x00, 0xFF, whole[place] ^ 0x01):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            noticed += not is_as_before(left.run, request, event.values)
    assert noticed > 60


def test_a_test_set_of_another_size_is_missed(left):
    name = needed(left, "reference-dynamics")[0]
    files_of(left, name)[0].write_bytes(labels_to_bytes([labelled(water(1))]))
    assert lost(left) == [name]


def test_what_nobody_reads_any_more_is_not_missed(left):
    found = replayed(left)
    idle = [
        name
        for name, (request, _) in found.done.items()
        if request.kind in {"train", "score", "dynamics"} and name not in found.policy.needed_results
    ]
    assert {found.done[name][0].kind for name in idle} == {"train", "score", "dynamics"}
    for name in idle:
        for path in files_of(left, name):
            path.unlink()
    assert lost(left) == []


def test_what_a_lost_result_is_made_from_is_looked_at_too(left):
    """An old model drove a run whose frames are lost: both are made again, the model first."""
    found = replayed(left)
    name = next(
        name
        for name in needed(left, "dynamics")
        if found.done[name][0].models[0].startswith("member:round-000")
    )
    run, _ = found.done[name]
    driver = f"train-r000-m{run.models[0].rpartition(':')[2]}"
    assert driver not in found.policy.needed_results
    files_of(left, driver)[0].unlink()
    assert lost(left) == []
    files_of(left, name)[0].unlink()
    assert lost(left) == [driver, name]
    # The frames that a run began from are made before it, too.
    if (source := run.args["frame"].rpartition(":")[0]) != "start":
        files_of(left, source)[0].unlink()
        assert source in lost(left)


def test_restored_weights_are_those_that_count(left):
    name = needed(left, "train")[0]
    directory = replayed(left).done[name][0].args["directory"]
    sha256 = left.write_model(directory, b"trained anew on another machine")
    assert lost(left) == [name]
    events = read_events(left.run.events)
    restored = Event(len(events), "changed", values={"restored": {name: {"sha256": sha256}}})
    assert find_lost(left.run, replay([*events, restored], left.run.events)) == []


@pytest.mark.parametrize("kind", ["start", "initial"])
@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "others"])
def test_structures_that_the_campaign_was_opened_with_cannot_be_made_again(tmp_path, kind, damage):
    left = LeftCampaign(tmp_path / "run", pools=1).play(lambda game: game.state.n_own_labels == 2)
    path = left.run.frames.path(kind)
    if damage == "others":
        left.run.frames.write(kind, [Frame(water(900 + i)) for i in range(4)])
    else:
        DAMAGE[damage](path)
    with pytest.raises(
        RunDirectoryError, match="is missing or damaged, and the campaign was opened"
    ) as caught:
        lost(left)
    assert str(path) in caught.value.message
    assert "labels of this one" in caught.value.hint


def test_a_given_test_set_cannot_be_made_again(tmp_path):
    left = LeftCampaign(tmp_path / "run", pools=1, test_files=["test/given.npz"])
    left.play(lambda game: game.state.committee is not None)
    assert lost(left) == []
    (left.run.test / "given.npz").unlink()
    with pytest.raises(RunDirectoryError, match=r"given\.npz is missing or damaged"):
        lost(left)


def test_kinds_without_files_of_their_own_are_always_as_before(left):
    found = replayed(left)
    for request, event in found.done.values():
        assert is_as_before(left.run, request, event.values)
        if request.kind in {"choose", "evaluate", "calculate"}:
            assert is_as_before(left.run, request, {})
