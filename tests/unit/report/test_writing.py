"""The report of a small campaign: whole, of hostile texts, of damaged files, where it cannot be written."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shutil
import sqlite3

import pytest

from fff.base.errors import RunDirectoryError
from fff.data.events import Event
from fff.data.labels import LabelStore
from fff.data.run_directory import RunDirectory
from fff.report import results, viewer
from fff.report.press import Press
from fff.report.record import read_record
from fff.report.writing import write_report
from tests.support.reported_campaigns import ReportedCampaign

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'"
FIGURES = {
    "audits",
    "cost",
    "deviation_error",
    "labels_chosen",
    "learning_curve",
    "parity",
    "structure_map",
    "timeline",
}


class Reader(html.parser.HTMLParser):
    """Reads a page as a browser does: its elements, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return ReportedCampaign(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made, tmp_path) -> RunDirectory:
    """A run directory of its own."""
    shutil.copytree(made.run.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def read(report) -> Reader:
    return Reader(report.path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("written") / "run")
    shutil.copytree(made.run.path, run.path)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    report = write_report(run)
    return run, report, read(report), before


def test_the_report_is_one_page_with_every_figure_in_it_and_beside_it(written):
    _, report, page, _ = written
    assert report.warnings == []
    assert {path.stem for path in report.figures.glob("*.png")} == FIGURES
    assert {path.stem for path in report.figures.glob("*.csv")} == FIGURES
    images = page.all("img")
    assert len(images) == len(FIGURES)
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    elements = zip(page.elements, page.elements[1:], strict=False)
    around = [before for before, (name, _) in elements if name == "img"]
    assert {attributes["href"] for _, attributes in around} == {f"figures/{name}.png" for name in FIGURES}


def test_a_report_changes_nothing_that_is_the_campaigns(written):
    run, report, _, before = written
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    new = {path.relative_to(run.path).parts[0] for path in after.keys() - before.keys()}
    assert new == {"report.html", "figures"}
    assert report.path == run.report


def test_the_verdict_gives_the_error_its_interval_and_what_to_do_next(written):
    run, _, page, _ = written
    assert "This campaign is finished. Reason: 24 labels were made." in page.text
    assert re.search(
        r"With 24 labels by GFN2-xTB the committee of round-002 predicts forces with a mean absolute error "
        r"of [\d.]+ meV/Å \(95 % interval [\d.]+ to [\d.]+\) on 12 test structures",
        page.text,
    )
    assert f"fff resume {run.path} -o stop.max_labels=48" in page.text


def test_every_link_leads_to_a_place_in_the_page_or_a_file_beside_it(written):
    _, report, page, _ = written
    places = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for link in page.all("a"):
        target = link["href"]
        if target.startswith("#"):
            assert target[1:] in places
        else:
            assert (report.path.parent / target).exists(), target


def test_the_page_allows_its_own_scripts_and_no_network(written):
    _, _, page, _ = written
    policy = next(item["content"] for item in page.all("meta") if item.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    assert "unsafe-eval" not in policy
    assert not [item for item in page.all("script") if "src" in item]
    assert page.all("link") == []


def test_labels_are_counted_by_source_and_temperature(written):
    _, _, page, _ = written
    assert re.search(r"initial 4 \S+ ", page.text)
    assert re.search(r"audit \d+ 300, 600 0\.\d+ ", page.text)


# --- texts from files -----------------------------------------------------------------------------------


def test_nothing_from_a_file_becomes_an_element_of_the_page(tmp_path):
    campaign = ReportedCampaign(tmp_path / "run")
    run = campaign.run
    first, *others = run.events.read_text().splitlines(keepends=True)
    opened = json.loads(first)
    opened["values"]["config"] |= {"name": HOSTILE, "structures": [HOSTILE], "site": {"kind": HOSTILE}}
    run.events.write_text(f"{json.dumps(opened)}\n{''.join(others)}")
    campaign.fail(f"did not converge {HOSTILE}", f"tasks/{HOSTILE[-20:]}.txt")
    campaign.fail("another one", "../../../etc/passwd")
    campaign.fail("a third one", "javascript:alert(3)")
    campaign.write_status(state="stopped", reason=HOSTILE)
    run.config.write_text(f"name: {HOSTILE}\n")
    sitting = {"started": HOSTILE, "host": HOSTILE, "command": [HOSTILE], "versions": {"fff": HOSTILE}}
    inputs = [{"path": HOSTILE, "sha256": HOSTILE}]
    run.provenance.write_text(json.dumps({**sitting, "inputs": inputs, "resumed": [sitting]}))
    with LabelStore(run.labels) as store:
        store.add("label-x", campaign.label(), source=HOSTILE, method=HOSTILE)
    page = read(write_report(run))
    assert len(page.all("script")) == 3  # the structures, the viewer, ours
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert all(item["src"].startswith("data:image/png") for item in page.all("img"))
    assert all(not link["href"].startswith(("javascript:", "..", "/")) for link in page.all("a"))
    assert page.texts.count(HOSTILE) >= 5


def test_no_event_leads_the_report_to_a_file_outside_of_its_folder(tmp_path):
    made = ReportedCampaign(tmp_path / "run")
    (made.run.scores / "evaluate-").mkdir()
    shutil.copyfile(made.run.scores / "evaluate-round-002.npz", tmp_path / "outside.npz")
    made.task("evaluate", "evaluate-/../../../outside", **read_record(made.run).rounds[-1].values)
    record = read_record(made.run)
    assert record.prediction.name == "round-002"
    assert any("leads out of that folder" in trouble for trouble in record.troubles)


def test_a_script_that_is_put_into_the_page_cannot_end_early():
    assert viewer._inline('x = "</script><!-- ";') == 'x = "<\\/script><\\!-- ";'


# --- what is damaged or not there yet -------------------------------------------------------------------


def damage_labels(run):
    run.labels.write_bytes(b"no database at all" * 100)


def damage_a_row(run):
    with sqlite3.connect(run.labels) as connection:
        connection.execute("UPDATE systems SET forces = x'00' WHERE id = 5")
    connection.close()


def damage_the_log(run):
    lines = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(b"".join([*lines[:7], b"{no event}\n", *lines[8:]]))


def damage_values(run):
    """Leave texts where there should be numbers, as another version might."""
    text = run.events.read_text()
    run.events.write_text(
        text.replace('"steps":25', '"steps":"many"').replace('"n_train":4', '"n_train":"x"')
    )


DAMAGES = {
    "labels.db is no database": (damage_labels, r"labels\.db cannot be used", 9),
    "a row of labels.db is damaged": (damage_a_row, r"Row 5 of labels\.db is damaged", 8),
    "a line of the log is damaged": (damage_the_log, r"Line 8 of events\.jsonl cannot be read", 8),
    "a run has no number of steps": (damage_values, r"The figure of the audits could not be made", 8),
    "status.json is gone": (lambda run: run.status.unlink(), "", 8),
    "status.json is damaged": (lambda run: run.status.write_text("{"), r"status\.json is damaged", 8),
    "provenance.json is damaged": (
        lambda run: run.provenance.write_text("[]"),
        r"provenance\.json holds no JSON object",
        8,
    ),
    "the test set is damaged": (
        lambda run: (run.test / "testset-0000.npz").write_bytes(b"PK"),
        r"test/testset-0000\.npz cannot be read",
        7,
    ),
    "the predictions are damaged": (
        lambda run: (run.scores / "evaluate-round-002.npz").write_bytes(b"PK\3\4"),
        r"Shown instead: round-001",
        8,
    ),
    "the predictions are gone, as of older campaigns": (
        lambda run: shutil.rmtree(run.scores),
        "What round-002 predicted for the test set cannot be read",
        7,
    ),
    "the features are gone, as of older campaigns": (lambda run: shutil.rmtree(run.models), "", 7),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_costs_its_part_and_is_told_of(run, name):
    damage, told, n_figures = DAMAGES[name]
    damage(run)
    report = write_report(run)
    page = read(report)
    if told:
        assert [warning for warning in report.warnings if re.search(told, warning)], report.warnings
    for warning in report.warnings:
        assert " ".join(warning.split()) in page.text
    if name != "labels.db is no database":
        assert len(page.all("img")) >= n_figures - 1
    assert "Learning curve" in page.text


def test_a_campaign_that_has_only_begun_has_a_report(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.events.write_text(Event(0, "opened", values={"config": {}}, times={"started": 1.7e9}).to_line())
    report = write_report(run)
    page = read(report)
    assert "There is no labels.db." in report.warnings
    assert page.all("img") == []
    assert "Nobody works on this campaign" in page.text


@pytest.mark.parametrize("state", ["stopped", "failed", "running"])
def test_every_state_has_its_sentence_and_its_command(made, tmp_path, state):
    path = tmp_path / "run"
    shutil.copytree(made.run.path, path)
    status = path / "status.json"
    status.write_text(status.read_text().replace("finished", state))
    record = read_record(RunDirectory(path))
    text = Reader(results.opening(Press(record, path / "report.html", path))).text
    assert f"fff resume {path}" in text
    says = {"stopped": "was stopped", "failed": "failed", "running": "Nobody works on this campaign"}
    assert says[state] in text


# --- where it goes --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_elsewhere_has_its_figures_beside_it_under_its_own_name(run, tmp_path):
    (tmp_path / "figures").mkdir()
    report = write_report(run, tmp_path / "mine.html")
    assert report.figures == tmp_path / "mine_figures"
    assert not run.report.exists()
    assert list((tmp_path / "figures").iterdir()) == []
    page = read(report)
    assert {link["href"] for link in page.all("a")} >= {"run/labels.db", "mine_figures/parity.csv"}


def test_a_folder_where_the_page_should_be_is_an_error(run, tmp_path):
    with pytest.raises(RunDirectoryError, match="is a folder"):
        write_report(run, tmp_path)


def test_what_cannot_be_written_is_an_error_that_names_the_way_out(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot be written") as caught:
        write_report(run, tmp_path / "file" / "report.html")
    assert "--output" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_directory_that_may_not_be_written_is_an_error_that_names_the_way_out(run):
    run.path.chmod(0o500)
    try:
        with pytest.raises(RunDirectoryError, match="cannot be written"):
            write_report(run)
    finally:
        run.path.chmod(0o700)


def test_a_folder_without_a_campaign_is_an_error(tmp_path):
    with pytest.raises(RunDirectoryError, match="There is no campaign"):
        write_report(RunDirectory(tmp_path))


def test_without_the_viewer_the_report_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setattr(viewer, "find_spec", lambda name: None)
    press = Press(read_record(run), run.report, run.path / "figures")
    page = Reader(results.worst(press))
    assert [warning for warning in press.warnings if "pip install chemiscope" in warning]
    assert press.warnings[0] in page.text
    assert page.all("button") == []
    assert "label-000" in page.text
