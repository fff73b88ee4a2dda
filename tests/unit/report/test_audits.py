"""Audits as a report tells of them."""

from __future__ import annotations

from fff.data.events import CHANGED, Event
from fff.report.pictures.audits import NOT_PASSED, PASSED, audited_runs
from fff.report.record import read_record
from tests.support.reported_campaigns import ReportedCampaign


def test_an_audit_is_judged_by_the_tolerances_of_its_time(tmp_path):
    made = ReportedCampaign(tmp_path / "run")
    record = read_record(made.run)
    before = audited_runs(record)
    assert {run.verdict for run in before} >= {PASSED, NOT_PASSED}
    strict = {**record.config["audit"], "energy_tolerance_eV_per_atom": 1e-6}
    change = {"config": {**record.config, "audit": strict}}
    made.log(Event(len(record.events), CHANGED, values=change, times={"started": 1.8e9}))
    assert audited_runs(read_record(made.run)) == before
