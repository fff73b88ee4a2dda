from __future__ import annotations

import shutil

import pytest
from proxystore.proxy import extract
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


def remove_mark(folder):
    next(folder.glob("*.ready")).unlink()


def remove_bytes(folder):
    next(folder.glob("*.ready")).with_suffix("").unlink()


@pytest.mark.parametrize("lose", [remove_mark, remove_bytes, shutil.rmtree])
def test_whatever_of_a_parcel_is_lost_it_is_there_again_when_it_is_next_asked_for(folder, lose):
    with ModelShelf(open_store(folder, "test-lost")) as shelf:
        before = shelf.acquire("a", make)
        lose(folder)
        assert extract(shelf.acquire("a", make)) == extract(before) == PARCEL
        assert folder.stat().st_mode & 0o777 == 0o700


def test_what_a_killed_run_left_is_removed_on_opening(folder):
    open_store(folder, "test-stale").put(PARCEL)
    get_store("test-stale").close(clear=False)
    assert len(list(folder.iterdir())) == 2
    with ModelShelf(open_store(folder, "test-stale")) as shelf:
        assert shelf.n_objects() == 0
        assert list(folder.iterdir()) == []
