"""Run directories that something happened to, resumed to the end by the real command.

One worker does everything in one order, so wherever nothing was asked for that changes the campaign, the
labels are those of the campaign that nobody disturbed, bit by bit.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fff.base.ids import sha256_file
from fff.data.events import read_events
from fff.data.labels import LabelStore
from fff.data.packing import labels_to_bytes
from fff.data.run_directory import RunDirectory
from tests.mutations.images import Images, copy
from tests.mutations.run_directories import TAKEN, Mutation, both, dead_lock, holding, lines, without

# Sixteen campaigns, two at a time: minutes.
pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1800)]

AT_ONCE = 2
LIMIT_S = 600.0


def other_label(folder: Path) -> None:
    """Put the label of another structure where that of the next request would be."""
    with LabelStore(folder / "labels.db") as labels:
        content = labels_to_bytes(labels.read(["label-00000"]))
    for number in range(6, 10):
        holding(f"tasks/label-{number:05d}.npz", content)(folder)


def damaged_stages(folder: Path) -> None:
    """Leave checkpoints of garbage for what is still to come."""
    requests = [f"train-r{number:03d}-m{member}" for number in (1, 2) for member in (0, 1)]
    requests += [f"dynamics-t{index:03d}-r{run:04d}" for index in (0, 1) for run in (1, 2)]
    for request in requests:
        name = f"checkpoint-000000003-{'0' * 64}.safetensors"
        holding(f"tasks/{request}.stage/{name}", b"garbage" * 99)(folder)


EQUAL = {
    **{
        name: TAKEN[name]
        for name in (
            "a row without its event",
            "an audited row without its event",
            "and the audited frame is lost",
            "half of the last line",
            "a writer was killed",
            "frames are garbage",
            "scores are gone",
            "all models are gone",
            "the test set is gone",
            "a dead process elsewhere",
        )
    },
    "files for people are gone": Mutation(
        without("status.json", "provenance.json", "config.yaml", "run.log", "parsl", "inputs")
    ),
    "leftovers of every kind": Mutation(
        both(
            other_label,
            damaged_stages,
            holding("tasks/stopping", b""),
            holding("store/0.ready", b"garbage"),
            holding(".status.json.x.part", "{"),
            holding("notes.txt", "mine"),
        )
    ),
    "it was killed while it opened": Mutation(without("frames/initial.npz", "labels.db"), when="opening"),
}
"""The labels are those of the campaign that nobody disturbed."""

MORE = {
    "half of the lines are gone": Mutation(lines(lambda found: found[: len(found) // 2]), when="tested"),
    "it is extended": TAKEN["it is extended"],
    "its models are gone, and it is extended": Mutation(
        without("models"), when="finished", arguments=("-o", "stop.max_labels=11")
    ),
}
"""No label that was there is lost, none is made twice, and there are as many as asked for."""

IN_THE_SUITE = {
    "an audited row without its event",
    "half of the last line",
    "all models are gone",
    "leftovers of every kind",
    "it was killed while it opened",
    "it is extended",
}
"""Each case is a campaign that goes on for real: the others are left to `make mutation-test`."""

if "FFF_EXHAUSTIVE" not in os.environ:
    EQUAL = {name: case for name, case in EQUAL.items() if name in IN_THE_SUITE}
    MORE = {name: case for name, case in MORE.items() if name in IN_THE_SUITE}
CASES = EQUAL | MORE


def go_on(
    images: Images, folder: Path, mutation: Mutation
) -> tuple[subprocess.CompletedProcess[str], list[Any]]:
    """Resume a run directory to its end; return what the command said, and the labels there were before."""
    copy(images.left(mutation.when), folder)
    dead_lock(folder)
    mutation.change(folder)
    before = rows(folder) if (folder / "labels.db").exists() and mutation.when != "opening" else []
    arguments = (
        ["run", str(images.config), "--run-dir", str(folder)]
        if mutation.when == "opening"
        else ["resume", str(folder), *mutation.arguments]
    )
    command = [sys.executable, "-c", "from fff.cli.app import main; main()", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=folder.parent
    )
    return done, before


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """Return all that the database holds, but for ids and times."""
    found = []
    # Reading it where it is would undo what a killed writer left.
    with tempfile.TemporaryDirectory() as aside:
        for path in folder.glob("labels.db*"):
            shutil.copy(path, aside)
        with LabelStore(Path(aside, "labels.db")) as labels:
            for row in labels.rows():
                label = row.pop("label")
                del row["wall_s"]
                told = {key: x.tobytes() if hasattr(x, "tobytes") else x for key, x in row.items()}
                found.append((label.hash, label.energy_eV, label.forces_eV_per_A.tobytes(), told))
    return found


@pytest.fixture(scope="module")
def ended(images, tmp_path_factory) -> dict[str, tuple[subprocess.CompletedProcess[str], list[Any], Path]]:
    """Every case, resumed to its end."""
    folder = tmp_path_factory.mktemp("resumed")

    def go(name: str) -> tuple[subprocess.CompletedProcess[str], list[Any], Path]:
        path = folder / name.replace(" ", "-") / "run"
        path.parent.mkdir()
        return *go_on(images, path, CASES[name]), path

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(CASES, pool.map(go, CASES), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_to_its_end_and_says_what_was_repaired(case, ended):
    done, _, folder = ended[case]
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("Finished: ")
    assert done.stderr == ""
    for text in CASES[case].says:
        # A dry run says in its own words what would be done.
        if text != "missing or damaged; they are made again" and not text.startswith("train-r"):
            assert text in done.stdout
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["labels"]["in_flight"]) == ("finished", 0)
    assert not (folder / "lock").exists()


@pytest.mark.parametrize("case", EQUAL)
def test_the_labels_are_those_of_the_campaign_that_nobody_disturbed(case, ended, images):
    _, _, folder = ended[case]
    assert rows(folder) == rows(images.finished)


@pytest.mark.parametrize("case", EQUAL)
def test_the_models_are_those_of_the_campaign_that_nobody_disturbed(case, ended, images):
    _, _, folder = ended[case]
    for weights in (images.finished / "models").rglob("weights.safetensors"):
        if (again := folder / weights.relative_to(images.finished)).exists():
            assert sha256_file(again) == sha256_file(weights)
    assert sha256_file(folder / "models/committee.json") == sha256_file(
        images.finished / "models/committee.json"
    )


@pytest.mark.parametrize("case", CASES)
def test_no_label_is_lost_none_is_made_twice_and_there_are_as_many_as_asked_for(case, ended):
    _, before, folder = ended[case]
    after = rows(folder)
    assert after[: len(before)] == before
    hashes = [row[0] for row in after]
    assert len(set(hashes)) == len(hashes)
    asked = [text for text in CASES[case].arguments if "max_labels" in text]
    assert len(after) == (int(asked[0].partition("=")[2]) if asked else 10)
    told = {
        event.request
        for event in read_events(RunDirectory(folder).events)
        if event.kind == "calculate" and event.outcome == "done"
    }
    adopted = {
        label["request"]
        for event in read_events(RunDirectory(folder).events)
        for label in event.values.get("labels", ())
    }
    assert told | adopted == {row[3]["request"] for row in after}


def test_what_is_the_users_stays(ended):
    _, _, folder = ended["leftovers of every kind"]
    assert (folder / "notes.txt").read_text() == "mine"
