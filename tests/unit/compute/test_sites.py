from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fff.compute import sites
from fff.compute.sites import Pool, cores_found, make_site
from fff.compute.tasks import FUNCTIONS
from fff.config.site import LaptopSite, SlurmSite, WorkstationSite

CPU_KINDS = {"dynamics", "calculate", "reference-dynamics"}


@pytest.fixture(params=[1, 2, 8])
def cores(request, monkeypatch):
    monkeypatch.setattr(sites, "cores_found", lambda: request.param)
    return request.param


def test_the_cores_found_are_those_this_process_may_use():
    assert cores_found() == len(os.sched_getaffinity(0))


def test_a_laptop_is_one_pool_with_a_worker_per_core(cores):
    site = make_site(LaptopSite(kind="laptop"))
    assert site.pools == {"shared": cores}
    assert {site.pool_of(kind) for kind in FUNCTIONS} == {"shared"}
    assert site.specification["shared"].n_threads == 1


@pytest.mark.parametrize(("n_workers", "n_threads"), [(1, 8), (3, 2), (8, 1), (16, 1)])
def test_fewer_workers_get_more_threads_and_never_more_than_cores(monkeypatch, n_workers, n_threads):
    monkeypatch.setattr(sites, "cores_found", lambda: 8)
    site = make_site(LaptopSite(kind="laptop", n_workers=n_workers))
    assert site.specification["shared"] == Pool(n_workers, n_threads)


@pytest.mark.parametrize(
    ("keys", "pools", "devices"),
    [
        ({}, {"gpu": 1, "cpu": 7}, ()),
        ({"n_gpu_workers": 2}, {"gpu": 2, "cpu": 6}, ()),
        ({"n_gpus": 2}, {"gpu": 2, "cpu": 6}, ("0", "1")),
        ({"accelerators": ["3", "5"], "n_cpu_workers": 2}, {"gpu": 2, "cpu": 2}, ("3", "5")),
        ({"n_gpus": 8}, {"gpu": 8, "cpu": 1}, tuple("01234567")),
    ],
)
def test_a_workstation_pins_accelerators_and_gives_the_rest_to_cpu_workers(monkeypatch, keys, pools, devices):
    monkeypatch.setattr(sites, "cores_found", lambda: 8)
    site = make_site(WorkstationSite(kind="workstation", **keys))
    assert site.pools == pools
    assert site.specification["gpu"].accelerators == devices
    assert {site.pool_of(kind) for kind in FUNCTIONS.keys() - CPU_KINDS} == {"gpu"}
    assert {site.pool_of(kind) for kind in CPU_KINDS} == {"cpu"}


def test_all_workers_together_use_no_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr(sites, "cores_found", lambda: 12)
    site = make_site(WorkstationSite(kind="workstation", n_gpus=2, n_cpu_workers=4))
    assert sum(p.n_workers * p.n_threads for p in site.specification.values()) == 12


def test_an_unknown_kind_of_task_has_no_pool():
    with pytest.raises(KeyError):
        make_site(LaptopSite(kind="laptop")).pool_of("cooking")


def test_workers_may_share_an_accelerator(monkeypatch):
    monkeypatch.setattr(sites, "cores_found", lambda: 8)
    site = make_site(WorkstationSite(kind="workstation", n_gpus=2, workers_per_accelerator=2))
    assert site.specification["gpu"] == Pool(4, 1, ("0", "0", "1", "1"))


def test_a_cluster_has_a_pool_for_each_kind_of_node():
    nodes = {
        "gpu": {"tasks": ["training", "inference"], "accelerators_per_node": 2, "workers_per_accelerator": 2},
        "cpu": {"max_blocks": 3, "nodes_per_block": 2, "workers_per_node": 4, "cores_per_worker": 8},
    }
    site = make_site(SlurmSite.model_validate({"kind": "slurm", "nodes": nodes}))
    assert site.submits_jobs
    assert site.specification == {"gpu": Pool(4, 1, ("0", "0", "1", "1")), "cpu": Pool(24, 8)}
    assert {kind for kind in FUNCTIONS if site.pool_of(kind) == "cpu"} == CPU_KINDS


def test_the_parsl_config_keeps_the_rules(tmp_path):
    site = make_site(WorkstationSite(kind="workstation", accelerators=["3"], n_cpu_workers=2))
    config = site.parsl_config(tmp_path)
    assert config.run_dir == str(tmp_path / "parsl")
    assert (config.initialize_logging, config.retries, config.usage_tracking) == (False, 0, 0)
    gpu, cpu = config.executors
    assert (gpu.label, gpu.max_workers_per_node, gpu.available_accelerators) == ("gpu", 1, ["3"])
    assert (cpu.label, cpu.max_workers_per_node, cpu.available_accelerators) == ("cpu", 2, [])
    for executor in config.executors:
        assert executor.encrypted
        assert executor.all_addresses == {"127.0.0.1"}
        assert "export OMP_NUM_THREADS=" in executor.provider.worker_init
        # Nothing is looked up on PATH: the environment need not be activated.
        assert executor.interchange_launch_cmd[0] == sys.executable
        assert executor.launch_cmd.startswith(f"exec {sys.executable}")


def test_workers_without_an_accelerator_see_none(tmp_path):
    site = make_site(WorkstationSite(kind="workstation", accelerators=["3"]))
    gpu, cpu = site.parsl_config(tmp_path).executors
    assert "CUDA_VISIBLE_DEVICES" not in gpu.provider.worker_init
    assert "export CUDA_VISIBLE_DEVICES=''" in cpu.provider.worker_init


@pytest.mark.parametrize(("given", "taken"), [("/scratch/user", "/scratch/user"), ("/" + "a" * 90, "/tmp")])
def test_a_folder_for_temporary_files_that_is_too_long_for_a_socket_is_not_taken(tmp_path, given, taken):
    (executor,) = make_site(LaptopSite(kind="laptop")).parsl_config(tmp_path).executors
    script = f'{executor.provider.worker_init}\necho "$TMPDIR"'
    shell = subprocess.run(
        ["bash", "-eu", "-c", script], env={"TMPDIR": given}, check=True, capture_output=True, text=True
    )
    assert shell.stdout.strip() == taken
