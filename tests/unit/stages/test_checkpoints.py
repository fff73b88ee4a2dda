from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
from safetensors import safe_open

from fff.stages import Checkpoint, Checkpoints, State


@pytest.fixture
def checkpoint():
    random = np.random.default_rng(3)
    random.normal(size=7)
    arrays = {
        "strided": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
        "single": np.float32([1.5, -0.0]),
        "whole": np.arange(3),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3)),
        "one": np.array(2.5),
    }
    values = {"tiny": 5e-324, "third": 1 / 3, "nothing": None, "random": random.bit_generator.state}
    return Checkpoint("h1", 12, State(arrays, values), {"history.csv": 3})


def test_every_bit_comes_back(checkpoint):
    again = Checkpoint.from_bytes(checkpoint.to_bytes())
    assert (again.identity, again.step, again.tables) == ("h1", 12, {"history.csv": 3})
    assert again.state.values == checkpoint.state.values
    for name, array in checkpoint.state.arrays.items():
        found = again.state.arrays[name]
        assert found.dtype == array.dtype
        assert found.tobytes() == np.ascontiguousarray(array).tobytes()
        assert found.shape == (array.shape or (1,))
        assert found.flags.writeable


def test_a_random_generator_goes_on_where_it_was(checkpoint):
    original = np.random.default_rng(3)
    original.normal(size=7)
    again = np.random.default_rng(99)
    again.bit_generator.state = Checkpoint.from_bytes(checkpoint.to_bytes()).state.values["random"]
    assert np.array_equal(again.normal(size=5), original.normal(size=5))
    assert np.array_equal(again.permutation(9), original.permutation(9))


def test_any_safetensors_tool_opens_one(checkpoint, tmp_path):
    path = Checkpoints(tmp_path, keep=1).write(checkpoint)
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == set(checkpoint.state.arrays)
        assert json.loads(file.metadata()["stage"])["step"] == 12


def test_a_pickle_in_its_place_is_not_opened(checkpoint, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    stored = Checkpoints(tmp_path, keep=1)
    path = stored.write(checkpoint)
    buffer = io.BytesIO()
    pickle.dump(Trap(), buffer)
    path.write_bytes(buffer.getvalue())
    assert stored.newest("h1") is None
    assert not (tmp_path / "sprung").exists()


def test_steps_are_compared_as_numbers(checkpoint, tmp_path):
    stored = Checkpoints(tmp_path, keep=3)
    for step in [999_999_999, 1_000_000_000, 5]:
        stored.write(Checkpoint("h1", step, checkpoint.state))
    assert stored.newest("h1").step == 1_000_000_000


def test_an_empty_or_missing_folder_has_none(tmp_path):
    assert Checkpoints(tmp_path, keep=1).newest("h1") is None
    assert Checkpoints(tmp_path / "missing", keep=1).newest("h1") is None


def test_other_files_are_left_alone(checkpoint, tmp_path):
    for name in ["checkpoint-notes.txt", "history.csv"]:
        (tmp_path / name).write_text("mine")
    stored = Checkpoints(tmp_path, keep=1)
    stored.write(checkpoint)
    assert stored.newest("h1").step == 12
    assert len(list(tmp_path.iterdir())) == 3
