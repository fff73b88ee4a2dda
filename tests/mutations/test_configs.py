"""Configs that are wrong in some way: each ends with code 2 and a sentence; nothing is made or deleted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import fff.campaigns.inputs
from fff.base.errors import ReferenceSetupError
from fff.cli.app import app
from fff.reference.probe import probe
from fff.reference.probing import _as_json
from tests.mutations.configs import CASES, KEYS, LEAST, PLACES, make_files
from tests.mutations.images import state_of

# Five hundred of them: half a minute together.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of files that the cases name; it stays as it is."""
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    before = state_of(folder)
    yield folder
    assert state_of(folder) == before


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Nothing is installed, and temporary files are seen: a traceback would be one."""
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", str(tmp_path / "here"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture(autouse=True)
def probe_in_this_process(monkeypatch):
    """Ask the reference methods themselves, without the second that a process of their own takes."""

    def ask(section, structures):
        answer = probe({"section": section, "structures": [_as_json(atoms) for atoms in structures]})
        if "error" in answer:
            raise ReferenceSetupError(answer["error"], hint=answer["hint"])
        return answer["name"]

    monkeypatch.setattr(fff.campaigns.inputs, "probe_reference", ask)


def run(config, *arguments):
    here = Path.cwd()
    before = state_of(here)
    result = CliRunner().invoke(app, ["run", config, *arguments, "--dry-run"])
    assert "Traceback" not in result.output
    assert state_of(here) == before
    assert list(Path(tempfile.tempdir).iterdir()) == []
    return result


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_config_ends_with_code_2_and_a_sentence_that_names_the_place(case, files):
    text, names, arguments = CASES[case]
    if isinstance(text, str):
        text = text.replace("FILES", str(files)).encode("utf-8", "surrogatepass")
    if text is not None:
        Path("some.yaml").write_bytes(text)
    result = run("some.yaml", *(argument.replace("FILES", str(files)) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr
    assert "\nHint: " in result.stderr
    for name in names:
        assert name in result.stderr


@pytest.mark.parametrize("place", PLACES)
def test_a_config_that_cannot_be_read_ends_with_code_2(place, files):
    path, name = PLACES[place]
    result = run(path.replace("FILES", str(files)))
    assert result.exit_code == 2, result.output
    assert name in result.stderr
    assert "\nHint: " in result.stderr


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(width=32)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(
        ["300 K", "NO", "~", "*a", "!!int x", "2026-01-01", "0o17", "0x" + "f" * 2000, "[", "'"]
    )
)
VALUES = SCALARS.map(str) | st.lists(SCALARS, max_size=3).map(str) | st.text(max_size=8)


@pytest.mark.slow
@given(key=st.sampled_from(KEYS), value=VALUES)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_any_key_is_taken_or_refused_with_a_sentence(key, value):
    Path("some.yaml").write_text(LEAST)
    result = run("some.yaml", "-o", f"{key}={value}")
    assert result.exit_code in {0, 2}, result.output
    if result.exit_code == 2:
        assert result.stderr.startswith("Error: ")
        assert "\nHint: " in result.stderr
