"""What may change in the config of a campaign that has begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fff.base.errors import ConfigError
from fff.base.ids import sha256_file
from fff.campaigns.changes import Change, accept, find_changes, settle
from fff.config import load_config
from fff.config.keys import leaves

LEAST = ["structures=[molecule:H2O]", "reference={kind: xtb}"]
RUN = Path("runs/water")

# What concerns only what is still to come, what is settled, and why; every key of the config is one of them.
MAY_CHANGE = {
    "stop",
    "site",
    "redis",
    "committee",
    "training",
    "sampling",
    "audit",
    "selection",
    "calculation",
    "queue",
}
SETTLED = {
    "kind": "one run directory holds one kind",
    "seed": "everything random follows from it",
    "structures": "its trajectories have begun there",
    "labels": "its first committee was trained on them",
    "model": "its models are of that kind",
    "start": "its first labels were chosen by it",
    "reference": "labels of two methods do not mix",
    "sampling.thermostat": "begun under it",
    "sampling.n_trajectories": "its trajectories have begun",
    "selection.deviation": "its scores are of that kind",
    "test": "errors on two test sets cannot be compared",
}
NEITHER = {"schema_version", "name", "run_dir"}
KEYS = sorted({key for key, _ in leaves()})


def config(*overrides: str):
    return load_config(None, [*LEAST, *overrides]).config


def changes(*overrides: str, before: tuple[str, ...] = (), inputs=()) -> list[Change]:
    return find_changes(config(*before), config(*before, *overrides), inputs)


def refused(found: list[Change], *, accepted: bool = True, finished: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        accept(found, RUN, accepted=accepted, finished=finished)
    return caught.value


@pytest.mark.parametrize("key", KEYS)
def test_of_every_key_it_is_settled_whether_it_may_change_and_why_not(key):
    if key in NEITHER:
        return
    refusal = Change(key, 1, 2).refusal
    settled = next((why for prefix, why in SETTLED.items() if f"{key}.".startswith(f"{prefix}.")), None)
    if settled is None:
        assert key.partition(".")[0] in MAY_CHANGE
        assert refusal is None
    else:
        assert settled in refusal


def test_a_key_that_nobody_thought_of_may_not_change():
    assert Change("brand.new", 1, 2).refusal == "it is settled when a campaign begins"
    assert Change("stopping", 1, 2).refusal == "it is settled when a campaign begins"
    assert Change("testing.n_frames", 1, 2).refusal == "it is settled when a campaign begins"


@pytest.mark.parametrize(
    ("reference", "may", "may_not"),
    [
        (
            "{kind: xtb}",
            ["time_limit_s=10", "max_iterations=3"],
            ["accuracy=0.1", "charge=2", "multiplicity=3", "method=GFN1-xTB", "electronic_temperature_K=9"],
        ),
        (
            "{kind: pyscf}",
            ["time_limit_s=10", "max_cycles=3", "max_memory_MB=9"],
            ["basis=sto-3g", "functional=PBE0", "convergence_eV=1e-3", "dispersion=d4", "grid_level=1"],
        ),
        (
            "{kind: ase, calculator: emt}",
            ["time_limit_s=10", "keep_files=true"],
            ["calculator=lj", "parameters={asap_cutoff: true}"],
        ),
    ],
)
def test_limits_of_the_reference_may_change_and_the_method_may_not(reference, may, may_not):
    before = (f"reference={reference}",)
    for change in may:
        (found,) = changes(f"reference.{change}", before=before)
        assert found.refusal is None
    for change in may_not:
        found = changes(f"reference.{change}", before=before)
        assert {one.refusal for one in found} == {"labels of two methods do not mix"}


def test_another_kind_of_reference_is_refused_key_by_key():
    found = find_changes(config(), config("reference={kind: pyscf}"), [])
    assert "reference.kind" in {change.key for change in found}
    assert all(change.refusal == "labels of two methods do not mix" for change in found)


def test_another_kind_of_site_may_be_taken():
    found = changes("site={kind: workstation}")
    assert "site.kind" in {change.key for change in found}
    assert all(change.refusal is None for change in found)
    accept(found, RUN, accepted=True, finished=False)


def test_where_it_runs_may_change_without_being_asked():
    found = changes("site={kind: slurm, nodes: {cpu: {}}}", "redis.url=redis://localhost")
    assert found
    accept(found, RUN, accepted=False, finished=False)


# --- what is a change -----------------------------------------------------------------------------------


def test_the_same_config_has_no_changes():
    assert changes() == []
    accept([], RUN, accepted=False, finished=False)
    accept([], RUN, accepted=False, finished=True)


def test_name_and_place_are_no_change():
    assert changes("name=other", "run_dir=elsewhere") == []


def test_a_number_is_the_same_however_it_is_written():
    assert changes("sampling.timestep_fs=1", before=("sampling.timestep_fs=1.0",)) == []


def test_a_change_is_told_as_a_line_of_a_diff():
    (found,) = changes("stop.max_labels=200")
    assert str(found) == "stop.max_labels: 128 -> 200"
    (found,) = changes("sampling.temperature_K=[300, 400]")
    assert str(found) == "sampling.temperature_K: [300.0] -> [300.0, 400.0]"


def test_a_file_that_was_moved_is_the_same_and_one_that_was_changed_is_not(tmp_path):
    old, new = tmp_path / "old.xyz", tmp_path / "new.xyz"
    old.write_text("what it was")
    inputs = [{"path": str(old), "sha256": sha256_file(old)}]
    old.rename(new)
    before = (f"structures=[{old}]",)
    assert changes(f"structures=[{new}]", before=before, inputs=inputs) == []
    assert changes(f"structures=[{new}@:5]", before=(f"structures=[{old}@:5]",), inputs=inputs) == []
    # Another part of it, one more file, a file nobody knows, and other content are changes.
    for asked in (f"[{new}@:5]", f"[{new}, molecule:H2O]", f"[{tmp_path / 'missing.xyz'}]"):
        (found,) = changes(f"structures={asked}", before=before, inputs=inputs)
        assert found.key == "structures"
    assert len(changes(f"structures=[{new}]", before=before)) == 1
    new.write_text("something else")
    (found,) = changes(f"structures=[{new}]", before=before, inputs=inputs)
    assert "its trajectories have begun there" in refused([found]).message


def test_a_test_set_that_was_moved_is_the_same(tmp_path):
    old, new = tmp_path / "old.xyz", tmp_path / "new.xyz"
    new.write_text("what it was")
    inputs = [{"path": str(old), "sha256": sha256_file(new)}]
    found = changes(f"test.labels={new}", before=(f"test.labels={old}",), inputs=inputs)
    assert found == []


# --- whether it is taken --------------------------------------------------------------------------------


def test_what_may_change_must_be_accepted():
    found = changes("audit.fraction=0.25", "site.n_workers=3")
    error = refused(found, accepted=False)
    assert "works with:\n  audit.fraction: 0.5 -> 0.25\n  site.n_workers: null -> 3" in error.message
    assert "--accept-changes" in error.hint
    assert "fff resume runs/water" in error.hint
    accept(found, RUN, accepted=True, finished=False)


@pytest.mark.parametrize("accepted", [True, False])
def test_what_may_not_change_is_refused_by_name_with_the_reason_and_the_way_out(accepted):
    found = changes("stop.max_labels=999", "seed=7", "model.cutoff_A=4.0")
    error = refused(found, accepted=accepted)
    for line in ("seed: 0 -> 7", "model.cutoff_A: 5.0 -> 4.0", "stop.max_labels: 128 -> 999"):
        assert f"\n  {line}" in error.message
    assert "`seed` stays, since everything random follows from it" in error.message
    assert "`model.cutoff_A` stays, since its models are of that kind" in error.message
    assert "`stop.max_labels` stays" not in error.message
    assert "`labels: [runs/water/labels.db]`" in error.hint


def test_a_finished_campaign_is_extended_without_further_words():
    more = changes("stop.max_labels=200")
    accept(more, RUN, accepted=False, finished=True)
    assert "--accept-changes" in refused(more, accepted=False, finished=False).hint
    fewer = changes("stop.max_labels=100", before=("stop.max_labels=200",))
    assert "stop.max_labels: 200 -> 100" in refused(fewer, accepted=False, finished=True).message
    both = changes("stop.max_labels=200", "audit.fraction=0.25")
    assert "--accept-changes" in refused(both, accepted=False, finished=True).hint
    accept(both, RUN, accepted=True, finished=True)


# --- what a campaign settled itself ---------------------------------------------------------------------


@pytest.fixture
def tuned() -> Any:
    """The config in force of a campaign that fine-tunes a model of another architecture."""
    start = f"model.start={Path('given').resolve()}"
    return config(start, "model.n_features=16", "model.n_layers=2", "model.representation=schnet")


def test_the_architecture_that_was_taken_from_the_given_model_stays_where_the_user_says_nothing(tuned):
    loaded = settle(load_config(None, [*LEAST, "model.start=given"]), tuned)
    assert loaded.config.model == tuned.model
    assert find_changes(tuned, loaded.config, []) == []


def test_an_architecture_that_the_user_asks_for_is_a_change(tuned):
    loaded = settle(load_config(None, [*LEAST, "model.start=given", "model.n_layers=5"]), tuned)
    (found,) = find_changes(tuned, loaded.config, [])
    assert (found.key, found.old, found.new) == ("model.n_layers", 2, 5)


@pytest.mark.parametrize("start", [[], ["model.start=another"]])
def test_without_the_same_given_model_the_architecture_is_that_of_the_config(tuned, start):
    loaded = load_config(None, [*LEAST, *start])
    assert settle(loaded, tuned) is loaded
    keys = {change.key for change in find_changes(tuned, loaded.config, [])}
    assert {"model.start", "model.n_features"} <= keys
