import pytest

from fff.base.errors import ReferenceSetupError
from fff.config.site import LaptopSite, SlurmSite
from fff.external import Launch
from fff.reference import launching
from fff.reference.launching import (
    check_code_can_use,
    check_method_can_use,
    is_launched,
    launch_outside_campaign,
    launch_unless_self_starting,
    parameters_with_launch,
)

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
    check_method_can_use(section, None)
    check_method_can_use(section, ONE)
    with pytest.raises(
        ReferenceSetupError, match="cannot start on several slots; a calculation has 2"
    ) as raised:
        check_method_can_use(section, TWO)
    assert section.get("calculator", section["kind"]) in raised.value.message


def test_a_code_that_mpi_starts_takes_several():
    check_method_can_use({"kind": "ase", "calculator": "nwchem"}, TWO)
    check_code_can_use("nwchem", TWO, is_run_here=True)
    assert launch_unless_self_starting("nwchem", TWO) is TWO


def test_a_code_that_starts_its_own_processes_is_not_launched_and_takes_one_slot():
    check_code_can_use("orca", ONE, is_run_here=True)
    assert launch_unless_self_starting("orca", ONE) is None
    with pytest.raises(ReferenceSetupError, match=r"reference\.calculator is orca") as raised:
        check_code_can_use("orca", TWO, is_run_here=True)
    assert "orcablocks" in raised.value.hint


def test_a_calculator_that_runs_no_code_takes_one_slot():
    with pytest.raises(ReferenceSetupError, match=r"reference\.calculator is psi4"):
        check_code_can_use("psi4", TWO, is_run_here=False)
    check_code_can_use("vasp", TWO, is_run_here=False)


@pytest.mark.parametrize(("name", "parameter"), [("vasp", "command"), ("castep", "castep_command")])
def test_a_code_that_ase_starts_gets_the_line_in_its_command(name, parameter):
    given = {parameter: "code", "xc": "PBE"}
    assert parameters_with_launch(name, given, None) == given
    found = parameters_with_launch(name, given, TWO)
    assert found["xc"] == "PBE"
    assert found[parameter].endswith(" mpiexec -n 2 code")
    with pytest.raises(ReferenceSetupError, match=rf"reference\.parameters\.{parameter}.* is not given"):
        parameters_with_launch(name, {}, TWO)


def test_outside_a_campaign_its_launch_line_is_used_with_its_slots_and_their_cores(monkeypatch):
    for name in ("SLURM_JOB_ID", "PBS_JOBID"):
        monkeypatch.delenv(name, raising=False)
    launch = launch_outside_campaign(LaptopSite(mpi_launch=LINE), slots=2, cores=3)
    assert launch == Launch.on_this_machine(LINE, 2, 3)


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "PBS_JOBID"])
def test_on_a_cluster_it_is_used_in_a_job_only_and_for_one_slot_with_the_cores_there(monkeypatch, variable):
    for name in ("SLURM_JOB_ID", "PBS_JOBID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launching, "cores_found", lambda: 4)
    site = SlurmSite(kind="slurm", nodes={"any": {}}, mpi_launch=LINE)
    assert launch_outside_campaign(site, slots=2) is None
    monkeypatch.setenv(variable, "7")
    assert launch_outside_campaign(site, slots=2, cores=3) == Launch.on_this_machine(LINE, 1, 3)
    assert launch_outside_campaign(site, slots=2, cores=16) == Launch.on_this_machine(LINE, 1, 4)


@pytest.mark.parametrize(
    ("section", "so"),
    [
        ({"kind": "xtb"}, False),
        ({"kind": "ase", "calculator": "emt"}, False),
        ({"kind": "ase", "calculator": "orca"}, False),
        ({"kind": "ase", "calculator": "nwchem"}, True),
        ({"kind": "ase", "calculator": "vasp"}, True),
    ],
)
def test_the_launch_line_starts_codes_that_do_not_start_their_own_processes(section, so):
    assert is_launched(section) is so
