"""One trial: a campaign is disturbed, what it does is judged, and it is asked to go on and to finish."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.campaign import PATIENCE_S, Campaign
from tests.faults.table import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SMALLER", "Trial", "small_disk"]

SMALLER: dict[str, Any] = {
    "stop": {"max_labels": 13, "grace_s": 5.0},
    "site": {"n_workers": 2},
    "test": {"n_frames": 0},
}
"""What makes the campaign shorter where nothing more is asked of it than to come to its end."""


class Trial:
    """A campaign, what is expected of it, and the row of the table that comes out.

    Args:
        folder: Where.
        injected: What is done to it, for the table.
        **options: Those of `Campaign`.

    Attributes:
        campaign: The campaign.
        problems: What should not have happened.
        exit_code: Of the sitting that was disturbed; None where it simply went on.
    """

    def __init__(self, folder: Path, injected: str, **options: Any) -> None:
        sections = {key: {**SMALLER.get(key, {}), **options.pop(key, {})} for key in SMALLER}
        self.campaign = Campaign(folder, **sections, **options)
        self.injected = injected
        self.problems: list[str] = []
        self.exit_code: int | None = None
        self.last_line = ""
        self._rows: dict[str, dict[str, Any]] = {}
        self._started = time.monotonic()
        self._resumed = "not tried"

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.campaign.kill_all()

    def expect(self, so: object, otherwise: str) -> None:
        """Note a problem unless something is so."""
        if not so:
            self.problems.append(otherwise)

    def begin(self, n_events: int = 0, *arguments: str) -> None:
        """Start the campaign and wait until its log has so many lines."""
        self.campaign.start(*arguments)
        if n_events and not self.campaign.wait_for_events(n_events):
            self.expect(False, f"it ended before event {n_events}: {self.campaign.last_line}")

    def wait_for_another_event(self) -> None:
        """Wait until the log is longer than now."""
        self.campaign.wait_for_events(self.campaign.n_lines() + 1)

    def ends(self, *codes: int, says: str = "", timeout_s: float = PATIENCE_S) -> None:
        """Wait for the end of the disturbed sitting, and check it."""
        campaign = self.campaign
        try:
            self.exit_code = campaign.wait(timeout_s)
        except AssertionError as error:
            self.problems.append(str(error))
            return
        self.last_line = campaign.last_line
        printed = campaign.output.read_text(encoding="utf-8", errors="replace")
        self.expect(self.exit_code in codes, f"the exit code is {self.exit_code}, not one of {codes}")
        self.expect(says in self.last_line, f"the last line does not say {says!r}: {self.last_line!r}")
        self.expect("Traceback" not in printed, "a traceback was printed")
        self.leaves_nothing()
        self._rows = campaign.rows()

    def leaves_nothing(self) -> None:
        """Check that nothing of the sitting is left."""
        campaign = self.campaign
        self.expect(not (left := campaign.left()), f"processes are left behind: {left}")
        if self.exit_code is not None and self.exit_code >= 0:
            self.expect(not campaign.run.store.exists(), "objects are left in store/")
            self.expect(not campaign.run.lock.exists(), "the lock is left")

    def goes_on(self, *arguments: str) -> None:
        """Let the campaign go on to its end: the same sitting where it runs yet, else `fff resume`."""
        campaign = self.campaign
        same = self.exit_code is None
        if not campaign.is_running and not same:
            campaign.start(*(arguments or ("resume", str(campaign.run.path))))
        try:
            code = campaign.wait()
        except AssertionError as error:
            self.problems.append(str(error))
            self._resumed = "no"
            return
        if same:
            self.exit_code, self.last_line = code, campaign.last_line
        self._check_end(code)
        self._resumed = f"yes{', in the same process' if same else ''}" if code == 0 else "no"

    def row(self, happened: str) -> Row:
        """Return what happened as a row of the table."""
        lost = len(self._rows.keys() - self.campaign.rows().keys())
        again, ended = self.campaign.n_again("begin"), self.campaign.n_again("end")
        return Row(
            injected=self.injected,
            happened="; ".join(self.problems) or happened,
            exit_code="" if self.exit_code is None else str(self.exit_code),
            last_line=self.last_line,
            resumed=self._resumed,
            labels=f"{lost} lost, {again} begun again, {ended} of which had ended",
            took_s=time.monotonic() - self._started,
            sound=not self.problems,
        )

    def _check_end(self, code: int) -> None:
        campaign = self.campaign
        rows = campaign.rows()
        asked = campaign.settings["stop"]["max_labels"]
        hashes = [row["hash"] for row in rows.values()]
        self.expect(code == 0, f"it then ended with exit code {code}: {campaign.last_line}")
        self.expect(len(rows) == asked, f"there are {len(rows)} labels, not {asked}")
        self.expect(len(set(hashes)) == len(hashes), "a structure has two labels")
        changed = [request for request, row in self._rows.items() if rows.get(request) != row]
        self.expect(not changed, f"labels were lost or changed: {changed}")
        self.expect(not (left := campaign.left()), f"processes are left behind: {left}")
        self.expect(not campaign.run.store.exists(), "objects are left in store/")
        self.expect(not campaign.run.lock.exists(), "the lock is left")


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path | None]:
    """Give a file system of its own, of that size; None where one may not be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        for _ in range(100):
            if not subprocess.run(["umount", str(place)], check=False, capture_output=True).returncode:
                break
            time.sleep(0.1)
        with suppress(OSError):
            place.rmdir()
