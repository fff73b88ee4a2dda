"""What steering relies on in any store of parcels, and its shelf, over files and over a Redis server."""

from __future__ import annotations

import pickle
import threading
import time

import pytest
from proxystore.proxy import ProxyResolveError, extract, is_resolved
from proxystore.serialize import SerializationError, serialize
from proxystore.store import get_store

from fff.compute.redis_store import RedisConnector, RedisShelf
from fff.compute.stores import ModelShelf, ParcelFolder, open_store, store_of_parcels
from tests.support.redis_server import started_redis

PARCEL = {"model.json": b"{}", "weights.safetensors": b"\1" * 1000}
KINDS = ["files", "redis"]


@pytest.fixture
def redis_server(tmp_path, monkeypatch):
    server = started_redis(tmp_path, monkeypatch)
    with server.client() as client:
        client.set("somebody else's", "precious")
    yield server
    assert server.key_names() == {"somebody else's"}
    server.stop()


@pytest.fixture(params=KINDS)
def make_shelf(request, tmp_path):
    def make_shelf(name):
        if request.param == "files":
            return ModelShelf(open_store(tmp_path / "store", name))
        server = request.getfixturevalue("redis_server")
        return RedisShelf(store_of_parcels(name, RedisConnector(*server.connect_to, "fff:test:store", 0.0)))

    return make_shelf


@pytest.fixture
def shelf(make_shelf):
    with make_shelf("test-shelf") as made:
        yield made


@pytest.fixture(params=KINDS)
def connector(request, tmp_path):
    if request.param == "files":
        made = ParcelFolder(str(tmp_path / "store"), clear=False)
    else:
        made = RedisConnector(*request.getfixturevalue("redis_server").connect_to, "fff:test:store", 0.0)
    yield made
    made.close(clear=True)


def make():
    return PARCEL


def test_bytes_come_back_by_their_key_until_they_are_evicted(connector):
    first, second = connector.put_batch([b"1", b"2" * 1_000_000])
    third = connector.new_key()
    connector.set(third, b"3")
    assert connector.get_batch([third, first]) == [b"3", b"1"]
    assert len(connector.get(second)) == 1_000_000
    connector.evict(first)
    connector.evict(first)
    assert [connector.exists(key) for key in (first, second, third)] == [False, True, True]


def test_another_process_makes_the_same_connector_and_leaves_all_as_it_is(connector):
    key = connector.put(b"1")
    other = type(connector).from_config(pickle.loads(pickle.dumps(connector.config())))
    assert other.get(pickle.loads(pickle.dumps(key))) == b"1"
    other.close()
    assert connector.get(key) == b"1"


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


def test_a_parcel_that_the_store_has_lost_is_stored_again_for_all_that_name_it(shelf):
    shelf.keep({"model"})
    before = shelf.acquire("model", make)
    shelf.store.evict(before.__proxy_factory__.key)
    assert extract(shelf.acquire("model", make)) == PARCEL
    assert extract(before) == PARCEL
    assert shelf.n_objects() == 1


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


def test_closing_leaves_no_object_and_no_store(make_shelf):
    shelf = make_shelf("test-close")
    for key in ("a", "b"):
        shelf.acquire(key, make)
    assert shelf.n_objects() == 2
    shelf.close()
    shelf.close()
    assert get_store("test-close") is None
    with pytest.raises(ValueError, match="closed"):
        shelf.acquire("c", make)


def test_a_request_that_ends_after_closing_is_no_error(make_shelf):
    shelf = make_shelf("test-late")
    shelf.acquire("a", make)
    shelf.close()
    shelf.release("a")
    shelf.keep(set())
