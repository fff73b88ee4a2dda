"""`fff resume`, `fff stop`, and `fff run` on a folder that holds a campaign."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fff.base.allocation import Allocation
from fff.base.errors import CampaignError
from fff.campaigns.running import Campaign, Outcome
from fff.cli.app import app
from fff.config import config_to_yaml
from fff.data.run_lock import DEAD_AFTER_S, RunLock
from tests.support.left_campaigns import LeftCampaign


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> LeftCampaign:
    left = LeftCampaign(tmp_path_factory.mktemp("played") / "run")
    left.play(lambda game: game.state.n_own_labels == 6)
    left.run.config.write_text(config_to_yaml(left.game.config))
    return left


@pytest.fixture
def left(tmp_path, played) -> LeftCampaign:
    return played.copied(tmp_path / "run")


@pytest.fixture
def campaign(monkeypatch):
    """Stand in for what a campaign does once it is opened, and remember which ones did it."""
    calls = []
    answers = [Outcome("stopped", "Stopped: so it was. Resume with: fff resume run")]
    carry_out = Campaign.carry_out

    def stand_in(self, *, say, walltime_end):
        if self.resumption.is_over:
            return carry_out(self, say=say, walltime_end=walltime_end)
        calls.append((self, walltime_end))
        if isinstance(answers[-1], BaseException):
            raise answers[-1]
        return answers[-1]

    monkeypatch.setattr(Campaign, "carry_out", stand_in)
    return calls, answers


@pytest.fixture
def denied(tmp_path):
    """A folder that this process may not look into."""
    folder = tmp_path / "closed"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "events.jsonl").write_text("{}\n")
    (folder / "run" / "lock").write_text("{}\n")
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder / "run"
    os.seteuid(user)
    folder.chmod(0o755)


def fff(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def refused(*arguments) -> str:
    result = fff(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.startswith("Error: ")
    assert "\nHint: " in result.stderr
    return result.stderr


# --- where there is none --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["resume", "stop"])
def test_without_a_folder_there_is_no_campaign(command):
    assert "There is no campaign in" in refused(command, "missing")
    assert not Path("missing").exists()


@pytest.mark.parametrize("command", ["resume", "stop"])
@pytest.mark.parametrize("place", ["there", "there/below"])
def test_in_a_file_there_is_no_campaign(command, place):
    Path("there").write_text("a file")
    assert "There is no campaign in" in refused(command, place)
    assert Path("there").read_text() == "a file"


@pytest.mark.parametrize("command", ["resume", "stop"])
def test_in_a_folder_of_something_else_there_is_no_campaign(command):
    Path("there").mkdir()
    Path("there/thesis.tex").write_text("years of work")
    assert "There is no campaign in" in refused(command, "there")
    assert contents(Path("there")) == {"there/thesis.tex": b"years of work"}


@pytest.mark.parametrize("command", ["resume", "stop"])
def test_a_folder_that_may_not_be_read_is_refused(command, denied):
    assert "Permission denied" in refused(command, denied)


def test_an_unexpected_error_in_a_folder_that_may_not_be_read_leaves_its_traceback_elsewhere(
    denied, monkeypatch
):
    def break_down(self):
        raise ZeroDivisionError

    monkeypatch.setattr("fff.data.run_directory.RunDirectory.check", break_down)
    result = fff("resume", denied)
    assert result.exit_code == 1, result.output
    assert "ZeroDivisionError" in result.stderr
    log = Path(result.stderr.partition("The traceback is in ")[2].partition(";")[0])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_without_an_argument_the_usage_is_shown():
    for command in ("resume", "stop"):
        result = fff(command)
        assert result.exit_code == 2
        assert "RUN_DIR" in result.stderr
        assert "Hint" not in result.stderr


@pytest.mark.parametrize("command", ["resume", "status", "watch", "stop", "report"])
def test_without_an_argument_the_campaigns_that_are_there_are_named(command):
    for age, name in enumerate("gfedcba"):
        folder = Path("runs") / name
        folder.mkdir(parents=True)
        (folder / "events.jsonl").touch()
        os.utime(folder / "events.jsonl", (1000 - age, 1000 - age))
    Path("runs/notes").mkdir()
    result = fff(command)
    assert result.exit_code == 2
    assert "Missing argument 'RUN_DIR'." in result.stderr
    assert result.stderr.endswith("Hint: Campaigns here: runs/g, runs/f, runs/e, runs/d, runs/c.\n")


# --- to go on -------------------------------------------------------------------------------------------


def test_a_campaign_goes_on_where_it_was_left(left, campaign):
    result = fff("resume", "run")
    assert result.exit_code == 3, result.output
    assert "goes on: 6 of 20 labels, the committee of round 0, 2 tasks in flight" in result.stdout
    assert "fff stop run" in result.stdout
    assert result.stdout.splitlines()[-1] == "Stopped: so it was. Resume with: fff resume run"
    (((opened, walltime_end),), _) = campaign
    assert walltime_end is None
    assert opened.resumption.policy.state == left.game.state
    assert not left.run.lock.exists()


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 1), ("stopped", 3)])
def test_the_exit_code_says_how_a_sitting_ended(left, campaign, state, code):
    campaign[1].append(Outcome(state, f"{state.capitalize()}: so it was."))
    assert fff("resume", "run").exit_code == code


@pytest.mark.parametrize(("error", "code"), [(CampaignError("No."), 1), (KeyboardInterrupt(), 3)])
def test_an_error_gives_the_lock_back(left, campaign, error, code):
    campaign[1].append(error)
    assert fff("resume", "run").exit_code == code
    assert not left.run.lock.exists()


def test_the_same_command_again_goes_on(left, campaign):
    result = fff("run", "run/config.yaml", "--run-dir", "run")
    assert result.exit_code == 3, result.output
    assert campaign[0][0][0].resumption.policy.state == left.game.state


def test_a_dry_run_says_where_it_is_and_writes_nothing(left, campaign):
    left.run.frames.path(left.game.state.labels[-1].frame.partition(":")[0])
    with left.run.events.open("ab") as file:
        file.write(b"half a line")
    before = contents(left.run.path)
    for arguments in (["resume", "run"], ["run", "run/config.yaml", "--run-dir", "run"]):
        result = fff(*arguments, "--dry-run")
        assert result.exit_code == 0, result.output
        assert "goes on: 6 of 20 labels" in result.stdout
        assert "The last line of events.jsonl was half-written" in result.stdout
        assert "Dry run: everything was checked, nothing was written." in result.stdout
    assert contents(left.run.path) == before
    assert campaign[0] == []


def test_a_walltime_counts_from_the_beginning_of_the_command(left, campaign):
    began = time.monotonic()
    assert fff("resume", "run", "--walltime", "1:30:00").exit_code == 3
    assert fff("run", "run/config.yaml", "--run-dir", "run", "--walltime", "90m").exit_code == 3
    for _, walltime_end in campaign[0]:
        assert began + 5400 < walltime_end < began + 5400 + 60


def test_in_a_batch_job_the_earlier_of_walltime_and_the_end_of_the_job_counts(left, campaign, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    began = time.monotonic()
    result = fff("resume", "run")
    assert "Job    Slurm job 12 ends in 60 min; the campaign stops in order before" in result.stdout
    fff("resume", "run", "--walltime", "2h")
    fff("resume", "run", "--walltime", "30m")
    # Some seconds are left to the batch script.
    for (_, walltime_end), expected in zip(campaign[0], (3570, 3570, 1800), strict=True):
        assert began + expected - 2 < walltime_end < began + expected + 60


def test_a_batch_system_that_does_not_say_when_the_job_ends_is_named(left, campaign, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = fff("resume", "run")
    assert "when it ends is not known (squeue cannot be started" in result.stdout
    assert "give --walltime" in result.stdout
    assert campaign[0][0][1] is None


@pytest.mark.parametrize("text", ["soon", "10s"])
def test_a_walltime_that_is_none_is_refused_before_anything_is_done(left, campaign, text):
    before = contents(left.run.path)
    assert f"`--walltime` is '{text}'" in refused("resume", "run", "--walltime", text)
    assert f"`--walltime` is '{text}'" in refused(
        "run", "run/config.yaml", "--run-dir", "new", "--walltime", text
    )
    assert contents(left.run.path) == before
    assert not Path("new").exists()
    assert campaign[0] == []


# --- with other values ----------------------------------------------------------------------------------


def test_a_changed_config_is_refused_with_the_difference(left, campaign):
    before = contents(left.run.path)
    error = refused("resume", "run", "-o", "audit.fraction=0.25", "-o", "stop.max_labels=40")
    assert "audit.fraction: 0.5 -> 0.25" in error
    assert "stop.max_labels: 20 -> 40" in error
    assert "--accept-changes" in error
    error = refused("run", "run/config.yaml", "--run-dir", "run", "--max-labels", 40)
    assert "stop.max_labels: 20 -> 40" in error
    assert contents(left.run.path) == before
    assert campaign[0] == []


def test_changes_that_can_be_taken_are_taken_when_they_are_accepted(left, campaign):
    result = fff("resume", "run", "--accept-changes", "-o", "stop.max_labels=40")
    assert result.exit_code == 3, result.output
    assert "6 of 40 labels" in result.stdout
    ((opened, _),) = campaign[0]
    assert opened.resumption.changed["config"]["stop"]["max_labels"] == 40


def test_changes_that_cannot_be_taken_are_refused_by_name(left, campaign):
    before = contents(left.run.path)
    error = refused("resume", "run", "--accept-changes", "-o", "seed=5", "-o", "reference.method=GFN1-xTB")
    assert "`seed` stays, since everything random follows from it" in error
    assert "`reference.method` stays, since labels of two methods do not mix" in error
    assert contents(left.run.path) == before


def test_a_value_out_of_bounds_is_refused_as_everywhere(left):
    assert "`stop.max_labels` is 0" in refused("resume", "run", "-o", "stop.max_labels=0")


def test_a_finished_campaign_says_so_and_how_to_go_on(left, campaign):
    left.play()
    (left.run.path / "summary.txt").write_text("the table of the last sitting\n")
    before = contents(left.run.path)
    result = fff("resume", "run")
    assert result.exit_code == 0, result.output
    assert "the table of the last sitting" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("Finished: 20 labels were made")
    assert "-o stop.max_labels=N" in last
    assert contents(left.run.path) == before
    assert campaign[0] == []
    # More labels need no further words.
    assert fff("resume", "run", "-o", "stop.max_labels=24").exit_code == 3
    assert fff("run", "run/config.yaml", "--run-dir", "run", "--max-labels", 24).exit_code == 3
    assert len(campaign[0]) == 2


# --- what is in the way ---------------------------------------------------------------------------------


def test_a_campaign_that_somebody_works_on_is_refused(left, campaign):
    lock = RunLock(left.run.lock)
    lock.take()
    error = refused("resume", "run")
    assert f"process {os.getpid()} on" in error
    assert "fff stop" in error
    lock.release()
    assert fff("resume", "run").exit_code == 3


def test_a_damaged_log_is_refused_with_the_line_and_the_way_out(left, campaign):
    lines = left.run.events.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:-20] + b"\n"
    left.run.events.write_bytes(b"".join(lines))
    before = contents(left.run.path)
    for arguments in (
        ["resume", "run"],
        ["resume", "run", "--dry-run"],
        ["run", "run/config.yaml", "--run-dir", "run"],
    ):
        error = refused(*arguments)
        assert "damaged at line 5" in error
        assert "head -n 4" in error
    assert contents(left.run.path) == before


def test_a_campaign_of_another_policy_is_refused(left):
    first, rest = left.run.events.read_text().split("\n", 1)
    content = json.loads(first)
    content["values"]["policy_version"] = 1
    left.run.events.write_text(json.dumps(content) + "\n" + rest)
    assert "was steered by policy 1" in refused("resume", "run")


def test_a_database_that_lacks_labels_is_refused(left):
    left.run.labels.unlink()
    assert "labels.db" in refused("resume", "run")
    assert not left.run.labels.exists()


# --- to stop --------------------------------------------------------------------------------------------


def test_where_no_process_works_there_is_nothing_to_stop(left):
    result = fff("stop", "run")
    assert result.exit_code == 0
    assert "Nothing to stop: no process works on" in result.stdout
    assert not left.run.stop_file.exists()


def test_between_two_jobs_the_next_one_is_stopped_and_a_hand_is_not(left, monkeypatch):
    status = {"schema_version": 1, "state": "stopped", "stopped_by": "walltime"}
    left.run.status.write_text(json.dumps(status))
    assert "A job that goes on with it will stop at once" in fff("stop", "run").stdout
    assert left.run.stop_file.exists()
    # The campaign cannot be carried on here: what counts is what becomes of the request to stop.
    monkeypatch.setattr(Campaign, "carry_out", lambda self, **_: Outcome("stopped", "Stopped: here"))
    monkeypatch.setattr("fff.base.allocation.find_allocation", lambda: Allocation("Slurm", "7"))
    fff("resume", "run")
    assert left.run.stop_file.exists()
    monkeypatch.setattr("fff.base.allocation.find_allocation", lambda: None)
    fff("resume", "run")
    assert not left.run.stop_file.exists()


def test_a_dead_process_is_nothing_to_stop(left):
    lock = RunLock(left.run.lock)
    lock.take()
    content = json.loads(left.run.lock.read_text())
    # The same id, begun at another time.
    content["process"] = content["process"].rpartition(" ")[0] + " 1"
    left.run.lock.write_text(json.dumps(content))
    assert "Nothing to stop" in fff("stop", "run").stdout
    assert not left.run.stop_file.exists()


@pytest.mark.parametrize(("silent_s", "stops"), [(0.0, True), (DEAD_AFTER_S + 60, False)])
def test_a_process_on_another_machine_is_asked_while_it_shows_that_it_lives(left, silent_s, stops):
    holder = {"host": "far-away", "pid": 1, "process": "other-boot pid:[1] 1", "token": "x"}
    left.run.lock.write_text(json.dumps(holder))
    then = time.time() - silent_s
    os.utime(left.run.lock, (then, then))
    assert fff("stop", "run").exit_code == 0
    assert left.run.stop_file.exists() == stops


def test_a_running_campaign_is_asked_to_stop(left):
    lock = RunLock(left.run.lock)
    lock.take()
    for _ in range(2):
        result = fff("stop", "run")
        assert result.exit_code == 0
        assert f"Asked to stop. It takes some seconds; then `fff resume {left.run.path}` goes on." in (
            result.stdout.replace("\n", " ")
        )
    assert left.run.stop_file.is_file()
    lock.release()


def test_a_campaign_that_cannot_be_asked_is_an_error(left):
    lock = RunLock(left.run.lock)
    lock.take()
    left.run.stop_file.mkdir()
    (left.run.stop_file / "x").touch()
    result = fff("stop", "run")
    assert result.exit_code in (0, 2)
    assert "Traceback" not in result.output
    left.run.stop_file.rename(left.run.path / "aside")
    left.run.stop_file.symlink_to("missing/STOP")
    assert "STOP" in refused("stop", "run")
    lock.release()
