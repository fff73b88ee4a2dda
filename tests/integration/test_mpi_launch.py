"""External codes behind a launch line: real MPI on this machine, and over two nodes of a real Slurm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase.build import molecule
from ruamel.yaml import YAML

from fff.base.errors import ReferenceSetupError, TimeLimitError
from fff.base.ids import settings_hash
from fff.external import Launch
from fff.reference import ReferenceProcess, make_reference
from tests.support.slurm import slurm_for_tests

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
# More ranks than cores, perhaps; each then lets the other have its turn.
LINE = "mpiexec --oversubscribe -n {ranks}"
needs_mpiexec = pytest.mark.skipif(shutil.which("mpiexec") is None, reason="not installed: mpiexec")
needs_nwchem = pytest.mark.skipif(shutil.which("nwchem") is None, reason="not installed: nwchem")


@pytest.fixture(autouse=True)
def as_root(monkeypatch):
    """Open MPI refuses root, as which containers run tests, unless told."""
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")


def nwchem(command="nwchem PREFIX.nwi > PREFIX.nwo", **section):
    preset = YAML(typ="safe").load(ROOT / "configs" / "water-nwchem.yaml")["reference"]
    return {**preset, "parameters": {**preset["parameters"], "command": command}, **section}


def hanging_code(folder: Path) -> str:
    """Return a command in NWChem's place of which every rank says where it is, and hangs."""
    code = folder / "hang.sh"
    code.write_text(
        f'#!/bin/sh\necho "${{SLURMD_NODENAME-here}} $$ $OMP_NUM_THREADS" >> {folder}/ranks\nexec sleep 600\n'
    )
    code.chmod(0o755)
    return f"{code} PREFIX.nwi > PREFIX.nwo"


def ranks_in(folder: Path) -> list[list[str]]:
    file = folder / "ranks"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def wait_until(is_so, what, within_s=200):
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, f"{what} did not come within {within_s} s"
        time.sleep(0.05)


@needs_mpiexec
@needs_nwchem
def test_nwchem_gives_the_same_label_on_one_slot_and_on_two(tmp_path):
    section = nwchem(keep_files=True)
    water = molecule("H2O")
    water.rattle(0.05, seed=3)
    with ReferenceProcess(section, work_dir=tmp_path) as reference:
        alone = reference.calculate(water, "alone")
        child = reference.pid
        one = reference.calculate(water, "one", Launch.on_this_machine(LINE))
        two = reference.calculate(water, "two", Launch.on_this_machine(LINE, 2))
        assert reference.pid == child
    for name, n_ranks in (("alone", 1), ("one", 1), ("two", 2)):
        (output,) = tmp_path.glob(f"{name}-1/nwchem.nwo")
        told = [line.split()[-1] for line in output.read_text().splitlines() if "nproc " in line]
        assert told == [str(n_ranks)]
    # NWChem's threshold of the energy is 1e-6 Hartree.
    assert one.energy_eV == pytest.approx(alone.energy_eV, abs=3e-5)
    assert two.energy_eV == pytest.approx(alone.energy_eV, abs=3e-5)
    np.testing.assert_allclose(two.forces_eV_per_A, alone.forces_eV_per_A, atol=1e-3)


@needs_mpiexec
def test_no_rank_outlives_the_time_limit(tmp_path):
    section = nwchem(hanging_code(tmp_path))
    with (
        ReferenceProcess(section, time_limit_s=6.0, work_dir=tmp_path / "tasks") as reference,
        pytest.raises(TimeLimitError, match="by mpiexec took longer than its time limit"),
    ):
        reference.calculate(molecule("H2O"), "hangs", Launch.on_this_machine(LINE, 2))
    found = ranks_in(tmp_path)
    assert len(found) == 2
    assert {n_threads for _, _, n_threads in found} == {"1"}
    assert not any(psutil.pid_exists(int(pid)) for _, pid, _ in found)


@needs_mpiexec
def test_a_worker_that_mpiexec_has_started_can_start_ranks_itself(tmp_path):
    program = (
        "import os; from pathlib import Path; from fff.external import Launch, Command, run;"
        f"run(Launch.on_this_machine('{LINE}', 2).put_before(Command(('sh', '-c', 'echo rank'))),"
        f"Path('{tmp_path}'), environment=os.environ, time_limit_s=200).check()"
    )
    command = ["mpiexec", "--oversubscribe", "-n", "1", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "stdout.txt").read_text().split() == ["rank", "rank"]


def test_a_library_on_several_slots_is_refused_and_named():
    with (
        ReferenceProcess({"kind": "xtb"}) as reference,
        pytest.raises(ReferenceSetupError, match=r"reference\.kind is xtb.*a calculation has 2"),
    ):
        reference.calculate(molecule("H2O"), "x", Launch.on_this_machine(LINE, 2))


def test_a_method_is_the_same_wherever_it_runs():
    bare, launched = (
        make_reference(nwchem(command)) for command in ("nwchem PREFIX.nwi", "mpirun -np 2 nwchem PREFIX.nwi")
    )
    assert settings_hash(bare.settings) == settings_hash(launched.settings)


# --- over two nodes of Slurm -------------------------------------------------------------------------------

WORKER = """
import sys
from ase.build import molecule
from pathlib import Path
from fff.base.errors import TimeLimitError
from fff.compute.hosts import leased
from fff.reference import ReferenceProcess
import json
section, line, limit_s, folder = json.loads(sys.argv[1])
with leased(2, line) as launch, ReferenceProcess(section, limit_s, Path(folder, "tasks")) as reference:
    try:
        reference.calculate(molecule("H2O"), "hangs", launch)
    except TimeLimitError as error:
        Path(folder, "said").write_text(error.message)
"""


@pytest.fixture
def slurm(monkeypatch):
    with slurm_for_tests(monkeypatch) as slurm:
        yield slurm


def alive(folder: Path) -> list[str]:
    return [pid for _, pid, _ in ranks_in(folder) if psutil.pid_exists(int(pid))]


@pytest.mark.parametrize("end", ["time limit", "killed worker"])
def test_no_rank_on_another_node_outlives_what_started_it(slurm, tmp_path, end):
    line = "srun --exact --nodes={nodes} --ntasks={ranks} --nodelist={hosts}"
    limit_s = 6.0 if end == "time limit" else 500.0
    told = json.dumps([nwchem(hanging_code(tmp_path)), line, limit_s, str(tmp_path)])
    (tmp_path / "worker.py").write_text(WORKER)
    script = tmp_path / "job.sh"
    # The job goes on when the worker has ended, so that it is not Slurm that ends the ranks.
    script.write_text(
        f"""#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --output={tmp_path}/job.out
export FFF_SLOT_HOSTS=$(scontrol show hostnames | paste -sd,) FFF_SLOT_LEASES=$(mktemp -d -p {tmp_path})
cd {ROOT}
srun --overlap --nodes=1 --ntasks=1 bash -c 'echo $$ > {tmp_path}/pid; exec "$@"' worker \\
    {sys.executable} {tmp_path}/worker.py '{told}'
sleep 600
"""
    )
    slurm.submit(script)
    wait_until(lambda: len(ranks_in(tmp_path)) == 2, "a rank on each node")
    if end == "killed worker":
        assert len(alive(tmp_path)) == 2
        os.kill(int((tmp_path / "pid").read_text()), 9)
    wait_until(lambda: not alive(tmp_path), "the end of all ranks")
    assert len({node for node, _, _ in ranks_in(tmp_path)}) == 2
    assert "RUNNING" in slurm.jobs().values()
    if end == "time limit":
        wait_until((tmp_path / "said").exists, "what the worker says")
        assert "by srun took longer than its time limit, 6 s" in (tmp_path / "said").read_text()
