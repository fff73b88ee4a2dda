"""The README does what it says: its configs are written, its commands run, in its order, in one folder.

Each command is a reader's, letter by letter. What would take hours is given a smaller budget, behind it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

TINY_MODEL = "-o model.n_features=8 -o model.n_layers=1 -o training.max_epochs=3"
TINY = (
    f"{TINY_MODEL} -o committee.size=2 -o start.n_labels=4 -o training.retrain_every=4 "
    "-o sampling.n_trajectories=2 -o sampling.n_parallel=2 -o sampling.n_steps=10 -o sampling.min_steps=5 "
    "-o sampling.max_steps=10 -o sampling.check_every=5 "
    "-o test.n_frames=2 -o test.interval_steps=1 -o test.equilibration_steps=1 -o stop.max_labels=6 "
    "-o site.n_workers=1"
)
# What is added to a command that begins like this; the first that fits counts. A campaign that goes on has
# the settings it began with, so that only the end of an extended one is told.
SMALLER = {
    "fff run my-molecule.yaml --run-dir": "--dry-run",  # the one before it says what a second run would
    "fff run slurm.yaml --dry-run": "",
    "fff run": TINY,
    "fff resume runs/my-crystal -o": "-o stop.max_labels=8",
    "fff train": TINY_MODEL,
    "fff md": "--steps 20 -o sampling.stop_deviation_eV_per_A=50 -o sampling.max_force_eV_per_A=1000",
}
# Not run here: `make` has its own use of the two, the others are put before PATH or wait for a reader.
ONLY_LOOKED_AT = ("make ", ". .venv/bin/activate", "fff watch ")
# What a command may end with besides 0: there is nothing left to stop; tiny models lose their ground.
OTHER_CODES = {"fff stop": {2}, "fff md": {1}}


def blocks(language):
    return [content for name, content in BLOCK.findall(README) if name == language]


def commands():
    lines = "".join(blocks("bash")).splitlines()
    return [" ".join(shlex.split(line, comments=True)) for line in lines if shlex.split(line, comments=True)]


def run(command, folder, environment):
    return subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def value_for(table, command, default):
    return next((value for start, value in table.items() if command.startswith(start)), default)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reader's folder: the presets, a molecule of the reader's own, and the configs of the README."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "configs", folder / "configs")
    write(folder / "my-molecule.xyz", molecule("H2"))  # small: the method is not
    for content in blocks("yaml"):
        name = re.match(r"# (\S+\.yaml)\n", content)
        assert name, f"this config has no name: {content}"
        (folder / name.group(1)).write_text(content)
    return folder


@pytest.fixture(scope="module")
def environment():
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": paths, "OMP_NUM_THREADS": "1"}


def test_every_make_target_that_is_shown_is_there():
    targets = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_file_that_is_linked_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_option_of_a_command_that_is_not_run_is_known(environment):
    for command in commands():
        if command.startswith("fff watch "):
            known = subprocess.run(
                ["fff", "watch", "--help"], env=environment, check=True, capture_output=True, text=True
            ).stdout
            assert all(option in known for option in command.split() if option.startswith("--"))


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_the_commands_do_what_they_say(folder, environment):
    for command in commands():
        if command.startswith(ONLY_LOOKED_AT):
            continue
        line = f"{command} {value_for(SMALLER, command, '')}"
        done = run(shlex.split(line), folder, environment)
        allowed = {0} | value_for(OTHER_CODES, command, set())
        assert done.returncode in allowed, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr

    # What the README says that they leave.
    for name in ("my-molecule", "my-crystal", "from-labels"):
        assert (folder / "runs" / name / "report.html").stat().st_size > 100_000
    assert (folder / "runs/my-crystal/figures/learning_curve.csv").is_file()
    assert all((folder / name).exists() for name in ("water.db", "copper/committee.json", "md.traj"))

    # And how the result is used.
    for content in blocks("python"):
        done = run([sys.executable, "-c", content], folder, environment)
        assert done.returncode == 0, f"{content}\n{done.stderr}"
