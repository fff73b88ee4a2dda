"""A probe of the Redis server that a config names: is it there, may fff write, does it keep what it has."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from fff.base.durations import duration
from fff.campaigns.checking.findings import Finding, failed, fine, warning
from fff.compute.exchange import find_redis
from fff.compute.redis_access import TROUBLE, connect, describe_trouble
from fff.config.site import BatchSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from fff.campaigns.checking.findings import Known
    from fff.config import RedisSection

__all__ = ["find_server"]

_OLDEST = 6
_USER = "`ACL SETUSER NAME on >PASSWORD ~fff:* +@read +@write +@connection +info`"


def find_server(known: Known) -> Iterator[Finding]:
    """Ask the server, if one is named, for its version and settings; write, read and remove a key."""
    section = known.config.redis
    if section.url is None:
        return
    find_redis(section)
    client = connect(section.url, section.password_variable)
    try:
        with client:
            answer_s = _write_and_read(client)
            information = {**client.info("server"), **client.info("memory")}
    except TROUBLE as error:
        hint = f"Give it room, or a user of fff's own its rights: {_USER}."
        yield failed("redis", f"{section.place} answers, but {describe_trouble(error)}", hint)
        return
    yield _judge(known, section, answer_s, information)


def _write_and_read(client: redis.Redis) -> float:
    """Return how long a round trip takes, in seconds."""
    key = f"fff:check:{secrets.token_hex(8)}"
    client.set(key, 1, ex=60)
    started = time.perf_counter()
    client.get(key)
    answer_s = time.perf_counter() - started
    client.unlink(key)
    return answer_s


def _judge(known: Known, section: RedisSection, answer_s: float, information: dict[str, str]) -> Finding:
    version, policy = str(information["redis_version"]), str(information["maxmemory_policy"])
    found = f"{section.place}, version {version}, answers in {duration(answer_s)}"
    values = {"place": section.place, "version": version, "maxmemory_policy": policy, "answer_s": answer_s}
    if int(version.partition(".")[0]) < _OLDEST:
        return failed("redis", f"{found}; fff needs version {_OLDEST}", "Use a newer server.", **values)
    if policy != "noeviction":
        return failed(
            "redis",
            f"{found}; its maxmemory-policy is {policy}: a full memory throws away what is in use",
            "Set `maxmemory-policy noeviction` in redis.conf, or now: redis-cli CONFIG SET maxmemory-policy "
            "noeviction.",
            **values,
        )
    site = known.config.site
    if isinstance(site, BatchSite) and section.is_on_this_machine and "store" in section.use_for:
        return warning(
            "redis",
            f"{found}; only this machine reaches it, but the workers of the site {site.kind} run on others",
            "Set `redis.url` to an address of this machine that they reach, or `redis.use_for: [queues]`.",
            **values,
        )
    if section.password_variable is None and not section.place.startswith("unix:"):
        return warning(
            "redis",
            f"{found}; without a password: every user of this machine reaches it",
            "Where there are others, set `requirepass` and `redis.password_variable`.",
            **values,
        )
    word = "password accepted, " if section.password_variable else ""
    return fine("redis", f"{found}; {word}keeps what it is given ({policy})", **values)
