"""What is too large for a queue: parcels in a ProxyStore store, and the shelf that knows when they may go."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxystore.connectors.file import FileConnector
from proxystore.store import Store

from fff.base.files import private_folder
from fff.compute import parcels

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from proxystore.connectors.file import FileKey
    from proxystore.connectors.protocols import Connector
    from proxystore.proxy import Proxy
    from proxystore.serialize import BytesLike

    from fff.compute.parcels import Parcel

__all__ = ["ModelShelf", "ParcelFolder", "open_store", "store_of_parcels"]


class ParcelFolder(FileConnector):
    """Holds bytes in files of a folder that is the user's alone; what was removed there can be set again."""

    def exists(self, key: FileKey) -> bool:
        """Whether a key is there: its bytes, and not the mark alone that they are complete."""
        return super().exists(key) and Path(self.store_dir, key.filename).is_file()

    def set(self, key: FileKey, obj: BytesLike) -> None:
        """Store bytes under a key, in a new folder where the old one is gone."""
        private_folder(Path(self.store_dir))
        super().set(key, obj)


def open_store(directory: Path, name: str) -> Store[ParcelFolder]:
    """Return an empty store of parcels in `directory`, which must belong to it alone.

    Parcels that a killed run left there are removed. Workers make their own copy of the store from any
    proxy; theirs and ours cache nothing: a cached object outlives its eviction, a worker keeps the model it
    has built anyway, and to read 1 MB again takes a millisecond.

    Args:
        directory: A folder that all workers see.
        name: Name of the store, unique among the open stores of this process.

    Raises:
        proxystore.store.exceptions.StoreExistsError: If a store of this name is open.
        RunDirectoryError: If the folder is a symbolic link: what lies elsewhere would be removed.
    """
    private_folder(directory)
    # Workers see the folder under the same path; they must never clear it, as `clear=True` would.
    connector = ParcelFolder(str(directory), clear=False)
    for path in directory.iterdir():
        if path.is_file():
            path.unlink()
    return store_of_parcels(name, connector)


def store_of_parcels[C: Connector[Any]](name: str, connector: C) -> Store[C]:
    """Return a store of parcels, whatever holds them.

    Raises:
        proxystore.store.exceptions.StoreExistsError: If a store of this name is open.
    """
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

    stored: Any = None
    make: Callable[[], Parcel] | None = None
    in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ModelShelf:
    """Parcels by key, each in the store once, gone when they were replaced and nobody needs them any more.

    Requests acquire the keys they name and release them when they have ended; `keep` says which keys later
    requests may name. A parcel leaves the store when it is not to be kept and nothing in flight names it:
    never earlier. Any thread may call anything; parcels are made and stored outside the shelf's lock.

    Args:
        store: An open store; the shelf closes it.
    """

    def __init__(self, store: Store[Any]) -> None:
        self.store = store
        self._items: dict[str, _Item] = {}
        self._kept: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._closed = False

    def acquire(self, key: str, make: Callable[[], Parcel]) -> Proxy[Parcel]:
        """Return a proxy of the parcel and count one request in flight.

        A parcel that the store has lost meanwhile is stored again, under the same name: a request that is
        asked for again since it found none finds it now, and so do others in flight.

        Args:
            key: Name of the parcel.
            make: Makes the parcel, if it is not in the store. Two threads that acquire a new key at once make
                and store it once; what making it raises comes through, and nothing is counted then.

        Raises:
            ValueError: If the shelf is closed.
        """
        with self._lock:
            if self._closed:
                msg = f"The shelf is closed; {key!r} came too late."
                raise ValueError(msg)
            item = self._items.setdefault(key, _Item())
            item.in_flight += 1
        try:
            with item.lock:
                if item.stored is None or self._is_lost(item.stored):
                    self._put(item, make)
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
            unwanted = self._take_unwanted()
        self._evict(unwanted)

    def keep(self, keys: Set[str]) -> None:
        """Keep these parcels though no request names them; let others go as soon as none does."""
        with self._lock:
            self._kept = frozenset(keys)
            unwanted = self._take_unwanted()
        self._evict(unwanted)

    def keys(self) -> set[str]:
        """Return the keys that are there: kept ones that were acquired once, and those in flight."""
        with self._lock:
            return set(self._items)

    def n_objects(self) -> int:
        """Return how many objects really lie in the store."""
        # The connector writes the marker last and removes it last.
        return len(list(Path(self.store.connector.store_dir).glob("*.ready")))

    def close(self) -> None:
        """Remove all objects and what held them, and close the store; may be called twice.

        Requests may still be released. Stop the task server first: a worker that opens the store later would
        make the folder again.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.store.close(clear=self._can_be_cleared())

    def __enter__(self) -> ModelShelf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_unwanted(self) -> list[_Item]:
        gone = [key for key, item in self._items.items() if not item.in_flight and key not in self._kept]
        return [self._items.pop(key) for key in gone]

    def _can_be_cleared(self) -> bool:
        return True

    def _is_lost(self, stored: Any) -> bool:
        return not self.store.connector.exists(stored)

    def _put(self, item: _Item, make: Callable[[], Parcel]) -> None:
        data = parcels.to_bytes(make())
        stored = item.stored or self.store.connector.new_key()
        self.store.connector.set(stored, data)
        item.stored = stored

    def _evict(self, unwanted: list[_Item]) -> None:
        for item in unwanted:
            if item.stored is not None and not self._closed:
                self.store.evict(item.stored)
