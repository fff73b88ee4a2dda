from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fff.campaigns.checking as checking
from fff.campaigns.checking.findings import failed, fine, skipped, warning
from fff.cli.app import app

LEAST = "structures: [molecule:H2O]\nreference: {kind: xtb}\n"
SMALL = """\
structures: [molecule:H2O, molecule:CH3OH]
reference: {kind: xtb}
model: {n_features: 8, n_layers: 1, cutoff_A: 3.0}
committee: {size: 2}
site: {kind: laptop, n_workers: 1}
"""
HANGS = '#!/bin/sh\n[ "$1" = --version ] && { echo "* xtb version 6.5.1"; exit; }\nsleep 600\n'


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Where checks put their own folders: a test sees whether one is left.
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


@pytest.fixture
def finds(monkeypatch):
    """Let a check find what a test says."""

    def find(*findings):
        monkeypatch.setattr(checking, "_PROBES", [checking._Probe("it", "doing it", lambda _: findings)])

    return find


def fff_check(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def config(text=LEAST):
    Path("some.yaml").write_text(text)
    return "some.yaml"


def test_each_finding_is_a_line_with_its_mark_and_its_repair(finds):
    finds(
        fine("disk", "1 GB free"),
        warning("clock", "it is off", "Set it."),
        failed("label", "it did not converge", "Look at the structure."),
        skipped("cost", "nothing was timed"),
    )
    result = fff_check(config())
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "✔ disk           1 GB free"
    assert lines[1:3] == ["! clock          it is off", "                 → Set it."]
    assert lines[3:5] == ["✘ label          it did not converge", "                 → Look at the structure."]
    assert lines[5] == "- cost           nothing was timed"
    assert "One thing to repair, 1 to think about" in lines[-1]


def test_warnings_alone_leave_the_exit_code_at_zero(finds):
    finds(fine("disk", "1 GB free"), warning("clock", "it is off", "Set it."))
    result = fff_check(config())
    assert result.exit_code == 0
    assert "fff run some.yaml" in result.stdout


def test_json_is_one_object_with_the_same(finds):
    finds(fine("disk", "1 GB free", free_bytes=10**9), failed("label", "no", "Do."))
    result = fff_check(config(), "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["schema_version"], told["ok"]) == (1, False)
    assert told["findings"][0] == {
        "probe": "disk",
        "status": "ok",
        "found": "1 GB free",
        "repair": "",
        "values": {"free_bytes": 10**9},
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.yaml"], "no config file"),
        (["some.yaml", "-o", "sampling.n_step=3"], "sampling.n_steps"),
        (["some.yaml", "--max-labels", "many"], "stop.max_labels"),
        (["some.yaml", "--wait", "soon"], "soon"),
    ],
)
def test_what_is_wrong_with_the_config_or_a_flag_is_a_sentence_and_two(arguments, says):
    config()
    result = fff_check(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not result.stdout


def left_in(folder):
    """Return what is left among the temporary files, but for what libraries keep until the process ends."""
    return [path for path in (folder / "tmp").iterdir() if path.name.startswith(("fff", ".fff"))]


def program(*arguments, encoding="utf-8"):
    command = [sys.executable, "-c", "from fff.cli.app import main; main()", "check", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


@pytest.mark.slow
@pytest.mark.integration
def test_a_whole_check_finds_all_in_order_and_leaves_nothing(tmp_path):
    config(SMALL)
    result = fff_check("some.yaml", "--json")
    found = json.loads(result.stdout)["findings"]
    assert result.exit_code == 0, [f for f in found if f["status"] == "failed"]
    assert {f["status"] for f in found} <= {"ok", "warning", "skipped"}
    by_probe = {f["probe"]: f for f in found}
    assert by_probe["structures"]["values"]["elements"] == ["C", "H", "O"]
    labels = [f["values"] for f in found if f["probe"] == "label"]
    assert labels[0]["energy_eV"] == pytest.approx(-137.97, abs=0.01)
    assert [v["n_atoms"] for v in labels] == [3, 6]
    assert by_probe["site"]["values"]["pool"] == "shared"
    assert by_probe["training"]["values"]["epoch_s_per_structure"] > 0
    assert by_probe["dynamics"]["values"]["step_s"] > 0
    assert by_probe["store, queues"]["values"]["round_trip_s"] < 5
    total = by_probe["cost"]["values"]
    assert 0 < total["low_s"] <= total["high_s"]
    assert {path.name for path in tmp_path.iterdir()} == {"some.yaml", "tmp"}
    assert not left_in(tmp_path)


@pytest.mark.slow
@pytest.mark.integration
def test_each_thing_that_is_wrong_is_named_with_its_repair(tmp_path, monkeypatch):
    without_site = [p for p in checking._PROBES if p.name not in ("site", "accelerators")]
    monkeypatch.setattr(checking, "_PROBES", without_site)
    hanging = tmp_path / "hangs"
    hanging.write_text(HANGS)
    hanging.chmod(0o755)
    Path("file").touch()
    config(SMALL)

    def failures(*overrides):
        arguments = [word for text in overrides for word in ("-o", text)]
        result = fff_check("some.yaml", "--json", *arguments)
        assert result.exit_code == 1
        found = json.loads(result.stdout)["findings"]
        assert not left_in(tmp_path)
        return {f["probe"]: (f["found"], f["repair"]) for f in found if f["status"] == "failed"}

    found = failures("reference.max_iterations=1", "run_dir=file/x")
    assert "did not converge" in found["label"][0]
    assert "reference.max_iterations" in found["label"][1]
    assert "is a file" in found["run directory"][0]
    found = failures("reference.kind=xtb-cli", f"reference.command=[{hanging}]", "reference.time_limit_s=1")
    assert "time limit, 1 s" in found["label"][0]
    assert "Its files are in" not in found["label"][0]
    found = failures("reference.kind=xtb-cli", "reference.command=[no-such-xtb]")
    assert found == {"executable": ("The executable no-such-xtb was not found.", found["executable"][1])}
    found = failures("reference={kind: pyscf, functional: PBX}")
    assert "PBX" in found["method"][0]


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_check_that_is_interrupted_leaves_nothing(number, tmp_path):
    config(SMALL)
    process = program("some.yaml", encoding="ascii")
    # Workers are being started then.
    for line in process.stdout:
        assert not line.startswith("✔")
        if line.startswith("+ label"):
            break
    time.sleep(2.0)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "Stopped" in errors
    assert not left_in(tmp_path)
