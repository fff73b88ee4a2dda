"""Blocks on PBS: what is asked for, what becomes of jobs, and that set-up lines run on every node."""

from __future__ import annotations

import subprocess

import pytest
from parsl.jobs.states import JobState
from parsl.launchers import SimpleLauncher

from fff.compute.batch import _PbsBlocks, batch_scripts
from fff.config.site import PbsSite
from tests.support.pbs import Pbs


@pytest.fixture
def pbs(tmp_path, monkeypatch):
    made = Pbs(tmp_path / "pbs", ("n1", "n1", "n2", "n3"))
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def blocks(pbs, tmp_path):
    provider = _PbsBlocks(launcher=SimpleLauncher())
    provider.script_dir = str(tmp_path)
    return provider


def states(blocks, *jobs):
    return [status.state for status in blocks.status(list(jobs))]


def script(nodes, tmp_path, name="cpu", **keys):
    site = PbsSite.model_validate({"kind": "pbs", "nodes": nodes, **keys})
    return batch_scripts(site, tmp_path / "run")[name]


def test_a_script_asks_for_what_the_config_says(tmp_path):
    nodes = {
        "gpu": {"queue": "big", "accelerators_per_node": 2, "memory_per_node_GB": 32, "options": ["-m e"]}
    }
    made = script(nodes, tmp_path, "gpu").splitlines()
    for line in (
        "#PBS -N fff.gpu.block-0",
        "#PBS -l walltime=01:00:00",
        "#PBS -l select=1:ncpus=2:mem=32gb:ngpus=2",
        "#PBS -m e",
    ):
        assert line in made
    assert not any("place=" in line for line in made)


def test_several_nodes_are_several_hosts_unless_the_user_says_otherwise(tmp_path):
    assert "#PBS -l place=scatter\n" in script({"cpu": {"nodes_per_block": 2}}, tmp_path)
    own = script({"cpu": {"nodes_per_block": 2, "options": ["-l place=scatter:excl"]}}, tmp_path)
    assert [line for line in own.splitlines() if line.startswith("#PBS -l place")] == [
        "#PBS -l place=scatter:excl"
    ]


def test_calculations_across_nodes_may_have_a_rank_on_each_core(tmp_path):
    nodes = {
        "cpu": {
            "tasks": ["calculation"],
            "nodes_per_block": 2,
            "across_nodes": True,
            "cores_per_worker": 16,
        },
        "rest": {},
    }
    made = script(nodes, tmp_path, mpi_launch="mpiexec -n {ranks}")
    assert "#PBS -l select=2:ncpus=16:mpiprocs=16\n" in made


def test_of_the_environment_only_what_workers_need_goes_along(tmp_path, monkeypatch):
    for name in (
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "MODULEPATH",
        "LANG",
        "LC_ALL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MY_PASSWORD", "hunter2")
    made = script({"cpu": {"options": ["-v BASIS=a,MINE", "-m e"]}}, tmp_path)
    assert [line for line in made.splitlines() if line.startswith("#PBS -v")] == ["#PBS -v PATH,BASIS=a,MINE"]
    assert "#PBS -V" not in made
    assert "hunter2" not in made


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("Q", JobState.PENDING),
        ("W", JobState.PENDING),
        ("R", JobState.RUNNING),
        ("E", JobState.RUNNING),
        ("H", JobState.PENDING),
        ("S", JobState.PENDING),
        ("U", JobState.PENDING),
        ("?", JobState.PENDING),
    ],
)
def test_a_job_that_is_there_and_does_not_run_counts_as_waiting(state, expected, pbs, blocks):
    job = blocks.submit("true", 1)
    pbs.tell(job, state)
    assert states(blocks, job) == [expected]


def test_a_block_that_pbs_has_forgotten_has_ended_and_the_others_are_seen(pbs, blocks):
    gone, there = blocks.submit("true", 1), blocks.submit("true", 1)
    pbs.switch("no-history")
    pbs.tell(gone, "")
    pbs.tell(there, "R")
    assert states(blocks, gone, there) == [JobState.COMPLETED, JobState.RUNNING]


def test_the_exit_status_comes_from_the_history(pbs, blocks):
    jobs = [blocks.submit("true", 1) for _ in range(3)]
    for job, state in zip(jobs, ("F 0", "F 271", "F"), strict=True):
        pbs.tell(job, state)
    assert states(blocks, *jobs) == [JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED]
    assert [status.exit_code for status in blocks.status(jobs)] == [0, 271, None]


def test_blocks_that_have_ended_are_not_asked_for_again(pbs, blocks):
    first = blocks.submit("true", 1)
    pbs.tell(first, "F 0")
    states(blocks, first)
    second = blocks.submit("true", 1)
    (pbs.folder / "asked").unlink()
    assert states(blocks, first, second) == [JobState.COMPLETED, JobState.PENDING]
    assert (pbs.folder / "asked").read_text() == f"{second}\n"


def test_a_server_that_does_not_answer_ends_no_block(pbs, blocks, caplog):
    job = blocks.submit("true", 1)
    pbs.tell(job, "R")
    states(blocks, job)
    pbs.switch("down")
    assert states(blocks, job) == [JobState.RUNNING]
    assert "cannot connect to server" in caplog.text


def test_what_qsub_says_besides_is_no_job(pbs, blocks):
    (pbs.folder / "words").write_text("Project chem has 100 hours left.\n\n")
    assert blocks.submit("true", 1) == "1.head.cluster.local"
    assert list(blocks.resources) == ["1.head.cluster.local"]


def run(made):
    """Run a script with a line in place of the workers, by an mpiexec that stays on this machine."""
    lines = made.splitlines()
    (at,) = (i for i, line in enumerate(lines) if "process_worker_pool" in line)
    lines[at] = (
        'echo "$NODE $OMP_NUM_THREADS <$CUDA_VISIBLE_DEVICES> $SET $PWD ${PMIX_RANK:-no rank} $PATH" \\\n'
    )
    lines[at] += (
        '    >"$PBS_DOUBLE/ran-on-$NODE"; [ $NODE != n2 ] || exit 7; sleep 0.2; touch "$PBS_DOUBLE/$NODE"'
    )
    text = "\n".join(lines)
    return subprocess.run(["bash", "-c", text], check=False, capture_output=True, text=True, timeout=60)


def test_set_up_runs_on_each_host_once_and_one_that_fails_ends_no_other(pbs, tmp_path):
    nodes = {
        "cpu": {"nodes_per_block": 3, "cores_per_worker": 5, "set_up": ["export SET='it'\"'\"'s' # why"]}
    }
    ended = run(script(nodes, tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "ended with exit code 7" in ended.stderr
    for node in ("n1", "n2", "n3"):
        said = (pbs.folder / f"ran-on-{node}").read_text()
        assert said.startswith(f"{node} 5 <> it's / no rank ")
        assert str(pbs.folder / "bin") in said
    assert (pbs.folder / "n1").exists()
    assert (pbs.folder / "n3").exists()


def test_a_set_up_that_fails_is_named(pbs, tmp_path):
    nodes = {"cpu": {"nodes_per_block": 3, "set_up": ['[ "$NODE" != n3 ]']}}
    ended = run(script(nodes, tmp_path))
    assert 'fff: this line of set_up failed: [ "$NODE" != n3 ]' in ended.stderr
    assert not (pbs.folder / "ran-on-n3").exists()
    assert (pbs.folder / "n1").exists()


def test_the_file_of_hosts_is_gone_afterwards(pbs, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "job"))
    (tmp_path / "job").mkdir()
    run(script({"cpu": {"nodes_per_block": 3}}, tmp_path))
    assert list((tmp_path / "job").iterdir()) == []


def test_kinds_of_node_in_one_allocation_take_hosts_of_their_own(pbs, tmp_path):
    nodes = {
        "gpu": {"tasks": ["training", "inference"]},
        "far": {"tasks": ["calculation"], "across_nodes": True},
        "cpu": {},
    }
    keys = {"inside_allocation": True, "mpi_launch": "mpiexec -n {ranks}"}
    for name, host in (("gpu", "n1"), ("cpu", "n2")):
        run(script(nodes, tmp_path, name, **keys))
        assert [path.name for path in pbs.folder.glob("ran-on-*")] == [f"ran-on-{host}"]
        (pbs.folder / f"ran-on-{host}").unlink()
    assert "| tail -n 1 |" in script(nodes, tmp_path, "far", **keys)


def test_an_allocation_with_too_few_hosts_says_so(pbs, tmp_path):
    nodes = {"gpu": {"tasks": ["training", "inference"], "nodes_per_block": 3}, "cpu": {}}
    ended = run(script(nodes, tmp_path, "cpu", inside_allocation=True))
    assert ended.returncode == 1
    assert "the workers need the hosts 4 to 4 of the job, which has fewer" in ended.stderr
