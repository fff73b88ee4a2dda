"""Parcels in a real Redis server that is emptied, stopped, full or paused, and who may reach it."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest
from proxystore.proxy import ProxyResolveError, extract
from proxystore.store import get_store
from redis.exceptions import NoPermissionError

from fff.base.errors import CampaignError, ConfigError, StoreLostError
from fff.campaigns.checking.redis import find_server
from fff.compute.exchange import Exchange, find_redis
from fff.compute.queues import LocalQueues
from fff.compute.redis_access import connect
from fff.compute.redis_store import RedisConnector, RedisShelf
from fff.compute.stores import store_of_parcels
from fff.compute.tasks import Call, _task
from fff.config import LaptopSite, RedisSection
from fff.config.site import SlurmSite
from tests.support.redis_server import PATIENCE_S, VARIABLE, started_redis

pytestmark = [pytest.mark.slow, pytest.mark.integration]

PARCEL = {"weights": b"\1" * 1000}
KEY = "fff:a:b:store"
RIGHTS = ["+@read", "+@write", "+@connection", "+info"]


@pytest.fixture
def server(tmp_path, monkeypatch):
    made = started_redis(tmp_path, monkeypatch)
    yield made
    made.stop()


@pytest.fixture
def shelf(server):
    connector = RedisConnector(*server.connect_to, KEY, PATIENCE_S)
    with RedisShelf(store_of_parcels("test-redis", connector)) as made:
        yield made


def look_until(shelf, condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        shelf.look_after()
        time.sleep(0.02)


def make():
    return PARCEL


def test_what_the_server_has_lost_is_stored_again_and_proxies_of_before_give_it(server, shelf):
    proxies = [shelf.acquire(key, make) for key in ("a", "b")]
    with server.client() as client:
        client.flushall()
    look_until(shelf, lambda: shelf.n_objects() == 2)
    assert [extract(proxy) for proxy in proxies] == [PARCEL, PARCEL]


def test_a_server_that_is_away_holds_nobody_up_and_gets_everything_when_it_is_back(server, shelf):
    shelf.acquire("before", make)
    shelf.acquire("gone", make)
    server.stop()
    proxy = shelf.acquire("meanwhile", make)
    shelf.release("gone")
    look_until(shelf, lambda: "refused" in shelf.absence.why)
    server.start()
    look_until(shelf, lambda: shelf.absence.seconds == 0)
    assert shelf.keys() == {"before", "meanwhile"}
    assert shelf.n_objects() == 2
    assert extract(proxy) == PARCEL


def test_a_server_that_hangs_in_the_middle_of_a_look_is_waited_for_once(server, shelf, monkeypatch):
    for key in "abcdef":
        shelf.acquire(key, make)
    with server.client() as client:
        client.hdel(KEY, *client.hkeys(KEY))
    connector, tried = shelf.store.connector, []
    keys, put = connector.keys, connector.set

    def then_hang():
        present = keys()
        server.pause()
        return present

    monkeypatch.setattr(connector, "keys", then_hang)
    monkeypatch.setattr(connector, "set", lambda *args: tried.append(args) or put(*args))
    shelf.look_after()
    assert len(tried) == 1
    assert shelf.absence.seconds > 0
    # Nor does anybody who asks for a parcel meanwhile.
    monkeypatch.setattr(connector, "exists", None)
    shelf.acquire("a", make)
    assert len(tried) == 1
    monkeypatch.undo()
    server.go_on()
    look_until(shelf, lambda: shelf.absence.seconds == 0 and shelf.n_objects() == 6)


def test_closing_does_not_wait_for_a_server_that_answers_no_more(server):
    shelf = RedisShelf(store_of_parcels("test-paused", RedisConnector(*server.connect_to, KEY, 0.0)))
    shelf.acquire("a", make)
    server.pause()
    look_until(shelf, lambda: shelf.absence.seconds > 0)
    shelf.close()
    server.go_on()
    assert server.key_names() == {KEY}


def test_what_was_not_evicted_while_the_server_was_away_goes_when_it_is_back(server, shelf):
    shelf.acquire("a", make)
    with server.client() as client:
        client.hset(KEY, "left", b"over")
    look_until(shelf, lambda: shelf.n_objects() == 1)
    assert server.key_names() == {KEY}


def test_a_full_server_counts_as_away_until_there_is_room(server, shelf):
    with server.client() as client:
        client.config_set("maxmemory", 1)
        proxy = shelf.acquire("a", make)
        look_until(shelf, lambda: "maxmemory" in shelf.absence.why and shelf.absence.seconds > 1.5)
        client.config_set("maxmemory", 0)
    look_until(shelf, lambda: shelf.absence.seconds == 0)
    assert extract(proxy) == PARCEL


def test_the_store_goes_by_itself_if_nobody_looks_after_it(server, shelf):
    shelf.acquire("a", make)
    with server.client() as client:
        assert 0 < client.ttl(KEY) <= 3600
        client.expire(KEY, 5)
        look_until(shelf, lambda: client.ttl(KEY) > 5)


def test_a_parcel_larger_than_a_server_takes_is_refused_with_the_way_out(server, monkeypatch):
    monkeypatch.setattr("fff.compute.redis_store._LARGEST_BYTES", 10)
    connector = RedisConnector(*server.connect_to, KEY, 0.0)
    with pytest.raises(CampaignError, match="11 bytes") as caught:
        connector.put(b"x" * 11)
    assert "use_for: [queues]" in caught.value.hint
    connector.close()


@_task
def read(call, parcels):
    return {"size": len(parcels[0]["weights"])}


@pytest.fixture
def ask_worker(shelf, tmp_path):
    """Have a task done whose worker builds a store of its own from its proxy; returns the values."""
    name = "test-redis-worker"

    def ask():
        proxy = shelf.acquire("a", make)
        config = proxy.__proxy_factory__.store_config
        config.name = name
        config.connector.options["patience_s"] = 0.1
        proxy = pickle.loads(pickle.dumps(proxy))
        return read(Call(request="a", run_dir=str(tmp_path), models=("a",)), proxy)["values"]

    yield ask
    if (store := get_store(name)) is not None:
        store.close()


def test_a_worker_builds_its_store_from_a_proxy(ask_worker):
    assert ask_worker() == {"size": 1000}


def test_a_worker_without_the_variable_names_it_and_counts_as_wrongly_set_up(ask_worker, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    values = ask_worker()
    assert (values["failure_class"], values["error"]) == ("setup", "ConfigError")
    assert VARIABLE in values["message"]


def test_a_worker_that_cannot_reach_the_store_loses_its_task(ask_worker, server):
    server.stop()
    values = ask_worker()
    assert (values["failure_class"], values["error"]) == ("lost", "StoreLostError")
    assert server.password not in str(values)


def section(server, **values):
    return RedisSection(url=server.url, password_variable=VARIABLE, **values)


def test_what_a_killed_sitting_left_is_removed_by_the_next_one_and_nothing_else(server, tmp_path):
    killed = Exchange(section(server), "h1")
    killed.queues(["train"]).send_inputs(1, method="f", topic="train")
    killed.shelf(tmp_path / "store", "test-killed").acquire("a", make)
    other = Exchange(section(server), "h12")
    other.shelf(tmp_path / "store", "test-other").acquire("a", make)
    end = time.monotonic() + PATIENCE_S
    while len(server.key_names()) < 4:
        assert time.monotonic() < end
        time.sleep(0.02)
    # Killed: what its thread would write again must not be there.
    killed._queues._client._cut()
    killed._queues._client._writer.join()
    Exchange(section(server), "h1")
    (left,) = server.key_names()
    assert left.startswith("fff:h12:")
    for exchange in (killed, other):
        exchange._shelf.close()


@pytest.mark.parametrize("part", ["queues", "store"])
def test_either_part_may_go_through_the_server_alone(server, tmp_path, part):
    exchange = Exchange(section(server, use_for=[part]), "h1")
    queues, shelf = exchange.queues(["train"]), exchange.shelf(tmp_path / "store", f"test-{part}")
    assert isinstance(queues, LocalQueues) == (part == "store")
    assert isinstance(shelf, RedisShelf) == (part == "store")
    assert exchange.look_after(print) is None
    queues.close()
    shelf.close()
    assert server.key_names() == set()


def test_people_are_told_once_and_the_campaign_stops_after_the_patience(server, tmp_path):
    exchange, said = Exchange(section(server, patience_s=3.0), "h1"), []
    shelf = exchange.shelf(tmp_path / "store", "test-patience")
    assert exchange.look_after(said.append) is None
    server.stop()
    end = time.monotonic() + PATIENCE_S
    while (reason := exchange.look_after(said.append)) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert len(said) == 1
    assert "waits up to 3 s" in said[0]
    assert f"The Redis server {server.url} was away for 3 s" in reason
    server.start()
    while len(said) < 2:
        exchange.look_after(said.append)
        time.sleep(0.02)
    assert "is back" in said[1]
    shelf.close()


def test_a_server_that_does_not_answer_or_refuses_the_password_is_told_before_anything_begins(
    server, monkeypatch
):
    find_redis(section(server))
    monkeypatch.setenv(VARIABLE, "hunter2")
    with pytest.raises(CampaignError, match="refuses user or password") as caught:
        find_redis(section(server))
    assert "hunter2" not in caught.value.message
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=VARIABLE):
        find_redis(section(server))
    monkeypatch.setenv(VARIABLE, server.password)
    server.stop()
    with pytest.raises(CampaignError, match="refused"):
        find_redis(section(server))


def test_a_user_with_rights_to_keys_of_fff_alone_is_enough(server, tmp_path):
    with server.client() as client:
        client.execute_command("ACL SETUSER", "fff", "on", f">{server.password}", "~fff:*", *RIGHTS)
    url = server.url.replace("redis://", "redis://fff@")
    exchange = Exchange(RedisSection(url=url, password_variable=VARIABLE), "h1")
    queues, shelf = exchange.queues(["train"]), exchange.shelf(tmp_path / "store", "test-acl")
    queues.send_inputs(1, method="f", topic="train")
    queues.get_task(timeout=PATIENCE_S)
    proxy = shelf.acquire("a", make)
    shelf._next_look = 0.0
    shelf.look_after()
    assert extract(proxy) == PARCEL
    assert queues.absence.seconds == shelf.absence.seconds == 0
    queues.close()
    shelf.close()
    assert server.key_names() == set()
    with connect(url, VARIABLE) as client, pytest.raises(NoPermissionError):
        client.get("of somebody else")


def test_a_server_is_reached_by_a_socket_file_too(server, tmp_path):
    section = RedisSection(url=f"unix://{server.socket}?db=3", password_variable=VARIABLE)
    find_redis(section)
    exchange = Exchange(section, "h1")
    queues, shelf = exchange.queues(["train"]), exchange.shelf(tmp_path / "store", "test-socket")
    queues.send_inputs(1, method="f", topic="train")
    queues.get_task(timeout=PATIENCE_S)
    assert extract(shelf.acquire("a", make)) == PARCEL
    queues.close()
    shelf.close()
    assert server.key_names() == set()


def test_a_server_with_tls_is_trusted_by_its_certificate_alone(tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH")
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    request = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*request.split(), *names], check=True, capture_output=True)
    server = started_redis(tmp_path, monkeypatch, tls=(key, certificate))
    try:
        url = server.url.replace("redis://", "rediss://")
        with pytest.raises(CampaignError, match="certificate"):
            find_redis(RedisSection(url=url, password_variable=VARIABLE))
        find_redis(RedisSection(url=f"{url}?ssl_ca_certs={certificate}", password_variable=VARIABLE))
    finally:
        server.stop()


def test_a_proxy_holds_the_name_of_the_variable_and_no_password(server, shelf):
    data = pickle.dumps(shelf.acquire("a", make))
    assert VARIABLE.encode() in data
    assert server.password.encode() not in data
    assert len(data) < 1500


def test_a_proxy_of_what_is_lost_for_good_says_so(server, tmp_path):
    connector = RedisConnector(*server.connect_to, KEY, 0.0)
    with RedisShelf(store_of_parcels("test-lost", connector)) as shelf:
        proxy = shelf.acquire("a", make)
        with server.client() as client:
            client.flushall()
        with pytest.raises(ProxyResolveError) as caught:
            extract(proxy)
    assert isinstance(caught.value.__cause__, StoreLostError)


def looked_at(server, site=None, **values):
    redis = section(server, **values)
    known = SimpleNamespace(config=SimpleNamespace(redis=redis, site=site or LaptopSite()))
    return list(find_server(known))


def test_a_check_tells_version_and_policy_and_leaves_nothing(server):
    (finding,) = looked_at(server)
    assert finding.status == "ok"
    assert "version" in finding.found
    assert "password accepted" in finding.found
    assert finding.values["maxmemory_policy"] == "noeviction"
    assert server.key_names() == set()
    known = SimpleNamespace(config=SimpleNamespace(redis=RedisSection()))
    assert list(find_server(known)) == []


def test_a_check_fails_where_the_server_may_throw_away_what_is_in_use(server):
    with server.client() as client:
        client.config_set("maxmemory-policy", "volatile-lru")
    (finding,) = looked_at(server)
    assert finding.status == "failed"
    assert "CONFIG SET maxmemory-policy noeviction" in finding.repair


def test_a_check_fails_where_fff_may_not_write(server):
    with server.client() as client:
        client.config_set("maxmemory", 1)
    (finding,) = looked_at(server)
    assert finding.status == "failed"
    assert "maxmemory" in finding.found


def test_a_check_warns_of_workers_that_cannot_reach_a_server_of_this_machine(server):
    site = SlurmSite(kind="slurm", nodes={"cpu": {}})
    (finding,) = looked_at(server, site)
    assert finding.status == "warning"
    assert "only this machine reaches it" in finding.found
    assert looked_at(server, site, use_for=["queues"])[0].status == "ok"


def test_a_check_warns_of_a_server_without_a_password(server):
    with server.client() as client:
        client.config_set("requirepass", "")
    known = SimpleNamespace(config=SimpleNamespace(redis=RedisSection(url=server.url), site=LaptopSite()))
    (finding,) = find_server(known)
    assert finding.status == "warning"
    assert "every user of this machine" in finding.found
