from __future__ import annotations

import pickle
import threading
import time

import pytest
from proxystore.proxy import ProxyResolveError, extract, is_resolved
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


def make():
    return PARCEL


def test_a_proxy_crosses_by_pickle_and_gives_the_parcel(shelf):
    proxy = pickle.loads(pickle.dumps(shelf.acquire("model", make)))
    assert not is_resolved(proxy)
    assert proxy["model.json"] == b"{}"
    assert extract(proxy) == PARCEL


def test_a_proxy_is_small(shelf):
    assert len(pickle.dumps(shelf.acquire("model", lambda: {"weights": bytes(1_000_000)}))) < 1500


def test_the_store_reads_nothing_but_parcels(shelf):
    key = shelf.store.put(PARCEL, serializer=lambda parcel: serialize({1: parcel}))
    with pytest.raises(SerializationError):
        shelf.store.get(key)


def test_an_evicted_parcel_is_not_kept_in_memory(shelf):
    proxy = shelf.acquire("model", make)
    assert proxy["model.json"] == b"{}"
    key = proxy.__proxy_factory__.key
    assert not shelf.store.is_cached(key)


def test_a_parcel_is_made_once(shelf):
    calls = []
    for _ in range(2):
        shelf.acquire("model", lambda: calls.append(1) or PARCEL)
    assert (calls, shelf.n_objects()) == ([1], 1)


def test_eight_threads_that_need_a_new_parcel_store_it_once(shelf):
    calls = []
    barrier = threading.Barrier(8)

    def make_slowly():
        calls.append(1)
        time.sleep(0.05)
        return PARCEL

    def need():
        barrier.wait()
        shelf.acquire("model", make_slowly)

    threads = [threading.Thread(target=need) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (calls, shelf.n_objects()) == ([1], 1)
    for left in range(8, 0, -1):
        assert shelf.n_objects() == 1, left
        shelf.release("model")
    assert shelf.n_objects() == 0


def test_requests_and_replacements_from_many_threads_never_lose_a_parcel_that_is_needed(shelf):
    failures = []
    done = threading.Event()

    def replace_all_the_time():
        while not done.is_set():
            shelf.keep({"model"})
            shelf.keep(set())

    def ask():
        try:
            for _ in range(60):
                proxy = shelf.acquire("model", make)
                assert extract(proxy) == PARCEL
                shelf.release("model")
        except (KeyError, ValueError, ProxyResolveError) as error:
            failures.append(error)

    replacing = threading.Thread(target=replace_all_the_time)
    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in [replacing, *asking]:
        thread.start()
    for thread in asking:
        thread.join()
    done.set()
    replacing.join()
    assert failures == []
    shelf.keep(set())
    assert shelf.n_objects() == 0


def test_a_slow_parcel_holds_nobody_else_up(shelf):
    go_on = threading.Event()
    thread = threading.Thread(target=shelf.acquire, args=("slow", lambda: go_on.wait(10) and PARCEL))
    thread.start()
    shelf.acquire("fast", make)
    assert thread.is_alive()
    go_on.set()
    thread.join()


def test_a_parcel_that_was_replaced_stays_until_the_last_request_in_flight_has_ended(shelf):
    shelf.keep({"model"})
    first = shelf.acquire("model", make)
    shelf.acquire("model", make)
    shelf.keep({"newer"})
    shelf.release("model")
    assert shelf.n_objects() == 1
    assert first["model.json"] == b"{}"
    shelf.release("model")
    assert shelf.n_objects() == 0
    assert shelf.keys() == set()


def test_a_parcel_that_is_kept_stays_without_requests_and_goes_when_it_is_replaced(shelf):
    shelf.keep({"model"})
    shelf.acquire("model", make)
    shelf.release("model")
    assert shelf.n_objects() == 1
    shelf.keep(set())
    assert shelf.n_objects() == 0


def test_a_parcel_of_one_request_goes_with_it(shelf):
    shelf.acquire("told", make)
    shelf.release("told")
    assert (shelf.n_objects(), shelf.keys()) == (0, set())


def test_a_parcel_that_went_is_made_again_when_it_is_needed(shelf):
    for _ in range(2):
        shelf.acquire("model", make)
        shelf.release("model")
    assert extract(shelf.acquire("model", make)) == PARCEL


def test_a_parcel_that_cannot_be_made_counts_for_nothing(shelf):
    def fail():
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        shelf.acquire("model", fail)
    assert shelf.keys() == set()
    shelf.keep({"model"})
    shelf.acquire("model", make)
    shelf.release("model")
    with pytest.raises(ValueError, match="released more often"):
        shelf.release("model")


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


def test_a_request_that_ends_after_closing_is_no_error(folder):
    shelf = ModelShelf(open_store(folder, "test-late"))
    shelf.acquire("a", make)
    shelf.close()
    shelf.release("a")
    shelf.keep(set())
    assert not folder.exists()


def test_what_a_killed_run_left_is_removed_on_opening(folder):
    open_store(folder, "test-stale").put(PARCEL)
    get_store("test-stale").close(clear=False)
    assert len(list(folder.iterdir())) == 2
    with ModelShelf(open_store(folder, "test-stale")) as shelf:
        assert shelf.n_objects() == 0
        assert list(folder.iterdir()) == []
