"""Run directories that something happened to: each is refused with code 2, or goes on and says what it mends.

Every case is looked at by `--dry-run`, which may write nothing at all, and then resumed as far as the first
worker would start. `test_resumed.py` resumes some of them to the end.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from fff.campaigns.restoring import find_lost
from fff.campaigns.sitting import Sitting
from fff.cli.app import app
from tests.mutations import configs
from tests.mutations.images import copy, state_of
from tests.mutations.run_directories import EITHER, REFUSED, TAKEN, dead_lock

# A campaign is run first, once: fifteen seconds on a free machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REPLACED = {"lock", "status.json", "summary.json", "summary.txt", "provenance.json", "tasks/stopping"}
"""What a campaign replaces or removes whenever it goes on."""

FOLDERS_REPLACED = ("store", "parsl")


@pytest.fixture(autouse=True)
def without_workers(monkeypatch):
    """Let a sitting end where it would start its workers, and no lock be waited for long."""
    monkeypatch.setattr(Sitting, "_sit", lambda self, found, status: find_lost(self.run, found))
    monkeypatch.setattr("fff.data.run_lock.DEAD_AFTER_S", 0.2)
    monkeypatch.setattr("fff.data.provenance._git_state", lambda root: (None, None))


@pytest.fixture
def left(images, tmp_path, monkeypatch):
    """Return the run directory that a mutation leaves; its name has a blank, and it is not where it was."""
    monkeypatch.chdir(tmp_path)

    def make(mutation) -> Path:
        folder = tmp_path / "a run"
        copy(images.left(mutation.when), folder)
        dead_lock(folder)
        mutation.change(folder)
        return folder

    return make


def resume(folder, *arguments):
    result = CliRunner().invoke(app, ["resume", str(folder), *arguments])
    assert "Traceback" not in result.output
    assert "does not know" not in result.output
    return result


class Kept(NamedTuple):
    """What may only grow.

    Attributes:
        state: All paths below the folder.
        log: The event log.
        people: The log for people.
        rows: The rows of the database; None if it is none.
    """

    state: dict[str, str]
    log: bytes
    people: bytes
    rows: list[tuple[object, ...]] | None

    @classmethod
    def of(cls, folder: Path) -> Kept:
        return cls(state_of(folder), _read(folder / "events.jsonl"), _read(folder / "run.log"), _rows(folder))


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _rows(folder: Path) -> list[tuple[object, ...]] | None:
    if not (folder / "labels.db").is_file():
        return None
    # Reading it where it is would undo what a killed writer left.
    with tempfile.TemporaryDirectory() as aside:
        for path in folder.glob("labels.db*"):
            shutil.copy(path, aside)
        with closing(sqlite3.connect(Path(aside, "labels.db"))) as connection:
            try:
                return connection.execute("SELECT * FROM systems ORDER BY id").fetchall()
            except sqlite3.Error:
                return None


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def assert_nothing_is_lost(folder: Path, before: Kept, *, accepted: bool) -> None:
    after = Kept.of(folder)
    for name in changed(before.state, after.state):
        if name in REPLACED or name.partition("/")[0] in FOLDERS_REPLACED or name.startswith("labels.db-"):
            continue
        if name == "config.yaml":
            assert accepted or name not in before.state
        elif name == "events.jsonl":
            assert after.log.startswith(before.log[: before.log.rfind(b"\n") + 1])
        elif name == "run.log":
            assert after.people.startswith(before.people)
        elif name == "labels.db":
            assert before.rows is not None
            assert after.rows[: len(before.rows)] == before.rows
        else:
            assert name not in before.state, f"{name} was changed or deleted"


def assert_refused(result, says) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert "\nHint: " in result.stderr
    for text in says:
        assert text in result.stderr


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_go_on_ends_with_code_2_and_a_sentence_and_is_left_as_it_was(case, left):
    mutation = REFUSED[case]
    folder = left(mutation)
    before = state_of(folder.parent)
    if case != "a living process":  # a look is not in its way
        assert_refused(resume(folder, *mutation.arguments, "--dry-run"), mutation.says)
        assert state_of(folder.parent) == before
    assert_refused(resume(folder, *mutation.arguments), mutation.says)
    # The lock of the dead process is taken away before the rest is looked at.
    assert changed(before, state_of(folder.parent)) <= {f"{folder.name}/lock"}


@pytest.mark.parametrize("case", TAKEN)
def test_what_can_go_on_does_and_says_what_was_repaired_and_nothing_is_lost(case, left):
    mutation = TAKEN[case]
    folder = left(mutation)
    before = Kept.of(folder)
    dry = resume(folder, *mutation.arguments, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert state_of(folder) == before.state
    result = resume(folder, *mutation.arguments)
    assert result.exit_code == (0 if mutation.when == "finished" and not mutation.arguments else 3), (
        result.output
    )
    for text in mutation.says:
        assert text in dry.stdout + result.stdout
    assert_nothing_is_lost(folder, before, accepted=bool(mutation.arguments))


def test_it_goes_on_as_often_as_anybody_likes(left):
    folder = left(TAKEN["a row without its event"])
    for n in range(4):
        result = resume(folder)
        assert result.exit_code == 3
        assert ("event is written anew" in result.stdout) == (n == 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", EITHER)
def test_a_damaged_file_is_refused_by_name_or_goes_on_and_nothing_is_lost(case, left):
    folder = left(EITHER[case])
    before = Kept.of(folder)
    dry = resume(folder, "--dry-run")
    assert state_of(folder) == before.state
    result = resume(folder)
    if result.exit_code == 2:
        assert_refused(result, [case.partition(" ")[0].rpartition("/")[2]])
        assert changed(before.state, state_of(folder)) <= {"lock", "run.log"}
    else:
        assert (dry.exit_code, result.exit_code) == (0, 3), result.output
        assert_nothing_is_lost(folder, before, accepted=False)


def test_there_are_at_least_120_configs_80_run_directories_and_200_cases_altogether():
    n_configs = len(configs.CASES) + len(configs.PLACES)
    n_run_directories = len(REFUSED) + len(TAKEN) + len(EITHER)
    assert n_configs >= 120
    assert n_run_directories >= 80
    assert n_configs + n_run_directories >= 200


def test_what_a_killed_opening_left_is_begun_anew(images, tmp_path, monkeypatch):
    """Every beginning of what an opening writes, in the order in which it is written."""
    monkeypatch.setattr("fff.campaigns.inputs.probe_reference", lambda section, structures: "emt")
    whole = images.left("opening")
    opened = None
    order = [
        "lock",
        "run.log",
        "events.jsonl",
        "config.yaml",
        "provenance.json",
        "inputs",
        "frames/start.npz",
    ]
    order += ["frames/initial.npz", "labels.db"]
    for n in range(len(order) + 1):
        folder = tmp_path / f"{n} files" / "run"
        folder.mkdir(parents=True)
        for name in order[:n]:
            (folder / name).parent.mkdir(exist_ok=True)
            if name == "lock":
                dead_lock(folder)
            elif (whole / name).is_dir():
                shutil.copytree(whole / name, folder / name)
            else:
                shutil.copy(whole / name, folder / name)
        if n > 2:
            # Half a first line, as a full disk may leave it, is no event.
            (folder / "events.jsonl").write_text('{"schema_version":1,"seq":0,"kind":"ope')
        before = state_of(folder)
        arguments = ["run", str(images.config), "--run-dir", str(folder)]
        dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
        assert dry.exit_code == 0, dry.output
        assert state_of(folder) == before
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 3, result.output
        first = (folder / "events.jsonl").read_bytes().replace(str(folder).encode(), b"")
        first = first.partition(b'"times"')[0]
        opened = opened or first
        assert first == opened
