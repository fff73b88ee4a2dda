from __future__ import annotations

import pytest
from proxystore.store import get_store

from fff.compute.stores import ModelShelf, open_store

PARCEL = {"model.json": b"{}", "weights.safetensors": b"\1" * 1000}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def make():
    return PARCEL


def test_closing_leaves_no_object_no_folder_and_no_store(folder):
    shelf = ModelShelf(open_store(folder, "test-close"))
    shelf.acquire("a", make)
    shelf.acquire("b", make)
    assert shelf.n_objects() == 2
    shelf.close()
    shelf.close()
    assert not folder.exists()
    assert get_store("test-close") is None
    with pytest.raises(ValueError, match="closed"):
        shelf.acquire("c", make)


def test_what_a_killed_run_left_is_removed_on_opening(folder):
    open_store(folder, "test-stale").put(PARCEL)
    get_store("test-stale").close(clear=False)
    assert len(list(folder.iterdir())) == 2
    with ModelShelf(open_store(folder, "test-stale")) as shelf:
        assert shelf.n_objects() == 0
        assert list(folder.iterdir()) == []
