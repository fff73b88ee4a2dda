from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from typer.testing import CliRunner

import fff.campaigns.inputs
from fff.base.errors import CampaignError, ConfigError
from fff.campaigns.running import Campaign, Outcome
from fff.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "configs").glob("*.yaml"))
EXTERNAL_CODES = {"water-nwchem": "nwchem", "water-xtb-cli": "xtb"}
LEAST = "structures: [molecule:H2O]\nreference: {kind: xtb}\n"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_probe(monkeypatch):
    """Take the reference as sound, which saves a process."""
    monkeypatch.setattr(fff.campaigns.inputs, "probe_reference", lambda section, structures: "GFN2-xTB")


@pytest.fixture
def campaign(monkeypatch):
    """Stand in for what a campaign does once it is opened, and remember which ones did it."""
    calls = []
    answers = [Outcome("finished", "Finished: 128 labels. Results in x", "the table")]

    def carry_out(self, *, say, walltime_end):
        calls.append((self, walltime_end))
        say("a line a minute")
        answer = answers[-1]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(Campaign, "carry_out", carry_out)
    return calls, answers


def fff_run(*arguments):
    return CliRunner().invoke(app, ["run", *map(str, arguments)])


def config(text=LEAST, name="some.yaml"):
    path = Path(name)
    path.write_text(text)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_passes_its_dry_run_and_writes_nothing(preset, tmp_path):
    code = EXTERNAL_CODES.get(preset.stem)
    if code and not shutil.which(code):
        pytest.skip(f"the program {code} is not installed")
    result = fff_run(preset, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "Dry run: everything was checked, nothing was written." in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("preset", EXTERNAL_CODES)
def test_a_preset_whose_program_is_missing_says_so(preset, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = fff_run(ROOT / "configs" / f"{preset}.yaml", "--dry-run")
    assert result.exit_code == 2
    assert f"The executable {EXTERNAL_CODES[preset]} was not found." in result.stderr
    assert "Hint: Install it, put it on PATH, or set reference." in result.stderr
    assert not list(tmp_path.iterdir())


def test_there_are_nine_presets_and_the_least_gives_structures_and_reference_only():
    assert [path.stem for path in PRESETS] == [
        "copper-emt",
        "ethanol-pbe",
        "minimal",
        "pbs",
        "quickstart",
        "slurm",
        "water-nwchem",
        "water-xtb-cli",
        "water-xtb",
    ]
    from fff.config import load_config

    loaded = load_config(ROOT / "configs" / "minimal.yaml")
    given = [key for key, source in loaded.sources.items() if source != "default"]
    assert given == ["structures", "reference.kind"]


@pytest.mark.usefixtures("no_probe")
def test_a_dry_run_shows_every_value_with_its_source():
    result = fff_run(
        config(), "--dry-run", "--seed", 3, "-o", "sampling.n_steps=100", "-o", "stop.max_labels=99"
    )
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["seed", "3", "--seed"] in lines
    assert ["sampling.n_steps", "100", "-o"] in lines
    assert ["reference.kind", '"xtb"', "some.yaml"] in lines
    assert ["committee.size", "4", "default"] in lines
    assert "train 4 PaiNN force fields for H2O, with at most 99 labels by GFN2-xTB" in result.stdout
    assert not Path("runs").exists()


@pytest.mark.usefixtures("no_probe")
def test_every_flag_sets_its_key(campaign):
    calls, _ = campaign
    flags = ["--max-labels", 40, "--committee-size", 3, "--retrain-every", 8, "--seed", 7]
    result = fff_run(config(), *flags, "--reference", "pyscf", "--site", "workstation", "--run-dir", "there")
    assert result.exit_code == 0, result.stderr
    ((campaign, walltime_end),) = calls
    assert walltime_end is None
    loaded = campaign.inputs.loaded
    values = loaded.config
    assert (values.stop.max_labels, values.committee.size, values.training.retrain_every) == (40, 3, 8)
    assert (values.seed, values.reference.kind, values.site.kind) == (7, "pyscf", "workstation")
    assert loaded.run_dir == Path("there").resolve()
    assert loaded.sources["stop.max_labels"] == "--max-labels"


@pytest.mark.usefixtures("no_probe")
def test_a_run_says_what_it_does_where_it_writes_and_how_to_stop_it(campaign):
    result = fff_run(config())
    out = result.stdout
    for part in (
        "Campaign some: train 4 PaiNN",
        "Seed   0",
        "runs/some/",
        "├── config.yaml",
        "labels.db",
        "fff watch runs/some, and with --web in the browser",
        "Ctrl-C",
        "fff stop runs/some",
        "a line a minute",
        "the table",
    ):
        assert part in out
    assert out.splitlines()[-1] == "Finished: 128 labels. Results in x"
    assert max(len(line) for line in out.splitlines() if "──" in line) <= 80


@pytest.mark.usefixtures("no_probe")
@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 1), ("stopped", 3)])
def test_the_exit_code_says_how_a_campaign_ended(campaign, state, code):
    campaign[1].append(Outcome(state, f"{state.capitalize()}: so it was."))
    result = fff_run(config())
    assert result.exit_code == code
    assert result.stdout.splitlines()[-1] == f"{state.capitalize()}: so it was."


@pytest.mark.usefixtures("no_probe")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("It cannot be.", hint="Mend it."), 2),
        (CampaignError("It cannot be.", hint="Mend it."), 1),
    ],
)
def test_errors_of_a_campaign_are_sentences(campaign, error, code):
    campaign[1].append(error)
    result = fff_run(config())
    assert result.exit_code == code
    assert result.stderr == "Error: It cannot be.\nHint: Mend it.\n"


@pytest.mark.usefixtures("no_probe")
def test_an_unexpected_error_leaves_its_traceback_in_the_run_log(campaign):
    campaign[1].append(ZeroDivisionError("division by zero"))
    Path("there").mkdir()
    result = fff_run(config(), "--run-dir", "there")
    assert result.exit_code == 1
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "Traceback" not in result.output
    log = Path("there/run.log").resolve()
    assert str(log) in result.stderr
    assert "Traceback" in log.read_text()


@pytest.mark.usefixtures("no_probe")
def test_without_a_run_directory_the_traceback_is_in_the_folder_for_temporary_files(tmp_path, monkeypatch):
    def break_down(loaded):
        raise ZeroDivisionError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("fff.campaigns.running.load_inputs", break_down)
    result = fff_run(config())
    assert result.exit_code == 1
    (log,) = tmp_path.glob("fff-error-*.log")
    assert str(log) in result.stderr
    assert "Traceback" in log.read_text()


@pytest.mark.usefixtures("no_probe")
def test_an_interrupt_before_the_start_counts_as_stopped(campaign):
    campaign[1].append(KeyboardInterrupt())
    result = fff_run(config())
    assert result.exit_code == 3
    assert "Stopped:" in result.stderr


def labelled(path, n=4, **results):
    frames = []
    for i in range(n):
        atoms = molecule("H2O")
        atoms.rattle(0.01, seed=i)
        atoms.calc = SinglePointCalculator(atoms, **(results or {"energy": 0.0, "forces": [[0, 0, 0]] * 3}))
        frames.append(atoms)
    write(path, frames)


def make_files():
    """Write what the table of wrong inputs names."""
    labelled("labels.xyz")
    labelled("one.xyz", n=1)
    labelled("energies.xyz", energy=1.0)
    write("dummy.xyz", Atoms("XH", positions=[[0, 0, 0], [0, 0, 1]]))
    write("clash.xyz", Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.1]]))
    write("uranium.xyz", Atoms("U"))
    write("copper.cif", bulk("Cu"))
    Path("element.xyz").write_text("1\n\nQq 0 0 0\n")
    Path("empty.xyz").touch()
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/x").touch()
    Path("no-model").mkdir()
    Path("no-model/model.json").write_text("{}")
    Path("no-model/weights.safetensors").touch()


# what is asked for: (config, arguments, parts of the answer)
WRONG = {
    "unknown key": (LEAST + "sampel: 1\n", [], ["`sampel`", "`sampling`"]),
    "near-miss key": (LEAST, ["-o", "committee.sise=3"], ["`committee.sise`", "3", "`committee.size`"]),
    "wrong unit": (
        LEAST + "sampling: {temperature_K: 300 K}\n",
        [],
        ["`sampling.temperature_K", "300 K", "Write 300 alone"],
    ),
    "wrong type": (LEAST, ["-o", "seed=abc"], ["`seed`", "abc", "whole number"]),
    "wrong type of a flag": (LEAST, ["--seed", "abc"], ["`seed`", "abc", "whole number"]),
    "out of bounds": (LEAST, ["--committee-size", 1], ["`committee.size` is 1", "at least 2"]),
    "NO as boolean": (LEAST + "test: {random_baseline: NO}\n", [], ["`test.random_baseline`", "Write false"]),
    "off as boolean": (LEAST, ["-o", "test.random_baseline=off"], ["`test.random_baseline`", "Write false"]),
    "missing file": (
        LEAST,
        ["-o", "structures=[label.xyz]"],
        ["`structures`", "label.xyz", "Did you mean", "labels.xyz"],
    ),
    "empty file": (LEAST, ["-o", "structures=[empty.xyz]"], ["`structures`", "empty.xyz is empty"]),
    "empty folder": (LEAST, ["-o", "structures=[empty]"], ["`structures`", "no file with a structure"]),
    "empty structure list": (LEAST, ["-o", "structures=[]"], ["`structures`", "molecule:"]),
    "unknown element": (LEAST, ["-o", "structures=[element.xyz]"], ["`structures`", "Qq", "no element"]),
    "dummy atom": (LEAST, ["-o", "structures=[dummy.xyz]"], ["`structures`", "dummy.xyz", "no element (X)"]),
    "element that the method lacks": (LEAST, ["-o", "structures=[uranium.xyz]"], ["U,", "GFN2-xTB"]),
    "atoms on top of each other": (LEAST, ["-o", "structures=[clash.xyz]"], ["clash.xyz", "0.10 Å", "0.4 Å"]),
    "unknown molecule": (LEAST, ["-o", "structures=[molecule:H2OO]"], ["`molecule:H2OO`", "H2O2"]),
    "impossible spin": (
        LEAST,
        ["-o", "reference.charge=1"],
        ["`reference.multiplicity` is 1", "9 electrons", "2, 4, 6"],
    ),
    "pressure without cell": (
        LEAST,
        ["-o", "sampling.thermostat=npt"],
        ["`sampling.thermostat`", "periodic"],
    ),
    "crystal for PySCF": (
        LEAST,
        ["--reference", "pyscf", "-o", "structures=[copper.cif]"],
        ["`reference.kind` is pyscf", "periodic"],
    ),
    "labels without forces": (
        LEAST + "labels: [energies.xyz]\n",
        [],
        ["`labels`", "no forces", "energies.xyz"],
    ),
    "a single label": (LEAST + "labels: [one.xyz]\n", [], ["`labels` holds 1", "at least 2"]),
    "test set in the training set": (
        LEAST + "labels: [labels.xyz]\ntest: {labels: labels.xyz}\n",
        [],
        ["`test.labels`", "4 structures", "`labels`"],
    ),
    "missing test set": (LEAST + "test: {labels: lables.xyz}\n", [], ["`test.labels`", "labels.xyz"]),
    "missing model": (LEAST + "model: {start: modell}\n", [], ["`model.start`", "modell"]),
    "folder without model": (
        LEAST + "model: {start: full}\n",
        [],
        ["`model.start`", "full", "No trained model"],
    ),
    "model that is none": (LEAST + "model: {start: no-model}\n", [], ["`model.start`", "no-model", "schema"]),
    "start structure in the test set": (
        "structures: [labels.xyz@0]\nreference: {kind: xtb}\ntest: {labels: labels.xyz}\n",
        [],
        ["`test.labels` shares 1 structure with `structures`"],
    ),
    "missing config": (None, [], ["some.yaml", "no config file"]),
    "bad YAML": ("structures: [\n", [], ["some.yaml, line", "no YAML"]),
    "empty config": ("", [], ["some.yaml is empty", "fff init minimal"]),
    "key given twice": (LEAST + "seed: 1\nseed: 2\n", [], ["line 4", "`seed`", "twice"]),
    "unknown site": (LEAST, ["--site", "condor"], ["`site.kind`", "condor", "laptop, workstation"]),
    "unknown reference": (LEAST, ["--reference", "orca"], ["`reference.kind`", "orca", "xtb, pyscf, ase"]),
    "reference without calculator": (LEAST, ["--reference", "ase"], ["`reference.calculator` is missing"]),
    "override without value": (LEAST, ["-o", "seed"], ["-o seed", "key=value"]),
    "override that is no YAML": (LEAST, ["-o", "structures=["], ["-o structures=[", "quotes"]),
    "flag and override": (LEAST, ["--seed", 1, "-o", "seed=2"], ["`--seed`", "`seed`", "only one"]),
    "file as run directory": (LEAST, ["--run-dir", "labels.xyz"], ["labels.xyz is a file", "--run-dir"]),
    "run directory below a file": (
        LEAST,
        ["--run-dir", "labels.xyz/x"],
        ["labels.xyz is a file", "--run-dir"],
    ),
    "run directory in use": (LEAST, ["--run-dir", "full"], ["full is not empty", "--run-dir"]),
    "unknown flag": (LEAST, ["--max-label", 3], ["--max-label", "--max-labels"]),
}


@pytest.mark.usefixtures("no_probe")
@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("dry", [True, False], ids=["dry", "real"])
def test_wrong_input_ends_with_code_2_and_a_sentence(case, dry, campaign):
    text, arguments, parts = WRONG[case]
    make_files()
    if text is not None:
        config(text)
    before = sorted(Path().rglob("*"))
    result = fff_run("some.yaml", *arguments, *(["--dry-run"] if dry else []))
    assert result.exit_code == 2, result.output
    for part in parts:
        assert part in result.stderr
    assert "Traceback" not in result.output
    assert "Error" in result.stderr
    assert not campaign[0]
    assert sorted(Path().rglob("*")) == before


def test_a_folder_as_config_is_refused():
    Path("some.yaml").mkdir()
    result = fff_run("some.yaml")
    assert result.exit_code == 2
    assert "some.yaml is a folder" in result.stderr


def test_all_problems_of_a_config_are_shown():
    result = fff_run(config(LEAST + "committee: {size: 1}\nsede: 3\n"))
    assert result.exit_code == 2
    assert "`sede`" in result.stderr
    assert "`committee.size` is 1" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ("{kind: ase, calculator: emmt}", ["emmt", "emt"]),
        ("{kind: ase, calculator: orca}", ["orca"]),
        ("{kind: ase, calculator: emt}", ["emt", "Ca"]),
        ("{kind: pyscf, functional: PBEE}", ["PBEE"]),
        ("{kind: pyscf, basis: def2-SPV}", ["def2-SPV"]),
    ],
)
def test_a_reference_that_cannot_run_here_ends_with_code_2(section, parts):
    write("calcium.xyz", Atoms("CaO", positions=[[0, 0, 0], [0, 0, 1.8]]))
    result = fff_run(config(f"structures: [calcium.xyz]\nreference: {section}\n"))
    assert result.exit_code == 2, result.output
    for part in parts:
        assert part in result.stderr
    assert "Hint:" in result.stderr
    assert "Traceback" not in result.output


def test_a_probe_that_dies_is_a_reference_that_cannot_be_set_up(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    result = fff_run(config())
    assert result.exit_code == 2
    assert "`reference.kind` is xtb, which cannot be set up" in result.stderr


def script(*arguments, code=None):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *(["-c", code] if code else [str(ROOT / "run.py")]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def test_the_script_without_config_shows_its_usage():
    result = script()
    assert result.returncode == 2
    assert "Usage: run.py" in result.stderr
    assert "CONFIG" in result.stderr


def test_the_script_is_the_command_run():
    config()
    result = script("some.yaml", "--dry-run", "-o", "seed=-1")
    assert result.returncode == 2
    assert result.stderr == (
        "Error: `seed` is -1; it must be at least 0 and below 2^63.\n"
        "Hint: Set `seed` to a value that is at least 0 and below 2^63.\n"
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys, json\nsys.argv = ['fff', '--help']\nfrom fff.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    result = script(code=code)
    code, modules = json.loads(result.stdout.splitlines()[-1])
    assert code == 0
    heavy = {
        "ase",
        "colmena",
        "numpy",
        "parsl",
        "proxystore",
        "pydantic",
        "pyscf",
        "rich",
        "ruamel",
        "tblite",
    }
    heavy |= {"matplotlib", "schnetpack", "scipy", "torch"}
    assert not heavy & set(modules)


def test_the_list_of_commands_has_whole_sentences_in_plain_words():
    result = CliRunner().invoke(app, ["--help"], terminal_width=80)
    assert "..." not in result.stdout.partition("Commands:")[2]
    assert "range" not in CliRunner().invoke(app, ["label", "--help"]).stdout


def test_the_version_is_shown():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"fff {fff.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["run"], ["run", "a", "b"], ["run", "a", "--nonsense"]]
)
def test_wrong_usage_ends_with_code_2(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
