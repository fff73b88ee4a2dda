from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fff.cli.app import app
from fff.config.presets import presets


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fff(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize("arguments", [(), ("--list",)])
def test_without_a_name_the_presets_are_listed(arguments):
    result = fff("init", *arguments)
    assert result.exit_code == 0
    assert all(preset.name in result.stdout for preset in presets())


def test_a_preset_is_written_with_the_files_it_names_and_a_schema():
    result = fff("init", "ethanol-pbe", "-o", "sub/mine.yaml")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in Path("sub").iterdir()} == {"mine.yaml", "ethanol.xyz", "fff-schema.json"}
    assert "fff run sub/mine.yaml" in result.stdout
    assert json.loads(Path("sub/fff-schema.json").read_text())["title"]
    # A second config beside it shares the schema.
    assert fff("init", "quickstart", "-o", "sub/other.yaml").exit_code == 0


@pytest.mark.parametrize("name", ["slurm", "pbs"])
def test_a_preset_for_a_cluster_brings_its_batch_script_along(name):
    result = fff("init", name, "-o", "sub/mine.yaml")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in Path("sub").iterdir()} == {"mine.yaml", f"{name}.sh", "fff-schema.json"}
    assert Path("sub", f"{name}.sh").read_text().startswith("#!/usr/bin/env bash\n")


def test_nothing_is_overwritten():
    Path("quickstart.yaml").write_text("mine")
    result = fff("init", "quickstart")
    assert result.exit_code == 2
    assert "already" in result.stderr
    assert "-o FILE" in result.stderr
    assert Path("quickstart.yaml").read_text() == "mine"
    for name in ("ethanol.xyz", "fff-schema.json"):
        Path(name).write_text("mine")
        result = fff("init", "ethanol-pbe")
        assert result.exit_code == 2
        assert not Path("ethanol-pbe.yaml").exists()
        assert Path(name).read_text() == "mine"
        Path(name).unlink()


def test_an_unknown_preset_and_a_place_that_cannot_be_are_sentences():
    assert "Did you mean minimal?" in fff("init", "minimale").stderr
    Path("file").touch()
    result = fff("init", "minimal", "-o", "file/x.yaml")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minimal", "quickstart", "copper-emt", "ethanol-pbe", "water-xtb"])
def test_what_is_written_passes_its_dry_run(name):
    assert fff("init", name).exit_code == 0
    result = fff("run", f"{name}.yaml", "--dry-run")
    assert result.exit_code == 0, result.stderr


def test_the_schema_is_printed_or_written_but_not_over_another_file():
    assert json.loads(fff("schema").stdout)["additionalProperties"] is False
    assert fff("schema", "--format", "markdown").stdout.startswith("# Configuration")
    assert fff("schema", "-o", "s.json").exit_code == 0
    assert fff("schema", "-o", "s.json").exit_code == 0
    Path("mine.json").write_text("{}")
    result = fff("schema", "-o", "mine.json")
    assert result.exit_code == 2
    assert Path("mine.json").read_text() == "{}"
