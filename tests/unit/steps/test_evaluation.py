"""Evaluations: per element, per source, and whether it is a test error at all."""

import json
import shutil

import numpy as np
import pytest

from fff.base.errors import ModelFileError, RunDirectoryError, StructureError
from fff.data.labels import LabelStore
from fff.models import Committee
from fff.steps.evaluation import evaluate_model
from fff.steps.outputs import taken
from fff.steps.predicting import open_committee, predict


def evaluate(model, sources, folder):
    return evaluate_model(model, [str(source) for source in sources], folder, tell=lambda *_: None)


def test_errors_are_those_of_the_committee_per_element_and_per_source(
    untrained, water_file, water_labels, tmp_path
):
    with LabelStore(tmp_path / "labels.db") as store:
        for i, label in enumerate(water_labels[:3]):
            store.add(f"label-{i}", label, source="audit", method="x")
    found = evaluate(untrained, [water_file, tmp_path / "labels.db"], tmp_path / "out")
    assert found.n_members == 2
    assert found.errors["n_structures"] == 15
    assert {source: errors["n_structures"] for source, errors in found.by_source.items()} == {
        "water.xyz": 12,
        "audit": 3,
    }
    assert found.by_element["H"]["n_atoms"] == 30
    weighted = 2 * found.by_element["H"]["force_mae_meV_per_A"] + found.by_element["O"]["force_mae_meV_per_A"]
    assert weighted / 3 == pytest.approx(found.errors["force_mae_meV_per_A"], abs=0.01)
    assert found.agreement["n_structures"] == 15
    assert found.n_trained_on is None
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"parity.png", "parity.csv", "structures.csv", "evaluation.json"}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["errors"] == found.errors
    rows = (tmp_path / "out" / "structures.csv").read_text().splitlines()
    assert len(rows) == 2 + 15


def test_a_single_model_has_no_deviation(untrained, water_file, tmp_path):
    found = evaluate(untrained / "member-1", [f"{water_file}@:4"], tmp_path / "out")
    assert (found.n_members, found.agreement) == (1, None)


def test_a_constant_between_two_methods_is_told_from_the_rest(untrained, water_labels, tmp_path):
    with LabelStore(tmp_path / "labels.db") as store:
        for i, label in enumerate(water_labels):
            store.add(f"label-{i}", label, source="x", method="x")
    found = evaluate(untrained, [tmp_path / "labels.db"], tmp_path / "out").errors
    energies = np.array([label.energy_eV for label in water_labels])
    assert found["energy_mae_shifted_meV_per_atom"] < 1000 * np.abs(energies - energies.mean()).mean() / 3 + 1
    assert found["energy_mae_meV_per_atom"] <= found["energy_rmse_meV_per_atom"]


def test_structures_that_a_campaign_trained_on_are_noticed(untrained, water_file, water_labels, tmp_path):
    run = tmp_path / "run"
    member = run / "models" / "round-000" / "member-0"
    member.mkdir(parents=True)
    for file in (untrained / "member-0").iterdir():
        (member / file.name).write_bytes(file.read_bytes())
    (run / "events.jsonl").write_text("")
    with LabelStore(run / "labels.db") as store:
        store.add("label-a", water_labels[5], source="audit", method="x")
    from fff.data.reading import load_labels

    same = load_labels([str(run / "labels.db")])[0].hash
    assert same == water_labels[5].hash
    found = evaluate(member, [run, f"{water_file}@:2"], tmp_path / "out")
    assert found.n_trained_on == 1


@pytest.mark.parametrize("start", [[], ["sha256-of-a-model"]])
def test_what_a_fine_tuned_model_knew_before_is_not_known(untrained, water_file, tmp_path, start):
    shutil.copytree(untrained, tmp_path / "tuned")
    (tmp_path / "tuned" / "trained.json").write_text(json.dumps({"structures": ["s0"], "start": start}))
    found = evaluate(tmp_path / "tuned", [water_file], tmp_path / "out")
    assert found.n_trained_on == (None if start else 0)


def test_the_comparison_of_a_campaign_was_not_trained_on_its_labels(untrained, water_labels, tmp_path):
    run = tmp_path / "run"
    for name in ("baseline", "baseline-2"):
        shutil.copytree(untrained, run / "models" / name)
    (run / "events.jsonl").write_text("")
    with LabelStore(run / "labels.db") as store:
        store.add("label-a", water_labels[5], source="audit", method="x")
    assert evaluate(run / "models" / "baseline-2", [run], tmp_path / "out").n_trained_on is None


def test_a_member_without_finite_numbers_is_refused_by_name(untrained, water_file, tmp_path):
    from fff.models import load_force_field
    from fff.models.files import read_member, write_member

    broken = load_force_field(read_member(untrained / "member-1"), "cpu")
    for parameter in broken.network.parameters():
        parameter.data *= 1e30
    shutil.copytree(untrained / "member-0", tmp_path / "broken" / "member-0")
    write_member(tmp_path / "broken" / "member-1", broken.to_files())
    with pytest.raises(ModelFileError, match=r"Member 1 .* gives no finite numbers for a H2O"):
        evaluate(tmp_path / "broken", [water_file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_that_fails_on_some_structures_is_not_left_out_of_the_mean(untrained, water_labels):
    committee = open_committee(untrained)
    asked = []

    class RunsOutOfMemory:
        description = committee.members[1].description

        def predict(self, structures, **options):
            asked.append(structures)
            if len(asked) > 1:
                raise RuntimeError("CUDA out of memory")
            return committee.members[1].predict(structures, **options)

    one_fails = Committee([committee.members[0], RunsOutOfMemory()])
    with pytest.raises(ModelFileError, match="Member 1 of the committee could not predict 12 structures"):
        predict(one_fails, water_labels, lambda *_: None)


def test_a_folder_that_another_process_is_filling_is_left_to_it(untrained, water_file, tmp_path):
    with taken(tmp_path / "out"), pytest.raises(RunDirectoryError, match="Another process writes"):
        evaluate(untrained, [water_file], tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="nothing is ever overwritten"):
        evaluate(untrained, [water_file], tmp_path / "out")


def test_an_element_that_the_model_does_not_know_is_refused(untrained, tmp_path):
    from ase.build import molecule
    from ase.calculators.emt import EMT
    from ase.io import write

    atoms = molecule("CO")
    atoms.calc = EMT()
    atoms.get_forces()
    write(tmp_path / "co.xyz", atoms)
    with pytest.raises(StructureError, match="made without C"):
        evaluate(untrained, [tmp_path / "co.xyz"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_without_a_model_is_refused(water_file, tmp_path):
    with pytest.raises(ModelFileError, match="No trained model"):
        evaluate(tmp_path, [water_file], tmp_path / "out")
