"""The store in a Redis server: one hash of parcels, which is filled again where the server has lost it."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from fff.base.errors import CampaignError, StoreLostError
from fff.compute import parcels
from fff.compute.redis_access import KEYS_LAST_S, TROUBLE, Absence, connect, describe_trouble
from fff.compute.stores import ModelShelf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxystore.serialize import BytesLike
    from proxystore.store import Store

    from fff.compute.parcels import Parcel
    from fff.compute.stores import _Item

__all__ = ["ParcelKey", "RedisConnector", "RedisShelf"]

_LARGEST_BYTES = 512 * 1024**2
"""What a Redis server takes as one value unless it is told otherwise."""

_LOOK_EVERY_S = 1.0

_LOOK_LASTS_S = 3.0
"""After this time of one look no further parcel is begun: others wait for the thread that looks."""


class ParcelKey(NamedTuple):
    """Names a parcel.

    Attributes:
        field: Its field in the hash.
    """

    field: str


class RedisConnector:
    """Holds bytes in one hash of a Redis server; the connector of ProxyStore that workers build from a proxy.

    ProxyStore's own takes no password, database or prefix, and empties the whole database on `close`.

    Args:
        url: The server, without a password.
        password_variable: Name of the environment variable that holds it, here and where workers run.
        name: Key of the hash, used by nobody else.
        patience_s: How long `get` waits for a server that is away, or for what the server has lost and the
            steering process stores again.

    Raises:
        ConfigError: If that variable holds nothing.
    """

    def __init__(self, url: str, password_variable: str | None, name: str, patience_s: float) -> None:
        self.name = name
        self._config = {
            "url": url,
            "password_variable": password_variable,
            "name": name,
            "patience_s": patience_s,
        }
        self._patience_s = patience_s
        self._client = connect(url, password_variable)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RedisConnector({self.name!r})"

    def close(self, clear: bool = False) -> None:
        """Close the connections, and remove the hash if `clear`: no other key is touched.

        May be called twice. A server that is away keeps the hash until its time is over.
        """
        if clear:
            with contextlib.suppress(*TROUBLE):
                self._client.unlink(self.name)
        self._client.close()

    def config(self) -> dict[str, Any]:
        """Return what another process makes the same connector from; no password is in it."""
        return dict(self._config)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RedisConnector:
        """Return the connector of a config.

        Raises:
            ConfigError: If the variable that it names holds nothing here.
        """
        return cls(**config)

    def new_key(self, obj: BytesLike | None = None) -> ParcelKey:  # noqa: ARG002 - part of the interface
        """Return a key that nothing has yet."""
        return ParcelKey(uuid.uuid4().hex)

    def put(self, obj: BytesLike) -> ParcelKey:
        """Store bytes and return their key."""
        key = self.new_key()
        self.set(key, obj)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[ParcelKey]:
        """Store several pieces of bytes and return their keys in the same order."""
        return [self.put(obj) for obj in objs]

    def set(self, key: ParcelKey, obj: BytesLike) -> None:
        """Store bytes under a key.

        Raises:
            CampaignError: If they are more than a server takes.
        """
        if len(obj) > _LARGEST_BYTES:
            msg = f"A parcel of {len(obj)} bytes is more than the {_LARGEST_BYTES} that a Redis server takes."
            raise CampaignError(msg, hint="Leave the store in files: `redis.use_for: [queues]`.")
        commands = self._client.pipeline(transaction=False)
        commands.hset(self.name, key.field, bytes(obj))
        commands.expire(self.name, KEYS_LAST_S)
        commands.execute()

    def get(self, key: ParcelKey) -> bytes:
        """Return the bytes of a key; waits for a server that is away, and for bytes that it has lost.

        Raises:
            StoreLostError: If they did not come within the patience.
        """
        end = time.monotonic() + self._patience_s
        while True:
            try:
                data = self._client.hget(self.name, key.field)
            except TROUBLE as error:
                why = describe_trouble(error)
            else:
                if data is not None:
                    return cast("bytes", data)
                why = "it does not hold the parcel"
            if time.monotonic() >= end:
                msg = f"The Redis server gave no parcel for {self._patience_s:g} s: {why}."
                hint = "Workers must reach the address in `redis.url`; `fff check` tries it from here."
                raise StoreLostError(msg, hint=hint)
            time.sleep(min(_LOOK_EVERY_S, max(0.0, end - time.monotonic())))

    def get_batch(self, keys: Sequence[ParcelKey]) -> list[BytesLike | None]:
        """Return the bytes of several keys in the same order."""
        return [self.get(key) for key in keys]

    def exists(self, key: ParcelKey) -> bool:
        """Whether a key is there."""
        return bool(self._client.hexists(self.name, key.field))

    def evict(self, key: ParcelKey) -> None:
        """Remove a key; one that is not there is no error."""
        self._client.hdel(self.name, key.field)

    def keys(self) -> frozenset[ParcelKey]:
        """Return the keys that are there, and have them stay for another while."""
        commands = self._client.pipeline(transaction=False)
        commands.expire(self.name, KEYS_LAST_S)
        commands.hkeys(self.name)
        _, fields = commands.execute()
        return frozenset(ParcelKey(field.decode()) for field in fields)


class RedisShelf(ModelShelf):
    """A shelf whose store may vanish: nobody waits for it, and what it lost is stored again.

    Args:
        store: An open store; the shelf closes it.

    Attributes:
        absence: How long the server has been away.
    """

    def __init__(self, store: Store[RedisConnector]) -> None:
        super().__init__(store)
        self.absence = Absence()
        self._next_look = 0.0

    def n_objects(self) -> int:
        """Return how many objects really lie in the store."""
        return len(self.store.connector.keys())

    def look_after(self) -> None:
        """Store again what the server has lost, and remove what it should not have; at most once a second.

        The first thing that the server does not do ends the look: a server that hangs is waited for once. The
        next one comes no sooner than this one took, so that half of the time is left for other things.
        """
        began = time.monotonic()
        if self._closed or began < self._next_look:
            return
        # A server may answer, and have no room all the same.
        if self._mend():
            self.absence.answered()
        ended = time.monotonic()
        self._next_look = ended + max(_LOOK_EVERY_S, ended - began)

    def _mend(self) -> bool:
        """Return whether the server now holds what it should, and nothing else."""
        end = time.monotonic() + _LOOK_LASTS_S
        connector = self.store.connector
        try:
            present = connector.keys()
        except TROUBLE as error:
            self.absence.failed(error)
            return False
        with self._lock:
            wanted = {item.stored: item.make for item in self._items.values() if item.make is not None}
        for key in present - wanted.keys():
            if time.monotonic() > end or not self._attempt(connector.evict, key):
                return False
        for key in wanted.keys() - present:
            if time.monotonic() > end:
                return False
            if not self._attempt(connector.set, key, parcels.to_bytes(wanted[key]())):
                return False
        return True

    def _can_be_cleared(self) -> bool:
        """Whether the server is there; one that is away is not waited for at the end, and its keys expire."""
        return self.absence.seconds == 0

    def _is_lost(self, stored: ParcelKey) -> bool:
        """Whether the server says so; of one that is away nobody knows, and `look_after` will see to it."""
        if self.absence.seconds > 0:
            return False
        try:
            return not self.store.connector.exists(stored)
        except TROUBLE as error:
            self.absence.failed(error)
            return False

    def _put(self, item: _Item, make: Callable[[], Parcel]) -> None:
        """Store a parcel, or leave that to `look_after` where the server is away: workers wait for it."""
        data = parcels.to_bytes(make())
        # Known before it is there, so that `look_after` never takes it for a leftover.
        item.stored, item.make = item.stored or self.store.connector.new_key(), make
        if self.absence.seconds == 0:
            self._attempt(self.store.connector.set, item.stored, data)

    def _evict(self, unwanted: list[_Item]) -> None:
        """Remove parcels, or leave that to `look_after` where the server is away."""
        for item in unwanted:
            if item.stored is not None and not self._closed and self.absence.seconds == 0:
                self._attempt(self.store.connector.evict, item.stored)

    def _attempt(self, action: Callable[..., None], *args: Any) -> bool:
        """Return whether the server did what it was asked."""
        try:
            action(*args)
        except TROUBLE as error:
            self.absence.failed(error)
            return False
        return True
