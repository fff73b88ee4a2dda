"""The single steps on the command line: usage, JSON, last lines, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from typer.testing import CliRunner

from fff.cli.app import app
from fff.cli.ending import table
from fff.steps.evaluation import Evaluated
from fff.steps.labelling import Failed, Labelled
from fff.steps.training import Trained

STEPS = ["label", "train", "evaluate", "md"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def labelled(monkeypatch):
    """Stand in for the calculations, of which other tests make real ones."""

    def answer_with(answer):
        def label_structures(*_args, tell, **_options):
            tell(1, 3, "water")
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr("fff.steps.labelling.label_structures", label_structures)

    return answer_with


@pytest.mark.parametrize("step", STEPS)
def test_each_step_says_what_it_is_for_and_takes_json(step):
    result = invoke(step, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "--output" in result.stdout
    assert invoke(step).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["label", "nope.xyz", "--reference", "xtb"], "There is no file", ""),
        (["label", "molecule:H2O"], "`reference` is missing.", "Add `reference: {kind: xtb}`"),
        (
            ["label", "molecule:H2O", "--reference", "xtbb"],
            '`reference.kind` is "xtbb"',
            "Did you mean `xtb`?",
        ),
        (["label", "molecule:H2O", "--reference", "xtb", "-o", "reference.basis=x"], "basis", ""),
        (["train", "nope.xyz"], "There is no file", ""),
        (["train", "a.xyz", "--committee-size", "two"], "committee.size", ""),
        (["train", "a.xyz", "--sizes", "10;20"], "`--sizes 10;20` is no list of numbers.", "100,300,1000"),
        (["train", "a.xyz", "--start", "nope"], "`model.start`: there is no", "Check the path."),
        (["train", "a.xyz", "-o", "training.max_epoch=3"], "training.max_epoch", "max_epochs"),
        (["evaluate", "nope", "a.xyz"], "No trained model was found at nope.", "Give a run directory"),
        (["md", "nope", "molecule:H2O"], "No trained model was found at nope.", "Give a run directory"),
        (["md", "nope", "molecule:H2OO"], "H2OO", ""),
        (["md", "nope", "molecule:H2O", "--output", "md.pdb"], "md.pdb", ".traj"),
        (["md", "nope", "molecule:H2O", "--thermostat", "nvt"], "sampling.thermostat", ""),
        (["md", "nope", "molecule:H2O", "--temperature", "warm"], "sampling.temperature_K", ""),
    ],
)
def test_wrong_input_is_a_sentence_and_a_hint(arguments, message, hint, tmp_path):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)))
    write("a.xyz", [atoms, atoms])
    result = invoke(*arguments, "--quiet")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    error, told = result.stderr.strip().split("\n", 1)
    assert error.startswith("Error: ")
    assert message in error
    assert told.startswith("Hint: ")
    assert hint in told
    assert [path.name for path in tmp_path.iterdir()] == ["a.xyz"]


def test_a_finished_labelling_says_where_the_labels_are(labelled):
    labelled(Labelled("GFN2-xTB", 3, 1, 2, calculation_s=1.0))
    result = invoke("label", "molecule:H2O", "--reference", "xtb")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "GFN2-xTB: 2 labels made, 0.5 s each, 1 known before, 0 failed, of 3 structures",
        "Finished: 3 labels in labels.db; train on them with: fff train labels.db",
    ]
    assert result.stderr == "Labelling: 1 of 3 structures, water\n"


def test_structures_without_a_label_are_named_with_their_cause(labelled):
    labelled(Labelled("GFN2-xTB", 3, 0, 2, failed=[Failed("a.xyz (2)", "It did not converge.")]))
    result = invoke("label", "molecule:H2O", "--reference", "xtb", "--quiet")
    assert result.exit_code == 1
    assert "  a.xyz (2): It did not converge." in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Failed: 1 of 3 structures have no label")
    assert result.stderr == ""


def test_a_stopped_labelling_says_how_to_go_on(labelled, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/fff", "label", "my file.xyz", "--reference", "xtb"])
    labelled(Labelled("GFN2-xTB", 3, 0, 2, is_stopped=True))
    result = invoke("label", "molecule:H2O", "--reference", "xtb", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["state"] == "stopped"
    assert result.stderr.splitlines()[-1] == (
        "Stopped: 2 of 3 labels are in labels.db. Go on with: fff label 'my file.xyz' --reference xtb"
    )


def evaluated(**errors):
    known = {
        "n_structures": 3,
        "force_mae_meV_per_A": 90.0,
        "force_rmse_meV_per_A": 120.0,
        "force_mae_interval_meV_per_A": None,
        "mean_force_mae_meV_per_A": 80.0,
        "energy_mae_meV_per_atom": 500.0,
        "energy_rmse_meV_per_atom": 500.0,
        "energy_mae_shifted_meV_per_atom": 1.0,
    }
    element = {"n_atoms": 3, "force_mae_meV_per_A": 90.0, "force_rmse_meV_per_A": 120.0}
    elements = {"H": element, "O": element}
    return Evaluated(1, {**known, **errors}, elements, {}, None, 0, 1.5579, Path("evaluation"))


def test_an_evaluation_says_what_its_numbers_are_worth(monkeypatch):
    def invoked(**errors):
        monkeypatch.setattr("fff.steps.evaluation.evaluate_model", lambda *_, **__: evaluated(**errors))
        return invoke("evaluate", "model", "a.xyz", "--quiet").stdout

    out = invoked()
    assert out.splitlines()[0] == "One model on 3 structures"
    assert "Mean force: what predicting the mean force everywhere would give, 80.0 meV/Å." in out
    assert "not better than that" in out
    assert "trained on one composition" in out
    assert "differ by constants" not in invoked(n_structures=2)
    out = invoked(n_structures=100, force_mae_meV_per_A=20.0)
    assert out.splitlines()[0] == "One model on 100 structures, 1557.9 ms each"
    assert "not better than that" not in out


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_warnings_of_a_training_are_on_standard_error_and_in_the_json(monkeypatch, options):
    trained = Trained(Path("committee"), 3, warnings=["A member is trained on 1 label only."])
    monkeypatch.setattr("fff.steps.training.train_committee", lambda *_, **__: trained)
    result = invoke("train", "a.xyz", "--quiet", *options)
    assert result.exit_code == 0, result.output
    assert "Warning: A member is trained on 1 label only.\n" in result.stderr
    if options:
        assert json.loads(result.stdout)["warnings"] == trained.warnings
    else:
        assert "best epoch" in result.stdout


def test_what_nobody_expected_is_no_traceback(labelled):
    labelled(ZeroDivisionError("by zero"))
    result = invoke("label", "molecule:H2O", "--reference", "xtb")
    assert result.exit_code == 1
    assert "fff met an error that it does not know: ZeroDivisionError: by zero." in result.stderr


def test_columns_of_a_table_are_as_wide_as_they_must_be():
    assert table([["", "MAE"], ["a long name", "1.0"]]) == "             MAE\na long name  1.0"
