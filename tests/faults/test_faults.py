"""The most important trials of `make fault-test`, one campaign for each."""

from __future__ import annotations

import pytest

from tests.faults.faults import TRIALS

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1200)]

IMPORTANT = (
    "always-failing-reference",
    "full-disk",
    "lost-interchange",
    "lost-server",
    "second-process",
    "sigint",
    "unreliable-reference",
)


@pytest.mark.parametrize("name", IMPORTANT)
def test_a_fault_ends_in_recovery_or_in_a_stop_that_can_be_resumed(name, tmp_path):
    row = TRIALS[name](tmp_path / name)
    assert row.sound, row.text()
