"""Batch scripts: what they ask for, what they start, and that no job is forgotten."""

from __future__ import annotations

import os
import subprocess

import pytest

from fff.base.errors import ConfigError, RunDirectoryError
from fff.compute.batch import batch_scripts, check_address, check_allocation, check_path
from fff.config.site import PbsSite, SlurmSite

SLURM = {
    "gpu": {
        "tasks": ["training", "inference"],
        "partition": "a100",
        "account": "chem",
        "accelerators_per_node": 2,
        "workers_per_accelerator": 2,
        "cores_per_worker": 3,
        "walltime": "12h",
        "options": ["--mail-type=END"],
        "set_up": ["module load cuda"],
    },
    "cpu": {"nodes_per_block": 2, "workers_per_node": 4, "cores_per_worker": 8, "memory_per_node_GB": 64},
}


def scripts(kind, nodes, tmp_path, **keys):
    section = {"slurm": SlurmSite, "pbs": PbsSite}[kind]
    return batch_scripts(section.model_validate({"kind": kind, "nodes": nodes, **keys}), tmp_path / "run")


def test_a_slurm_script_asks_for_what_the_config_says(tmp_path):
    made = scripts("slurm", SLURM, tmp_path)
    for line in (
        "#SBATCH --job-name=fff.gpu.block-0",
        "#SBATCH --partition=a100",
        "#SBATCH --account=chem",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --cpus-per-task=12",
        "#SBATCH --time=720",
        "#SBATCH --mail-type=END",
        f"#SBATCH --output={tmp_path}/run/parsl/000/submit_scripts/fff.gpu.block-0.stdout",
    ):
        assert line in made["gpu"].splitlines()
    assert "--exclusive" not in made["gpu"]
    assert "CUDA_VISIBLE_DEVICES=''" not in made["gpu"]
    assert "#SBATCH --mem=64g" in made["cpu"]
    assert "export CUDA_VISIBLE_DEVICES=''" in made["cpu"]
    assert "export OMP_NUM_THREADS=8" in made["cpu"]
    # On both nodes, one pool of four workers on each.
    assert "exec srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=32" in made["cpu"]
    assert "--max_workers_per_node=4" in made["cpu"]
    assert "--drain_period=3240" in made["cpu"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("kind", "nodes"), [("slurm", SLURM), ("pbs", {"cpu": {"nodes_per_block": 3}})])
def test_a_shell_reads_the_scripts(kind, nodes, tmp_path):
    for text in scripts(kind, nodes, tmp_path).values():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("given", "devices"), [(None, "0 0 1 1"), ("5,7", "5 5 7 7"), ("GPU-a", "GPU-a GPU-a")]
)
def test_workers_take_the_devices_that_the_batch_system_gave(given, devices, tmp_path):
    (line,) = (
        line for line in scripts("slurm", SLURM, tmp_path)["gpu"].splitlines() if "worker_pool" in line
    )
    words = line.partition("--available-accelerators")[2]
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    shell = subprocess.run(
        ["bash", "-c", f"echo {words}"], env=environment, check=True, capture_output=True, text=True
    )
    assert shell.stdout.split() == devices.split()


def test_a_line_of_set_up_that_fails_ends_the_job_and_is_named(tmp_path):
    nodes = {"cpu": {"set_up": ["true", "false 'it' # why"]}}
    text = scripts("slurm", nodes, tmp_path)["cpu"]
    head = text.partition("exec ")[0]
    ended = subprocess.run(["bash", "-c", head], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "fff: this line of set_up failed: false 'it' # why" in ended.stderr


def across(kind, folder):
    nodes = {"nodes_per_block": 3, "across_nodes": True, "tasks": ["calculation"], "cores_per_worker": 4}
    return scripts(kind, {"cpu": nodes, "rest": {}}, folder, mpi_launch="srun --ntasks={ranks}")["cpu"]


def test_calculations_across_nodes_get_a_slot_for_each_node(tmp_path):
    text = across("slurm", tmp_path)
    assert "exec srun" not in text
    assert "--max_workers_per_node=3" in text
    assert "export FFF_SLOT_CORES=4" in text
    assert "FFF_SLOT_" not in scripts("slurm", {"cpu": {}}, tmp_path)["cpu"].replace("FFF_SLOT_CORES", "")


@pytest.mark.parametrize(
    ("named", "hosts"), [("n10\nn10\nn9\nn8\n", "n10,n9,n8"), ("n1\nn2\nn2\n", None), ("", None)]
)
def test_a_block_ends_at_once_unless_its_batch_system_names_its_hosts(tmp_path, named, hosts):
    (tmp_path / "nodes").write_text(named)
    head = across("pbs", tmp_path).partition("exec ")[0]
    ended = subprocess.run(
        ["bash", "-c", f'{head}\necho "$FFF_SLOT_HOSTS"'],
        env={"PATH": os.environ["PATH"], "PBS_NODEFILE": str(tmp_path / "nodes"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if hosts:
        assert (ended.returncode, ended.stdout.strip()) == (0, hosts)
    else:
        assert ended.returncode == 1
        assert "fff: calculations need 3 hosts, but the batch system names" in ended.stderr
    assert len(list(tmp_path.glob("fff-slots-*"))) == bool(hosts)


def test_inside_an_allocation_each_kind_of_node_is_a_step_of_the_job(tmp_path):
    nodes = {"gpu": {"tasks": ["training", "inference"], "accelerators_per_node": 1}, "cpu": {}}
    made = scripts("slurm", nodes, tmp_path, inside_allocation=True)
    assert all("exec srun --nodes=1 " in text and " --exact " in text for text in made.values())
    assert all("--drain_period=None" in text and "#SBATCH" not in text for text in made.values())
    alone = scripts("slurm", {"cpu": {}}, tmp_path, inside_allocation=True)["cpu"]
    assert "srun" not in alone


def test_a_site_inside_an_allocation_needs_one(monkeypatch):
    site = SlurmSite.model_validate({"kind": "slurm", "nodes": {"cpu": {}}, "inside_allocation": True})
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match="SLURM_JOB_ID is not set"):
        check_allocation(site)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    check_allocation(site)


def test_an_address_that_this_machine_has_not_is_refused_with_those_it_has():
    site = SlurmSite.model_validate({"kind": "slurm", "nodes": {"cpu": {}}, "address": "192.0.2.99"})
    with pytest.raises(ConfigError, match="which is no address of this machine") as caught:
        check_address(site)
    assert "127.0.0.1" in caught.value.hint
    check_address(site.model_copy(update={"address": "127.0.0.1"}))


def test_a_walltime_is_asked_for_in_whole_minutes_and_never_less(tmp_path):
    assert "#SBATCH --time=2\n" in scripts("slurm", {"cpu": {"walltime": "90s"}}, tmp_path)["cpu"]


def test_no_address_is_asked_of_the_internet(tmp_path, monkeypatch):
    monkeypatch.setattr("parsl.executors.high_throughput.executor.get_all_addresses", None)
    made = scripts("slurm", {"cpu": {}}, tmp_path)["cpu"]
    (given,) = (words for words in made.splitlines() if " -a " in words)
    assert "127.0.0.1" in given.partition(" -a ")[2].split()[0].split(",")


@pytest.mark.parametrize("name", ["run-%j", "host:run", "a b", "a'b", "$HOME"])
def test_a_path_that_a_shell_or_a_batch_system_reads_otherwise_is_refused(name, tmp_path):
    with pytest.raises(RunDirectoryError, match="batch scripts cannot hold"):
        check_path(tmp_path / name)
    check_path(tmp_path / "run-1_a.b,c=d+e@f")
