from __future__ import annotations

import pickle
import threading
import time

import pytest
from proxystore.proxy import extract, is_resolved
from proxystore.serialize import SerializationError, serialize
from proxystore.store import get_store

from fff.compute.stores import ModelShelf, open_store

PARCEL = {"model.json": b"{}", "weights.safetensors": b"\1" * 1000}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def shelf(folder):
    with ModelShelf(open_store(folder, "test-shelf")) as made:
        yield made


def test_a_proxy_crosses_by_pickle_and_gives_the_parcel(shelf):
    shelf.place("model", lambda: PARCEL)
    proxy = pickle.loads(pickle.dumps(shelf.acquire("model")))
    assert not is_resolved(proxy)
    assert proxy["model.json"] == b"{}"
    assert extract(proxy) == PARCEL


def test_a_proxy_is_small(shelf):
    shelf.place("model", lambda: {"weights": bytes(1_000_000)})
    assert len(pickle.dumps(shelf.acquire("model"))) < 1500


def test_the_store_reads_nothing_but_parcels(shelf):
    key = shelf.store.put(PARCEL, serializer=lambda parcel: serialize({1: parcel}))
    with pytest.raises(SerializationError):
        shelf.store.get(key)


def test_an_evicted_parcel_is_not_kept_in_memory(shelf):
    shelf.place("model", lambda: PARCEL)
    proxy = shelf.acquire("model")
    assert proxy["model.json"] == b"{}"
    key = proxy.__proxy_factory__.key
    assert not shelf.store.is_cached(key)


def test_a_parcel_is_made_when_it_is_first_needed(shelf):
    calls = []
    shelf.place("model", lambda: calls.append(1) or PARCEL)
    assert (calls, shelf.n_objects()) == ([], 0)
    shelf.acquire("model")
    shelf.acquire("model")
    assert (calls, shelf.n_objects()) == ([1], 1)


def test_eight_threads_that_need_a_new_parcel_store_it_once(shelf):
    calls = []
    barrier = threading.Barrier(8)

    def make():
        calls.append(1)
        time.sleep(0.05)
        return PARCEL

    def need():
        shelf.place("model", make)
        barrier.wait()
        shelf.acquire("model")

    threads = [threading.Thread(target=need) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (calls, shelf.n_objects()) == ([1], 1)
    shelf.retire("model")
    for left in range(8, 0, -1):
        assert shelf.n_objects() == 1, left
        shelf.release("model")
    assert shelf.n_objects() == 0


def test_a_slow_parcel_holds_nobody_else_up(shelf):
    go_on = threading.Event()
    shelf.place("slow", lambda: go_on.wait(10) and PARCEL)
    shelf.place("fast", lambda: PARCEL)
    thread = threading.Thread(target=shelf.acquire, args=("slow",))
    thread.start()
    shelf.acquire("fast")
    assert thread.is_alive()
    go_on.set()
    thread.join()


def test_a_parcel_stays_until_the_last_request_in_flight_has_ended(shelf):
    shelf.place("model", lambda: PARCEL)
    first = shelf.acquire("model")
    shelf.acquire("model")
    shelf.retire("model")
    shelf.release("model")
    assert shelf.n_objects() == 1
    assert first["model.json"] == b"{}"
    shelf.release("model")
    assert shelf.n_objects() == 0
    assert shelf.keys() == set()


def test_a_parcel_that_is_not_retired_stays_without_requests(shelf):
    shelf.place("model", lambda: PARCEL)
    shelf.acquire("model")
    shelf.release("model")
    assert shelf.n_objects() == 1


def test_retiring_what_nobody_needs_removes_it_at_once(shelf):
    shelf.place("model", lambda: PARCEL)
    shelf.acquire("model")
    shelf.release("model")
    shelf.retire("model")
    assert shelf.n_objects() == 0


def test_a_key_may_be_retired_before_it_was_ever_needed_or_known(shelf):
    shelf.place("model", lambda: PARCEL)
    shelf.retire("model")
    shelf.retire("unknown")
    assert shelf.keys() == set()


def test_a_request_sent_again_needs_a_retired_key_only_while_it_is_there(shelf):
    shelf.place("model", lambda: PARCEL)
    shelf.acquire("model")
    shelf.retire("model")
    shelf.acquire("model")
    shelf.release("model")
    shelf.release("model")
    with pytest.raises(KeyError):
        shelf.acquire("model")


def test_placing_a_retired_key_again_keeps_it(shelf):
    shelf.place("model", lambda: PARCEL)
    shelf.acquire("model")
    shelf.retire("model")
    shelf.place("model", lambda: PARCEL)
    shelf.release("model")
    assert shelf.n_objects() == 1


def test_a_parcel_that_cannot_be_made_counts_for_nothing(shelf):
    tries = []

    def make():
        tries.append(1)
        if len(tries) == 1:
            raise OSError("disk")
        return PARCEL

    shelf.place("model", make)
    with pytest.raises(OSError, match="disk"):
        shelf.acquire("model")
    shelf.acquire("model")
    shelf.release("model")
    with pytest.raises(ValueError, match="released more often"):
        shelf.release("model")


def test_closing_leaves_no_object_no_folder_and_no_store(folder):
    shelf = ModelShelf(open_store(folder, "test-close"))
    shelf.place("a", lambda: PARCEL)
    shelf.place("b", lambda: PARCEL)
    shelf.acquire("a")
    shelf.acquire("b")
    assert shelf.n_objects() == 2
    shelf.close()
    shelf.close()
    assert not folder.exists()
    assert get_store("test-close") is None
    with pytest.raises(ValueError, match="closed"):
        shelf.place("c", lambda: PARCEL)


def test_a_request_that_ends_after_closing_is_no_error(folder):
    shelf = ModelShelf(open_store(folder, "test-late"))
    shelf.place("a", lambda: PARCEL)
    shelf.acquire("a")
    shelf.close()
    shelf.release("a")
    shelf.retire("a")
    assert not folder.exists()


def test_what_a_killed_run_left_is_removed_on_opening(folder):
    open_store(folder, "test-stale").put(PARCEL)
    get_store("test-stale").close(clear=False)
    assert len(list(folder.iterdir())) == 2
    with ModelShelf(open_store(folder, "test-stale")) as shelf:
        assert shelf.n_objects() == 0
        assert list(folder.iterdir()) == []
