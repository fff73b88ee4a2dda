import os
import shlex

import pytest

from fff.base.cores import THREAD_VARIABLES
from fff.base.errors import ReferenceLostError, ReferenceSetupError, TimeLimitError
from fff.external import Command, Ended, Launch, parse_command, run

TWO_NODES = ("n1", "n1", "n2")


def launched(line, *words, hosts=("n1",), cores=1, **given):
    return Launch(line, hosts, cores).put_before(Command(words or ("code",), **given))


def test_a_launch_line_goes_before_the_command_with_its_places_filled_in():
    line = "srun --exact --nodes={nodes} --ntasks={ranks} --nodelist={hosts} --map={hosts_and_ranks}"
    command = launched(line, "code", "in", hosts=TWO_NODES, cores=4)
    words = ["srun", "--exact", "--nodes=2", "--ntasks=12", "--nodelist=n1,n2", "--map=n1:8,n2:4"]
    assert (list(command.launcher), command.arguments) == (words, ("code", "in"))
    assert command.name == "code by srun"


def test_without_a_launch_line_a_command_stays_as_it_is():
    command = Command(("code",))
    assert Launch(None, ("n1",)).put_before(command) is command


def test_a_rank_has_one_thread_unless_line_or_command_say_otherwise():
    assert launched("mpiexec").environment == dict.fromkeys(THREAD_VARIABLES, "1")
    by_line = launched("OMP_NUM_THREADS=2 mpiexec").environment
    assert (by_line["OMP_NUM_THREADS"], by_line["MKL_NUM_THREADS"]) == ("2", "1")
    by_command = launched("OMP_NUM_THREADS=2 mpiexec", environment={"OMP_NUM_THREADS": "3"})
    assert by_command.environment["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("line", "hosts", "said"),
    [
        (None, ("n1", "n1"), "has 2 slots, but site.mpi_launch is not set"),
        ("mpiexec -n 2", ("n1", "n1"), "has 2 slots, and nothing in it says so"),
        ("mpiexec -n {ranks}", ("n1", "n2"), "has 2 nodes, and nothing in it says so"),
        ("mpiexec -n {rank}", ("n1",), "is unknown"),
        ("mpiexec -n {ranks} | tee log", ("n1",), "needs a shell"),
        ("mpiexec -n {ranks} > log", ("n1",), "needs a shell"),
    ],
)
def test_a_line_that_cannot_use_the_slots_is_refused(line, hosts, said):
    with pytest.raises(ReferenceSetupError, match=said):
        launched(line, hosts=hosts)


def test_a_line_without_placeholders_serves_calculations_of_one_slot():
    assert launched("my-launcher --fast").launcher == ("my-launcher", "--fast")


@pytest.mark.parametrize("launcher", ["mpirun", "/usr/bin/mpiexec", "srun"])
def test_a_command_that_has_a_launcher_already_is_refused(launcher):
    with pytest.raises(ReferenceSetupError, match=r"begins with .*, and site\.mpi_launch is given too"):
        launched("mpiexec -n {ranks}", launcher, "-n", "2", "code")


def test_a_launch_travels_as_json():
    launch = Launch("mpiexec -n {ranks}", TWO_NODES, 3)
    assert Launch.from_json(launch.as_json()) == launch
    assert launch.slots == 3


def test_this_machine_is_called_as_slurm_calls_it(monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert Launch.on_this_machine(None, slots=2).hosts == ("n7", "n7")


def test_for_codes_that_ase_starts_the_line_becomes_text_for_a_shell(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    launch = Launch("mpiexec -n {ranks}", ("n1", "n1"))
    words = shlex.split(launch.as_shell_text("OMP_NUM_THREADS=2 'my code' -i in > out", "command"))
    assert words[0] == "env"
    assert words[words.index("SLURM_NTASKS") - 1] == "-u"
    assert "OMP_NUM_THREADS=2" in words
    assert words[-8:] == ["mpiexec", "-n", "2", "my code", "-i", "in", ">", "out"]


def test_the_launcher_is_started_with_the_code_behind_it(tmp_path):
    command = Launch("env -u HOME", ("n1",)).put_before(
        parse_command("sh -c 'echo $HOME $OMP_NUM_THREADS'", "command")
    )
    ended = run(command, tmp_path, environment=os.environ, time_limit_s=60)
    assert (ended.exit_code, (tmp_path / "stdout.txt").read_text()) == (0, "1\n")


def test_a_launcher_that_is_missing_is_named_with_its_key(tmp_path):
    command = Launch("no-such-launcher", ("n1",)).put_before(Command(("true",)))
    with pytest.raises(ReferenceSetupError, match="no-such-launcher was not found") as raised:
        run(command, tmp_path, environment=os.environ, time_limit_s=60)
    assert raised.value.context["key"] == "site.mpi_launch"


def test_a_time_limit_names_code_and_launcher(tmp_path):
    command = Launch("env", ("n1",)).put_before(Command(("sleep", "600")))
    with pytest.raises(TimeLimitError, match="sleep by env took longer"):
        run(command, tmp_path, environment=os.environ, time_limit_s=0.2)


@pytest.mark.parametrize(("code", "signal"), [(137, "SIGKILL"), (139, "SIGSEGV"), (-9, "SIGKILL")])
def test_a_rank_that_a_signal_killed_is_a_lost_calculation(code, signal):
    ended = Ended(Command(("code",), launcher=("mpiexec",)), code, 1.0)
    with pytest.raises(ReferenceLostError, match=f"code by mpiexec was killed by {signal}"):
        ended.check()


@pytest.mark.parametrize("command", [Command(("code",)), Command(("code",), launcher=("mpiexec",))])
def test_other_exit_codes_are_the_codes_own(command):
    Ended(command, 255, 1.0).check()
    # NWChem's, where its input is wrong.
    Ended(command, 143, 1.0).check()
    if not command.launcher:
        Ended(command, 137, 1.0).check()
