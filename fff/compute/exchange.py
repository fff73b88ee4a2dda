"""What messages and models travel through, as the config says: this machine alone, or a Redis server."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from typing import TYPE_CHECKING

from fff.base.errors import CampaignError
from fff.compute.queues import LocalQueues
from fff.compute.redis_access import TROUBLE, connect, describe_trouble
from fff.compute.redis_queues import RedisQueues
from fff.compute.redis_store import RedisConnector, RedisShelf
from fff.compute.stores import ModelShelf, open_store, store_of_parcels

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from fff.compute.queues import Queues
    from fff.config import RedisSection

__all__ = ["Exchange", "find_redis", "remove_leftovers"]


def find_redis(redis: RedisSection) -> None:
    """Check that the server of a config answers, if it names one.

    Raises:
        ConfigError: If the variable with its password holds nothing.
        CampaignError: If it does not answer, or refuses the password.
    """
    if redis.url is None:
        return
    client = connect(redis.url, redis.password_variable)
    try:
        with client:
            client.ping()
    except TROUBLE as error:
        msg = f"The Redis server {redis.place} cannot be used: {describe_trouble(error)}."
        hint = (
            "Start it, or mend `redis.url` and the variable with the password; without a server: "
            "-o redis.url=null."
        )
        raise CampaignError(msg, hint=hint) from None


def remove_leftovers(redis: RedisSection, campaign: str) -> None:
    """Remove what earlier sittings of a campaign left in the server, if it can be reached; else it expires.

    Args:
        redis: The section of the config.
        campaign: Identifies the campaign.
    """
    if redis.url is None:
        return
    with contextlib.suppress(*TROUBLE), connect(redis.url, redis.password_variable) as client:
        for key in client.scan_iter(match=f"fff:{campaign}:*", count=1000):
            client.unlink(key)


class Exchange:
    """Makes queues and shelf for one sitting, and looks after them.

    All keys in a Redis server begin with `fff:`, the campaign and the sitting. What an earlier sitting of the
    campaign left there, since it was killed, is removed; else it goes when its time is over.

    Args:
        redis: The section of the config.
        campaign: Identifies the campaign, also after it was resumed; letters and digits.
    """

    def __init__(self, redis: RedisSection, campaign: str) -> None:
        self._redis = redis
        self._prefix = f"fff:{campaign}:{secrets.token_hex(4)}:"
        self._queues: RedisQueues | None = None
        self._shelf: RedisShelf | None = None
        self._was_away = False
        remove_leftovers(redis, campaign)

    def queues(self, topics: Collection[str]) -> Queues:
        """Return the queues; make them once, and before the task server is forked.

        Raises:
            ConfigError: If the variable with the server's password holds nothing.
        """
        if self._redis.url is None or "queues" not in self._redis.use_for:
            return LocalQueues(topics)
        connect_to = (self._redis.url, self._redis.password_variable)
        self._queues = RedisQueues(connect_to, self._prefix, topics)
        return self._queues

    def shelf(self, folder: Path, name: str) -> ModelShelf:
        """Return an empty shelf; make it once.

        Args:
            folder: Where parcels lie that are in files; it belongs to the store alone.
            name: Name of the store, unique among the open stores of this process.
        """
        redis = self._redis
        if redis.url is None or "store" not in redis.use_for:
            return ModelShelf(open_store(folder, name))
        # Of a sitting that was killed, before the config named a server.
        shutil.rmtree(folder, ignore_errors=True)
        key = f"{self._prefix}store"
        connector = RedisConnector(redis.url, redis.password_variable, key, redis.patience_s)
        self._shelf = RedisShelf(store_of_parcels(name, connector))
        return self._shelf

    def look_after(self, say: Callable[[str], None]) -> str | None:
        """Look after a server that may be away; call it about twice a second.

        Args:
            say: Prints a line for people, when it goes away and when it is back.

        Returns:
            Why the campaign has to stop, once the server has been away for longer than the patience.
        """
        if self._shelf is not None:
            self._shelf.look_after()
        parts = [part.absence for part in (self._queues, self._shelf) if part is not None]
        longest = max(parts, key=lambda absence: absence.seconds, default=None)
        away_s = longest.seconds if longest is not None else 0.0
        place, patience_s = f"The Redis server {self._redis.place}", self._redis.patience_s
        if longest is None or away_s == 0:
            if self._was_away:
                say(f"{place} is back; the campaign goes on.")
            self._was_away = False
            return None
        if not self._was_away:
            say(f"{place} is away ({longest.why}); the campaign waits up to {patience_s:g} s for it.")
        self._was_away = True
        if away_s > patience_s:
            return f"{place} was away for {away_s:.0f} s ({longest.why}); it must run again first"
        return None
