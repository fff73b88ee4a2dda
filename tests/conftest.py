"""What every test gets: nothing may be left behind, one thread for the numbers, repeatable Hypothesis.

The guards run around each test. What a fixture of wider scope started before the test is not its doing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before NumPy is imported, and inherited by every worker: tests share the cores with each other's workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
GRACE_s = 5.0
# What the tools themselves write; everything else that appears was written by a test.
TOOL_FILES = {".git", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__"}

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def _left_after_grace[T](find: Callable[[], set[T]]) -> set[T]:
    """Return what is still there once things that were ending have had time to end."""
    end = time.monotonic() + GRACE_s
    while (left := find()) and time.monotonic() < end:
        time.sleep(0.02)
    return left


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread behind which would keep the process alive."""
    before = set(threading.enumerate())
    yield
    left = _left_after_grace(lambda: {t for t in threading.enumerate() if not t.daemon} - before)
    assert not left, f"threads left behind: {sorted(t.name for t in left)}"


def _children() -> set[psutil.Process]:
    # Asking the kernel for the children costs microseconds, looking through all processes ten milliseconds;
    # with thousands of tests that is a minute.
    return set(psutil.Process().children(recursive=True)) if _has_children() else set()


def _has_children() -> bool:
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return True
    for path in tasks.glob("*/children"):
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            if path.read_text().strip():
                return True
    return False


def _lives(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # The standard library keeps its resource tracker until the interpreter ends.
        return not any("resource_tracker" in argument for argument in process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail a test that leaves a child process, or a child's child, behind."""
    before = _children()
    yield
    left = _left_after_grace(lambda: {p for p in _children() - before if _lives(p)})
    assert not left, f"processes left behind: {sorted(str(p) for p in left)}"


def _stores() -> set[str]:
    # Not imported for this: where nobody imported ProxyStore nobody registered a store.
    module = sys.modules.get("proxystore.store")
    return set(module._stores) if module else set()


@pytest.fixture(autouse=True)
def no_store_left() -> Iterator[None]:
    """Fail a test that leaves a ProxyStore store registered."""
    before = _stores()
    yield
    assert not (left := _stores() - before), f"stores left registered: {sorted(left)}"


def _files() -> set[Path]:
    # Where a relative path or a config beside the presets would end up.
    folders = [ROOT, ROOT / "configs", ROOT / "runs"]
    return {p for folder in folders if folder.is_dir() for p in folder.iterdir() if p.name not in TOOL_FILES}


@pytest.fixture(autouse=True)
def no_file_left() -> Iterator[None]:
    """Fail a test that leaves a file in the repository; `tmp_path` is the place for files."""
    before = _files()
    yield
    left = {p for p in _files() - before if not p.name.startswith(".coverage")}
    assert not left, f"files left in the repository: {sorted(str(p) for p in left)}"


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Give torch one thread where some test module has already imported it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of published data sets beside the repository; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no published data at {folder}")
    return folder
