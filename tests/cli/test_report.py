"""`fff report` as a user meets it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fff.cli.app import app
from tests.support.reported_campaigns import ReportedCampaign


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return ReportedCampaign(tmp_path_factory.mktemp("cli") / "run").run


def test_a_report_is_written_and_said_where(run, tmp_path):
    page = tmp_path / "page.html"
    run.provenance.unlink()
    done = report(run.path, "--output", page, "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told == {
        "schema_version": 1,
        "report": str(page),
        "figures": str(tmp_path / "page_figures"),
        "warnings": ["There is no provenance.json."],
    }
    assert done.stderr == "Warning: There is no provenance.json.\n"
    assert page.is_file()


def test_a_key_of_a_config_is_no_name_of_a_page(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = report(run.path, "-o", "stop.max_labels=3")
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_campaign_is_refused(tmp_path):
    done = report(tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: There is no campaign in {tmp_path}.\nHint: ")


def test_a_place_that_cannot_be_written_is_refused_with_the_way_out(run, tmp_path):
    (tmp_path / "file").touch()
    done = report(run.path, "--output", tmp_path / "file" / "page.html")
    assert done.exit_code == 2
    assert "--output FILE" in done.stderr
