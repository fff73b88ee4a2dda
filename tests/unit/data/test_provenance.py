from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import fff
from fff.data import provenance
from fff.data.provenance import collect_provenance


def test_everything_asked_for_is_there_and_is_json(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fff", "run", "a.yaml"])
    file = tmp_path / "a.xyz"
    file.write_bytes(b"abc")

    found = json.loads(json.dumps(collect_provenance(seed=5, inputs=[file])))

    assert found["seed"] == 5
    assert found["command"] == ["fff", "run", "a.yaml"]
    assert found["versions"]["fff"] == fff.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["python"].startswith("3.")
    assert found["host"]
    assert found["platform"]
    assert found["n_cores"] >= 1
    assert found["inputs"] == [
        {"path": str(file), "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    ]
    age = datetime.now(UTC) - datetime.fromisoformat(found["started"])
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_a_library_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "_LIBRARIES", ("no-such-library",))

    assert collect_provenance(seed=0, inputs=[])["versions"]["no-such-library"] is None


def test_an_input_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(OSError, match="gone"):
        collect_provenance(seed=0, inputs=[tmp_path / "gone"])


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_the_commit_of_a_checkout_is_found_and_whether_it_was_changed(tmp_path):
    assert provenance._git_state(tmp_path) == (None, None)
    git(tmp_path, "init")
    assert provenance._git_state(tmp_path) == (None, None)
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--no-verify", "-m", "one")

    commit, changed = provenance._git_state(tmp_path)

    assert len(commit) == 40
    assert changed is False
    (tmp_path / "file").write_text("2")
    assert provenance._git_state(tmp_path) == (commit, True)


def test_a_folder_within_a_checkout_is_none(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "sub").mkdir()

    assert provenance._git_state(tmp_path / "sub") == (None, None)


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert provenance._git_state(tmp_path) == (None, None)


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from fff.data.provenance import collect_provenance;"
        "collect_provenance(seed=0, inputs=[]);"
        "print({'torch', 'pyscf', 'tblite', 'schnetpack', 'colmena', 'parsl'} & sys.modules.keys())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_neither_the_environment_nor_a_password_on_the_command_line_gets_there(monkeypatch):
    monkeypatch.setenv("FFF_TEST_TOKEN", "geheim-7f3a91")
    address = "site.store=redis://me:geheim-7f3a91@host"
    monkeypatch.setattr(sys, "argv", ["fff", "run", "a.yaml", "-o", address, "--token=geheim-7f3a91"])

    found = collect_provenance(seed=5, inputs=[])

    assert "geheim" not in json.dumps(found)
    assert found["command"][-2:] == ["site.store=redis://***@host", "--token=***"]
