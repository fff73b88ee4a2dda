"""The lock of a run directory: one process at a time, and a dead one is not in the way."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import secrets
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from fff.base.errors import CampaignError, RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEAD_AFTER_S", "REFRESH_EVERY_S", "RunLock", "is_held"]

REFRESH_EVERY_S = 5.0
"""How often a living process shows that it lives, in seconds."""

DEAD_AFTER_S = 60.0
"""A process that cannot be looked up counts as dead when it has shown nothing for so long, in seconds."""

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class _Holder:
    """Who holds a lock.

    Attributes:
        host: Name of the machine.
        pid: Process id.
        process: What tells the process from any other, ever: boot of the machine, namespace of process ids,
            start of the process in clock ticks after the boot. Empty where the system does not say.
        token: Drawn at random for each lock that is taken.
    """

    host: str
    pid: int
    process: str
    token: str

    @classmethod
    def me(cls) -> _Holder:
        return cls(platform.node(), os.getpid(), _identity(os.getpid()), secrets.token_hex(8))

    @classmethod
    def read(cls, text: str) -> _Holder | None:
        """Return who wrote a lock, or None if nobody can tell."""
        try:
            content = json.loads(text)
            return cls(
                str(content["host"]), int(content["pid"]), str(content["process"]), str(content["token"])
            )
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
            return None

    def is_visible(self) -> bool:
        """Whether this process could see that one if it lived: the same boot, the same namespace."""
        mine = _identity(os.getpid())
        return bool(mine) and self.process.rpartition(" ")[0] == mine.rpartition(" ")[0]

    def lives(self) -> bool:
        """Whether that process lives, where it is visible."""
        if _identity(self.pid) != self.process:
            return False
        try:
            # Killed, but not yet taken note of by whoever started it.
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


def is_held(path: Path) -> bool:
    """Whether a living process seems to hold a lock; looks once, waits for nothing, changes nothing."""
    try:
        holder = _Holder.read(path.read_text(encoding="utf-8", errors="replace"))
        if holder is not None and holder.is_visible():
            return holder.lives()
        return time.time() - path.stat().st_mtime < DEAD_AFTER_S
    except OSError:
        return False


class RunLock:
    """Lets one process at a time work on a run directory.

    On one machine the process that holds a lock is looked up. From another machine, which sees nothing but
    the file system, a process lives that has touched its lock within `DEAD_AFTER_S`, by the clock of that
    file system.

    Args:
        path: The lock file; its folder must exist.
        say: Told when taking the lock means to wait, or that a dead process held it.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.path = path
        self._say = say
        self._me = _Holder.me()
        self._refreshed = 0.0

    def take(self) -> None:
        """Take the lock.

        Raises:
            RunDirectoryError: If another process holds it, or it cannot be written.
        """
        try:
            while not self._write():
                if self.path.is_symlink():
                    msg = f"{self.path} is a symbolic link, where the lock of the run directory belongs."
                    raise RunDirectoryError(msg, hint="Move it away.", path=str(self.path))
                self._remove_if_dead()
        except OSError as error:
            msg = f"The run directory {self.path.parent} cannot be written: {error.strerror or error}."
            hint = "Check its permissions and the disk, or choose another with --run-dir."
            raise RunDirectoryError(msg, hint=hint, path=str(self.path.parent)) from error
        self._refreshed = time.monotonic()

    def refresh(self) -> None:
        """Show that this process lives; call it all the time, it does something every `REFRESH_EVERY_S`.

        Raises:
            CampaignError: If another process has taken the lock meanwhile.
        """
        if time.monotonic() - self._refreshed < REFRESH_EVERY_S:
            return
        self._refreshed = time.monotonic()
        try:
            text = _text(self.path.read_bytes())
        except FileNotFoundError:
            # Somebody has tidied up; whoever comes next must know that this process is here.
            self._write()
            return
        except OSError:
            return  # a file system that is away for a moment
        if text != self._content():
            msg = f"Another process has taken over {self.path.parent}: {_describe(_Holder.read(text))}."
            raise CampaignError(msg, hint="This one was not seen to live for a while, and leaves it to that.")
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Give the lock back, unless another process has it by now; may be called twice."""
        with contextlib.suppress(OSError):
            if _text(self.path.read_bytes()) == self._content():
                self.path.unlink()

    def _content(self) -> str:
        return json.dumps(asdict(self._me)) + "\n"

    def _write(self) -> bool:
        """Make the lock with its content in one step; returns False if there is one."""
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".lock.", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self._content())
            Path(name).chmod(0o644)
            os.link(name, self.path)
        except FileExistsError:
            return False
        finally:
            Path(name).unlink()
        return True

    def _remove_if_dead(self) -> None:
        """Wait for a look at the holder, and remove the lock of a dead one.

        Raises:
            RunDirectoryError: If it lives.
        """
        try:
            text = _text(self.path.read_bytes())
        except FileNotFoundError:
            return
        except IsADirectoryError:
            msg = f"{self.path} is a folder, where the lock of the run directory belongs."
            raise RunDirectoryError(msg, hint="Move it away.", path=str(self.path)) from None
        holder = _Holder.read(text)
        if holder is not None and holder.is_visible():
            if holder.lives():
                raise self._taken(holder)
        else:
            self._wait_for_a_sign(holder)
        self._remove(text)
        self._say(f"The lock of {_describe(holder)}, which has died, was removed.")

    def _wait_for_a_sign(self, holder: _Holder | None) -> None:
        """Return when the holder has shown no sign of life for long enough.

        Raises:
            RunDirectoryError: If it shows one.
        """
        touched = self._touched()
        if touched is None:
            return
        # Longer than that it need not take, also where a clock was put back since the lock was touched.
        waits = min(DEAD_AFTER_S - (self._now() - touched), DEAD_AFTER_S)
        if waits > 0:
            self._say(
                f"Waiting {waits:.0f} s for a sign of life of {_describe(holder)}, which holds the lock."
            )
        end = time.monotonic() + waits
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(_LOOK_EVERY_S, left))
            later = self._touched()
            if later is None:
                return
            if later != touched:
                raise self._taken(holder)

    def _touched(self) -> float | None:
        try:
            # Opened, not only looked at: network file systems renew what they know of a file on opening.
            with self.path.open("rb") as file:
                return os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None

    def _now(self) -> float:
        """Return the time by the clock of the file system, which need not be this machine's."""
        with tempfile.TemporaryFile(dir=self.path.parent, prefix=".lock.") as file:
            file.write(b"now")
            file.flush()
            return os.fstat(file.fileno()).st_mtime

    def _remove(self, text: str) -> None:
        """Remove the lock of a dead process, and nobody else's, however many try at the same time."""
        try:
            # Opened for writing where that is allowed: network file systems ask for it before they lock.
            file = self.path.open("r+b" if os.access(self.path, os.W_OK) else "rb")
        except FileNotFoundError:
            return
        with file:
            # The kernel lets one after the other in; where the file system cannot lock, all at once.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if _text(file.read()) == text and self._is_still(file):
                self._move_away(text)

    def _is_still(self, file: IO[bytes]) -> bool:
        """Whether the lock is the file that was opened, and not one that was made since."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _move_away(self, text: str) -> None:
        aside = self.path.with_name(f".lock.{self._me.token}.part")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        try:
            if _text(aside.read_bytes()) != text:
                # Another process was faster: this is its new lock, and goes back.
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
        finally:
            aside.unlink()

    def _taken(self, holder: _Holder | None) -> RunDirectoryError:
        folder = self.path.parent
        return RunDirectoryError(
            f"The run directory {folder} is taken: {_describe(holder)} works on it.",
            hint=f"Wait for it, stop it with `fff stop {folder}`, or choose another with --run-dir.",
            path=str(folder),
        )


def _text(content: bytes) -> str:
    """Return a lock as text, whatever stands in it."""
    return content.decode(errors="replace")


def _describe(holder: _Holder | None) -> str:
    return "an unknown process" if holder is None else f"process {holder.pid} on {holder.host}"


def _identity(pid: int) -> str:
    """Return what tells a process from any other; empty where it cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        # The name, in brackets, may hold blanks and brackets; the start is the 20th field behind it.
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot} {namespace} {start}"
