import pytest

from fff.external.surroundings import environment_of_code

# As Slurm 22.05 set them in a step of one task, within a job of two nodes with two cores each.
STEP = """
SLURM_CPUS_PER_TASK=2 SLURM_DISTRIBUTION=cyclic SLURM_GTIDS=0 SLURM_LAUNCH_NODE_IPADDR=127.0.0.1
SLURM_LOCALID=0 SLURM_NNODES=1 SLURM_NODEID=0 SLURM_NPROCS=1 SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1
SLURM_PROCID=0 SLURM_SRUN_COMM_HOST=127.0.0.1 SLURM_SRUN_COMM_PORT=37351 SLURM_STEPID=2 SLURM_STEP_ID=2
SLURM_STEP_LAUNCHER_PORT=37351 SLURM_STEP_NODELIST=n1 SLURM_STEP_NUM_NODES=1 SLURM_STEP_NUM_TASKS=1
SLURM_STEP_TASKS_PER_NODE=1 SLURM_TASK_PID=14685 SLURM_MEM_PER_NODE=4000 SLURM_CPU_BIND=quiet,mask_cpu:0x1
SLURM_CPU_BIND_LIST=0x1 SLURM_EXPORT_ENV=NONE
"""
JOB = """
SLURM_CONF=/etc/slurm.conf SLURM_CLUSTER_NAME=c SLURM_JOB_ID=7 SLURM_JOBID=7 SLURM_NODELIST=n[1-2]
SLURM_JOB_NODELIST=n[1-2] SLURM_JOB_NUM_NODES=2 SLURM_JOB_CPUS_PER_NODE=2(x2) SLURMD_NODENAME=n1
SLURM_MPI_TYPE=pmix SLURM_OVERLAP=1
"""


def variables(text):
    return dict(word.split("=", 1) for word in text.split())


def test_what_describes_the_workers_own_step_does_not_reach_a_code():
    found = environment_of_code({**variables(STEP), **variables(JOB), "SLURM_TASKS_PER_NODE": "1"})
    assert found == {**variables(JOB), "SLURM_TASKS_PER_NODE": "2(x2)"}


@pytest.mark.parametrize(
    "name",
    ["PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_ess_base_vpid", "OMPI_MCA_orte_launch"],
)
def test_a_code_does_not_take_itself_for_a_rank_of_what_started_the_worker(name):
    assert environment_of_code({name: "0"}) == {}


@pytest.mark.parametrize(
    "name",
    ["PATH", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_MCA_btl", "PMIX_MCA_gds", "I_MPI_FABRICS", "OMP_NUM_THREADS"],
)
def test_what_the_user_has_set_reaches_it(name):
    assert environment_of_code({name: "x"}) == {name: "x"}
