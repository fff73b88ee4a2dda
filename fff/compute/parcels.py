"""Parcels: named files as one piece of bytes, for the store. No pickle, and damage is noticed.

A model is a handful of files (`model.json`, `weights.safetensors`), a training set is one. Stores hold
bytes; this is the format between the two::

    magic (8 bytes) | sha256 of all that follows (32) | number of files (4)
    for each file:    length of its name (4) | length of its content (8) | name (UTF-8) | content

Numbers are unsigned and big-endian. A name is a relative path that does not go up.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Buffer, Mapping

__all__ = ["Parcel", "from_bytes", "to_bytes"]

type Parcel = dict[str, bytes]

_MAGIC = b"FFFparc1"
_DIGEST_SIZE = hashlib.sha256().digest_size
_COUNT = struct.Struct("!I")
_LENGTHS = struct.Struct("!IQ")


def to_bytes(parcel: Mapping[str, bytes]) -> bytes:
    """Return `parcel` as bytes; `from_bytes` gives back the same files in the same order.

    Raises:
        TypeError: If a content is no bytes.
        ValueError: If a name leads elsewhere.

    Example:
        >>> from_bytes(to_bytes({"model.json": b"{}"}))
        {'model.json': b'{}'}
    """
    pieces: list[bytes] = [_COUNT.pack(len(parcel))]
    for name, content in parcel.items():
        if not isinstance(content, bytes):
            msg = f"A parcel holds bytes by name; {name!r} is a {type(content).__name__}."
            raise TypeError(msg)
        _check_name(name)
        encoded = name.encode()
        pieces += [_LENGTHS.pack(len(encoded), len(content)), encoded, content]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return b"".join([_MAGIC, digest.digest(), *pieces])


def from_bytes(data: Buffer) -> Parcel:
    """Return the files that `to_bytes` packed.

    Raises:
        ValueError: If `data` is no parcel, is cut off or was changed on the way, or a name leads elsewhere.
    """
    view = memoryview(data)
    start = len(_MAGIC) + _DIGEST_SIZE
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        msg = f"The data is no parcel: it starts with {bytes(view[: len(_MAGIC)])!r}, not with {_MAGIC!r}."
        raise ValueError(msg)
    if hashlib.sha256(view[start:]).digest() != view[len(_MAGIC) : start]:
        msg = f"The parcel of {len(view)} bytes is damaged: its checksum does not agree."
        raise ValueError(msg)
    try:
        parcel, end = _unpack(view, start)
    except (struct.error, UnicodeDecodeError) as error:
        msg = f"The parcel of {len(view)} bytes is none that fff packed: {error}."
        raise ValueError(msg) from error
    if end != len(view):
        msg = f"The parcel of {len(view)} bytes is none that fff packed: its files end at {end}."
        raise ValueError(msg)
    for name in parcel:
        _check_name(name)
    return parcel


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        msg = f"A parcel holds files of one folder; the name {name!r} leads out of it."
        raise ValueError(msg)


def _unpack(view: memoryview, start: int) -> tuple[Parcel, int]:
    """Return the files, and where the last one ends."""
    (count,) = _COUNT.unpack_from(view, start)
    position = start + _COUNT.size
    parcel: Parcel = {}
    for _ in range(count):
        name_length, length = _LENGTHS.unpack_from(view, position)
        position += _LENGTHS.size
        name = bytes(view[position : position + name_length]).decode()
        position += name_length
        parcel[name] = bytes(view[position : position + length])
        position += length
    return parcel, position
