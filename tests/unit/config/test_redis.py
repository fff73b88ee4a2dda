from __future__ import annotations

import pytest

from fff.base.errors import ConfigError
from fff.config import config_from_dict
from fff.config.redis import password_from

LEAST = {"structures": ["molecule:H2O"], "reference": {"kind": "xtb"}}


def section(**values):
    return config_from_dict({**LEAST, "redis": values}).redis


def refused(**values) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        section(**values)
    return caught.value


def test_without_a_section_nothing_needs_a_server():
    assert config_from_dict(LEAST).redis.url is None
    assert section(password_variable="SECRET").place == ""


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://localhost", "redis://localhost:6379"),
        ("redis://127.3.2.1:7000/2", "redis://127.3.2.1:7000/2"),
        ("redis://[::1]:7000", "redis://[::1]:7000"),
        ("rediss://localhost:1/?ssl_ca_certs=/etc/ca.pem", "rediss://localhost:1"),
        ("unix:///run/redis/redis.sock", "unix:/run/redis/redis.sock"),
        ("unix:///run/redis.sock?db=3", "unix:/run/redis.sock?db=3"),
    ],
)
def test_a_server_on_this_machine_needs_no_password(url, place):
    assert section(url=url).place == place


@pytest.mark.parametrize(
    "url", ["redis://node1", "redis://10.0.0.1:1", "rediss://[fe80::1]", "redis://128.0.0.1"]
)
def test_a_server_that_others_reach_needs_one(url):
    error = refused(url=url)
    assert "which other machines can reach" in error.message
    assert "requirepass" in error.hint
    assert section(url=url, password_variable="FFF_REDIS_PASSWORD").url == url


def test_a_user_may_be_named_and_needs_a_password():
    url = "redis://me@node1:6379/0"
    assert section(url=url, password_variable="SECRET").place == "redis://node1:6379/0"
    assert "names a user" in refused(url="redis://me@localhost").message


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@localhost",
        "redis://me:hunter2@localhost",
        "redis://me:@localhost",
        "redis://me:a/hunter2@localhost",
        "http://me:hunter2@localhost",
        "hunter2@localhost",
        "redis://localhost?password=hunter2",
        "unix://:hunter2@/run/redis.sock",
        "unix:///run/redis.sock?password=hunter2",
    ],
)
@pytest.mark.parametrize("variable", [None, "SECRET"])
def test_a_password_in_the_address_is_refused_and_never_shown(url, variable):
    error = refused(url=url, password_variable=variable)
    assert error.context["key"] == "redis.url"
    assert "hunter2" not in f"{error.message} {error.hint} {error.context}"


def test_a_password_in_place_of_a_variables_name_is_refused_and_not_shown():
    for value in ("hunter2", "correct horse", "PASS-WORD", "1A"):
        error = refused(url="redis://localhost", password_variable=value)
        assert "capitals" in error.message
        assert value not in f"{error.message} {error.hint} {error.context}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:6379", "begins with localhost://"),
        ("node1", "names no scheme"),
        ("http://localhost", "begins with http://"),
        ("redis://", "names no host"),
        ("redis://:6379", "names no host"),
        ("redis://localhost:0", "port is 0"),
        ("redis://localhost:x", "host or port"),
        ("redis://localhost:99999", "host or port"),
        ("redis://[::1", "host or port"),
        ("redis://localhost/one", "number of a database"),
        ("redis://localhost/0/1", "number of a database"),
        ("redis://localhost/0?db=1", "may stand nothing"),
        ("redis://localhost#a", "may stand nothing"),
        ("rediss://localhost?ssl_cert_reqs=none", "may stand ?ssl_ca_certs="),
        ("unix://run/redis.sock", "no absolute path"),
        ("unix:///", "no absolute path"),
        ("unix:///run/redis.sock?db=a", "database is no number"),
    ],
)
def test_an_address_that_is_none_is_refused_with_the_reason_and_the_forms_there_are(url, why):
    error = refused(url=url)
    assert why in error.message
    assert repr(url) in error.message
    assert "redis://host:port/database" in error.hint


def test_a_password_comes_from_its_variable_alone(monkeypatch):
    monkeypatch.setenv("FFF_TEST_PASSWORD", "hunter2")
    assert password_from("FFF_TEST_PASSWORD") == "hunter2"
    assert password_from(None) is None


@pytest.mark.parametrize(("value", "state"), [(None, "not set"), ("", "empty")])
def test_a_variable_that_holds_nothing_is_named_with_the_repair(monkeypatch, value, state):
    monkeypatch.delenv("FFF_TEST_PASSWORD", raising=False)
    if value is not None:
        monkeypatch.setenv("FFF_TEST_PASSWORD", value)
    with pytest.raises(
        ConfigError, match=f"FFF_TEST_PASSWORD, but that environment variable is {state}"
    ) as caught:
        password_from("FFF_TEST_PASSWORD")
    assert "export FFF_TEST_PASSWORD" in caught.value.hint
    assert caught.value.context["key"] == "redis.password_variable"


def on_pbs(*set_up, kind="pbs"):
    values = {"structures": ["bulk:Cu"], "reference": {"kind": "xtb"}}
    redis = {"url": "redis://head", "password_variable": "FFF_REDIS_PASSWORD"}
    site = {"kind": kind, "nodes": {"cpu": {"set_up": list(set_up)}}}
    return config_from_dict({**values, "redis": redis, "site": site})


@pytest.mark.parametrize(
    "line", ["true", "export FFF_REDIS_PASSWORD=hunter2", "# FFF_REDIS_PASSWORD=$(cat x)"]
)
def test_a_password_that_would_have_to_go_along_with_a_job_of_pbs_is_refused(line):
    with pytest.raises(
        ConfigError, match=r"`site\.nodes\.cpu` would not have: PBS shows to all users"
    ) as caught:
        on_pbs(line)
    assert "export FFF_REDIS_PASSWORD=$(cat ~/.redis-password)" in caught.value.hint


def test_workers_on_pbs_may_read_the_password_from_a_file():
    assert on_pbs("export FFF_REDIS_PASSWORD=$(cat ~/.redis-password)").redis.url == "redis://head"
    assert on_pbs(kind="slurm").redis.url == "redis://head"
