"""What is too large for a queue: parcels in a ProxyStore store, and the shelf that knows when they may go."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from proxystore.connectors.file import FileConnector
from proxystore.store import Store

from fff.compute import parcels

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxystore.connectors.file import FileKey
    from proxystore.proxy import Proxy

    from fff.compute.parcels import Parcel

__all__ = ["ModelShelf", "open_store"]


def open_store(directory: Path, name: str) -> Store[FileConnector]:
    """Return an empty store of parcels in `directory`, which must belong to it alone.

    Parcels that a killed run left there are removed. Workers make their own copy of the store from any
    proxy; theirs and ours cache nothing: a cached object outlives its eviction, a worker keeps the model it
    has built anyway, and to read 1 MB again takes a millisecond.

    Args:
        directory: A folder that all workers see.
        name: Name of the store, unique among the open stores of this process.

    Raises:
        proxystore.store.exceptions.StoreExistsError: If a store of this name is open.
    """
    # Workers see the folder under the same path; they must never clear it, as `clear=True` would.
    connector = FileConnector(str(directory), clear=False)
    for path in directory.iterdir():
        if path.is_file():
            path.unlink()
    # The default deserialiser chooses pickle when the header says so; ours knows parcels and nothing else.
    return Store(
        name,
        connector,
        serializer=parcels.to_bytes,
        deserializer=parcels.from_bytes,
        cache_size=0,
        populate_target=False,
        register=True,
    )


@dataclass
class _Item:
    """What the shelf knows about one key."""

    make: Callable[[], Parcel]
    stored: FileKey | None = None
    in_flight: int = 0
    retired: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class ModelShelf:
    """Parcels by key, each in the store once, gone when they were replaced and nobody needs them any more.

    A key is placed, acquired by every request that names it, released when that request has ended, and
    retired when it was replaced. It leaves the store when it is retired and nothing in flight names it:
    never earlier. Any thread may call anything; parcels are made and stored outside the shelf's lock.

    Args:
        store: An open store; the shelf closes it.
    """

    def __init__(self, store: Store[FileConnector]) -> None:
        self.store = store
        self._items: dict[str, _Item] = {}
        self._lock = threading.Lock()
        self._closed = False

    def place(self, key: str, make: Callable[[], Parcel]) -> None:
        """Make `key` known; `make` reads its parcel when it is acquired for the first time.

        A key that is already there keeps its parcel, and is no longer retired if it was.

        Raises:
            ValueError: If the shelf is closed.
        """
        with self._lock:
            self._check_open(key)
            self._items.setdefault(key, _Item(make)).retired = False

    def acquire(self, key: str) -> Proxy[Parcel]:
        """Return a proxy of the parcel and count one request in flight.

        Two threads that acquire a new key at once make and store it once. What making the parcel raises
        comes through, and nothing is counted then.

        Raises:
            KeyError: If the key was never placed, or has been retired and is gone.
            ValueError: If the shelf is closed.
        """
        with self._lock:
            self._check_open(key)
            item = self._items[key]
            item.in_flight += 1
        try:
            with item.lock:
                if item.stored is None:
                    item.stored = cast("FileKey", self.store.put(item.make()))
            return self.store.proxy_from_key(item.stored)
        except BaseException:
            self.release(key)
            raise

    def release(self, key: str) -> None:
        """Count one request that named `key` as ended.

        Raises:
            KeyError: If the key is not there.
            ValueError: If no request in flight names it.
        """
        with self._lock:
            item = self._items[key]
            if item.in_flight == 0:
                msg = f"{key!r} was released more often than it was acquired."
                raise ValueError(msg)
            item.in_flight -= 1
            unwanted = self._take_if_unwanted(key)
        self._evict(unwanted)

    def retire(self, key: str) -> None:
        """Let `key` go as soon as no request in flight names it; a key that is not there is gone already."""
        with self._lock:
            if key in self._items:
                self._items[key].retired = True
            unwanted = self._take_if_unwanted(key)
        self._evict(unwanted)

    def keys(self) -> set[str]:
        """Return the keys that are there, retired ones included while requests name them."""
        with self._lock:
            return set(self._items)

    def n_objects(self) -> int:
        """Return how many objects really lie in the store's folder."""
        # The connector writes the marker last and removes it last.
        return len(list(Path(self.store.connector.store_dir).glob("*.ready")))

    def close(self) -> None:
        """Remove all objects and the folder, and close the store; may be called twice.

        Requests may still be released. Stop the task server first: a worker that opens the store later would
        make the folder again.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.store.close(clear=True)

    def __enter__(self) -> ModelShelf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self, key: str) -> None:
        if self._closed:
            msg = f"The shelf is closed; {key!r} came too late."
            raise ValueError(msg)

    def _take_if_unwanted(self, key: str) -> _Item | None:
        item = self._items.get(key)
        if item is None or item.in_flight or not item.retired:
            return None
        return self._items.pop(key)

    def _evict(self, item: _Item | None) -> None:
        if item is not None and item.stored is not None and not self._closed:
            self.store.evict(item.stored)
