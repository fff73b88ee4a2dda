"""What a campaign prints while it runs, where nobody reads it any more."""

from __future__ import annotations

import subprocess
import sys

TELLS = "from fff.cli.live import tell; tell('one'); tell('two'); raise SystemExit(3)"


def test_a_reader_that_has_gone_ends_no_campaign():
    process = subprocess.Popen(
        [sys.executable, "-c", TELLS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 3
    assert complaint == ""


def test_a_reader_gets_every_line():
    ended = subprocess.run([sys.executable, "-c", TELLS], capture_output=True, text=True, check=False)
    assert ended.stdout == "one\ntwo\n"
