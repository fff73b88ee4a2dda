"""The log of the task server."""

from __future__ import annotations

import logging
import sys

from fff.compute.server import _Redacting


def test_what_parsl_logs_of_a_batch_systems_answer_holds_no_password():
    try:
        raise RuntimeError("qsub failed: stderr=REDIS_PASSWORD=hunter2")
    except RuntimeError:
        found = sys.exc_info()
    said = ("STDOUT: redis://me:hunter2@head",)
    record = logging.LogRecord("parsl", logging.ERROR, "pbspro.py", 1, "Submit failed\n%s", said, found)
    written = _Redacting("%(name)s: %(message)s").format(record)
    assert "hunter2" not in written
    assert "Submit failed\nSTDOUT: redis://***@head" in written
