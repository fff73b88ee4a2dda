from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from ase import Atoms
from ase.build import molecule

from fff.base.errors import ModelFileError, StructureError
from fff.base.ids import sha256_bytes
from fff.models.files import DESCRIPTION, WEIGHTS, read_member, write_member
from fff.models.force_field import create_force_field, load_force_field, with_reference_energies

REFERENCE = {1: -13.5, 8: -2035.0}


@pytest.fixture
def force_field(model):
    return create_force_field(model, seed=0, elements=[1, 8], reference_energies=REFERENCE, device="cpu")


@pytest.fixture
def files(force_field):
    return force_field.to_files()


def _described(files, **changes):
    description = {**json.loads(files[DESCRIPTION]), **changes}
    return {**files, DESCRIPTION: json.dumps(description).encode()}


def _with_weights(files, tensors):
    weights = safetensors.torch.save(tensors)
    changed = _described(files, weights_sha256=sha256_bytes(weights))
    return {**changed, WEIGHTS: weights}


def test_the_seed_makes_the_parameters_and_leaves_torch_alone(model, files):
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    given = {"elements": [1, 8], "reference_energies": REFERENCE, "device": "cpu"}
    same = create_force_field(model, seed=0, **given).to_files()
    other = create_force_field(model, seed=1, **given).to_files()
    assert torch.equal(before, torch.random.get_rng_state())
    assert same == files
    assert other[WEIGHTS] != files[WEIGHTS]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"kind": "mace"}, "'mace'"),
        ({"representation": "so3net"}, "'so3net'"),
        ({"n_layers": None}, "n_layers"),
        ({"n_features": "many"}, "n_features"),
        ({"cutoff_A": -1.0}, "cutoff_A"),
        ({"n_features": 16}, "not"),
        ({"n_layers": 3}, "parameters differ"),
        ({"elements": [1]}, "one finite reference energy"),
        ({"reference_energies_eV": None}, "reference_energies_eV"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_with_the_reason(files, changes, words):
    with pytest.raises(ModelFileError, match=words):
        load_force_field(_described(files, **changes), device="cpu")


def test_files_that_are_missing_or_no_json_are_refused(files):
    with pytest.raises(ModelFileError, match=r"missing: weights\.safetensors"):
        load_force_field({DESCRIPTION: files[DESCRIPTION]})
    with pytest.raises(ModelFileError, match="not JSON"):
        load_force_field({**files, DESCRIPTION: files[DESCRIPTION][:50]})
    with pytest.raises(ModelFileError, match="schema version None"):
        load_force_field({**files, DESCRIPTION: b"[]"})


def test_weights_that_are_no_safetensors_or_not_finite_are_refused(files):
    garbage = _described(files, weights_sha256=sha256_bytes(b"garbage"))
    with pytest.raises(ModelFileError, match="no safetensors"):
        load_force_field({**garbage, WEIGHTS: b"garbage"})
    tensors = safetensors.torch.load(files[WEIGHTS])
    name = min(tensors)
    tensors[name].view(-1)[0] = float("nan")
    with pytest.raises(ModelFileError, match="not finite"):
        load_force_field(_with_weights(files, tensors), device="cpu")
    del tensors[name]
    with pytest.raises(ModelFileError, match=name):
        load_force_field(_with_weights(files, tensors), device="cpu")


def test_a_member_is_written_and_read_whole(tmp_path, files):
    write_member(tmp_path / "member-0", {**files, "history.csv": b"epoch\n"})
    assert read_member(tmp_path / "member-0") == {**files, "history.csv": b"epoch\n"}
    (tmp_path / "member-0" / WEIGHTS).unlink()
    with pytest.raises(ModelFileError, match=WEIGHTS):
        read_member(tmp_path / "member-0")


def test_new_reference_energies_shift_energies_and_nothing_else(force_field):
    water = molecule("H2O")
    shifted = with_reference_energies(force_field, {1: -10.0, 6: -1.0})
    before, after = force_field.predict([water]), shifted.predict([water])
    assert after.energy_eV[0] - before.energy_eV[0] == pytest.approx(2 * 3.5, abs=1e-9)
    np.testing.assert_array_equal(before.forces_eV_per_A[0], after.forces_eV_per_A[0])
    assert shifted.elements == [1, 6, 8]


def test_elements_heavier_than_the_embedding_and_empty_structures_are_refused(model, force_field):
    with pytest.raises(StructureError, match="1 to 99"):
        create_force_field(model, seed=0, elements=[1, 104], reference_energies={}, device="cpu")
    with pytest.raises(StructureError, match="no atoms"):
        force_field.predict([Atoms()])
