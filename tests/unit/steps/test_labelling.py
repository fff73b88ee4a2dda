"""Labels outside a campaign: what is there is not made again, and nothing foreign is written into."""

import pytest

from fff.base.errors import ReferenceSetupError, RunDirectoryError
from fff.data.labels import LabelStore
from fff.data.reading import load_labels
from fff.steps.labelling import label_structures
from fff.steps.settings import load_settings

SOURCES = ["molecule:H2O", "molecule:NH3", "molecule:CH4"]


def label(sources, output, never_asked, *overrides, kind="xtb", n_workers=2):
    flags = {"structures": ("STRUCTURES", sources), "reference.kind": ("--reference", kind)}
    config = load_settings(None, list(overrides), flags).config
    told = []
    labelled = label_structures(
        config.structures,
        config,
        output,
        n_workers=n_workers,
        tell=lambda done, total, last: told.append((done, total, last)),
        interruption=never_asked,
    )
    return labelled, told


def test_labels_of_other_settings_are_refused(tmp_path, water_labels, never_asked):
    with LabelStore(tmp_path / "a.db") as store:
        store.add("label-a", water_labels[0], source="x", method="GFN1-xTB", settings="hother")
    with pytest.raises(RunDirectoryError, match="another reference method"):
        label(SOURCES, tmp_path / "a.db", never_asked)


def test_labels_of_other_settings_that_came_meanwhile_are_refused(
    tmp_path, water_labels, never_asked, monkeypatch
):
    def probe_while_another_process_labels(_section, _structures):
        with LabelStore(tmp_path / "a.db") as store:
            store.add("label-a", water_labels[0], source="x", method="GFN1-xTB", settings="hother")
        return "GFN2-xTB"

    monkeypatch.setattr("fff.steps.labelling.probe_reference", probe_while_another_process_labels)
    with pytest.raises(RunDirectoryError, match="another reference method"):
        label(SOURCES, tmp_path / "a.db", never_asked)
    with LabelStore(tmp_path / "a.db") as store:
        assert store.requests() == ["label-a"]


def test_the_database_of_a_campaign_is_left_to_it(tmp_path, never_asked):
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(RunDirectoryError, match="run directory of a campaign"):
        label(SOURCES, tmp_path / "labels.db", never_asked)
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]


def test_a_program_that_is_missing_stops_before_anything_is_written(tmp_path, never_asked):
    with pytest.raises(ReferenceSetupError):
        label(SOURCES, tmp_path / "a.db", never_asked, "reference.command=[no-such-program]", kind="xtb-cli")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.integration
def test_structures_are_labelled_once_and_failed_ones_are_tried_again(tmp_path, never_asked):
    output = tmp_path / "labels.db"
    slow = ("reference.time_limit_s=1e-4", "calculation.max_attempts=1")
    labelled, _ = label(SOURCES[:2], output, never_asked, *slow)
    assert (labelled.n_made, len(labelled.failed), labelled.is_stopped) == (0, 2, False)
    assert "was killed" in labelled.failed[0].reason

    labelled, told = label([*SOURCES, *SOURCES], output, never_asked)
    assert (labelled.n_structures, labelled.n_known, labelled.n_made) == (3, 0, 3)
    assert told[0][:2] == (0, 3)
    assert told[-1][:2] == (3, 3)

    labelled, _ = label([*SOURCES, "molecule:H2"], output, never_asked)
    assert (labelled.n_known, labelled.n_made) == (3, 1)
    with LabelStore(output) as store:
        rows = list(store.rows())
    assert {row["method"] for row in rows} == {"GFN2-xTB"}
    assert {row["source"] for row in rows} == {*SOURCES, "molecule:H2"}
    assert all(row["wall_s"] > 0 for row in rows)
    # What a campaign reads as its labels.
    water = next(each for each in load_labels([str(output)]) if len(each.atoms) == 3)
    assert water.energy_eV == pytest.approx(-137.97, abs=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.db"]


@pytest.mark.slow
@pytest.mark.integration
def test_a_wish_to_stop_ends_it_in_order_and_the_next_goes_on(tmp_path, never_asked):
    class AskedAtOnce:
        wait_for, at_once = "", None

        def is_asked(self):
            return True

    output = tmp_path / "labels.db"
    sources = [*SOURCES, "molecule:H2", "molecule:CO", "molecule:N2", "molecule:HCN", "molecule:C2H6"]
    labelled, _ = label(sources, output, AskedAtOnce(), n_workers=1)
    assert labelled.is_stopped
    assert labelled.n_made < len(sources)
    again, _ = label(sources, output, never_asked, n_workers=1)
    assert again.n_known == labelled.n_made
    assert again.n_known + again.n_made == len(sources)
