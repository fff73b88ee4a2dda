import pytest

from fff.base.errors import ReferenceSetupError
from fff.config.site import LaptopSite, SlurmSite
from fff.external import Launch
from fff.reference.launching import check_kind, check_slots, launch_for, launch_here, launched

LINE = "mpiexec -n {ranks}"
ONE, TWO = Launch(LINE, ("n1",)), Launch(LINE, ("n1", "n1"))


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "xtb"},
        {"kind": "xtb-cli"},
        {"kind": "pyscf"},
        {"kind": "ase", "calculator": "emt"},
    ],
)
def test_a_library_takes_one_slot(section):
    check_kind(section, None)
    check_kind(section, ONE)
    with pytest.raises(
        ReferenceSetupError, match="cannot start on several slots; a calculation has 2"
    ) as raised:
        check_kind(section, TWO)
    assert section.get("calculator", section["kind"]) in raised.value.message


def test_a_code_that_mpi_starts_takes_several():
    check_kind({"kind": "ase", "calculator": "nwchem"}, TWO)
    check_slots("nwchem", TWO, is_run_here=True)
    assert launch_for("nwchem", TWO) is TWO


def test_a_code_that_starts_its_own_processes_is_not_launched_and_takes_one_slot():
    check_slots("orca", ONE, is_run_here=True)
    assert launch_for("orca", ONE) is None
    with pytest.raises(ReferenceSetupError, match=r"reference\.calculator is orca") as raised:
        check_slots("orca", TWO, is_run_here=True)
    assert "orcablocks" in raised.value.hint


def test_a_calculator_that_runs_no_code_takes_one_slot():
    with pytest.raises(ReferenceSetupError, match=r"reference\.calculator is psi4"):
        check_slots("psi4", TWO, is_run_here=False)
    check_slots("vasp", TWO, is_run_here=False)


@pytest.mark.parametrize(("name", "parameter"), [("vasp", "command"), ("castep", "castep_command")])
def test_a_code_that_ase_starts_gets_the_line_in_its_command(name, parameter):
    given = {parameter: "code", "xc": "PBE"}
    assert launched(name, given, None) == given
    found = launched(name, given, TWO)
    assert found["xc"] == "PBE"
    assert found[parameter].endswith(" mpiexec -n 2 code")
    with pytest.raises(ReferenceSetupError, match=rf"reference\.parameters\.{parameter}.* is not given"):
        launched(name, {}, TWO)


def test_right_here_a_campaigns_launch_line_is_used_with_its_slots(monkeypatch):
    for name in ("SLURM_JOB_ID", "PBS_JOBID"):
        monkeypatch.delenv(name, raising=False)
    assert launch_here(LaptopSite(mpi_launch=LINE), 2) == Launch.here(LINE, 2)


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "PBS_JOBID"])
def test_on_a_cluster_it_is_used_in_a_job_only_and_for_one_slot(monkeypatch, variable):
    for name in ("SLURM_JOB_ID", "PBS_JOBID"):
        monkeypatch.delenv(name, raising=False)
    site = SlurmSite(kind="slurm", nodes={"any": {}}, mpi_launch=LINE)
    assert launch_here(site, 2) is None
    monkeypatch.setenv(variable, "7")
    assert launch_here(site, 2) == Launch.here(LINE)
