"""Outputs belong to one process and are never written over."""

from pathlib import Path

import pytest

from fff.base.errors import RunDirectoryError
from fff.steps.outputs import free_folder, taken


def test_an_output_that_is_being_written_is_refused(tmp_path):
    with (
        taken(tmp_path / "labels.db"),
        pytest.raises(RunDirectoryError, match="Another process writes"),
        taken(tmp_path / "labels.db"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_the_present_folder_can_be_an_output(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with taken(Path()):
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [".here.lock"]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot be written"), taken(tmp_path / "file" / "labels.db"):
        pass


def test_a_folder_that_holds_something_is_refused_or_gets_a_number(tmp_path):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "parity.png").write_text("")
    assert free_folder(None, tmp_path / "evaluation") == tmp_path / "evaluation-2"
    with pytest.raises(RunDirectoryError, match="nothing is ever overwritten"):
        free_folder(tmp_path / "evaluation", tmp_path / "x")
    assert free_folder(tmp_path / "new", tmp_path / "x") == tmp_path / "new"
