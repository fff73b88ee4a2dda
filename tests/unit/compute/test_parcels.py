from __future__ import annotations

import hashlib
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fff.compute.parcels import from_bytes, to_bytes

EXAMPLE = {"model.json": b'{"kind": "schnetpack"}', "weights.safetensors": bytes(range(256)) * 40}


def leads_out(name):
    return name.startswith("/") or ".." in name.split("/")


def sealed(content):
    """Return what has the form of a parcel: its magic and the right checksum."""
    return to_bytes({})[:8] + hashlib.sha256(content).digest() + content


@given(st.dictionaries(st.text().filter(lambda name: not leads_out(name)), st.binary()))
def test_a_parcel_comes_back_as_it_was(parcel):
    back = from_bytes(to_bytes(parcel))
    assert back == parcel
    assert list(back) == list(parcel)


def test_the_same_parcel_gives_the_same_bytes():
    assert to_bytes(EXAMPLE) == to_bytes(dict(EXAMPLE))


@given(st.integers(0, len(to_bytes(EXAMPLE)) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position, change):
    data = bytearray(to_bytes(EXAMPLE))
    data[position] ^= change
    with pytest.raises(ValueError, match="parcel"):
        from_bytes(bytes(data))


@given(st.integers(0, len(to_bytes(EXAMPLE)) - 1))
def test_a_parcel_that_was_cut_off_is_noticed(length):
    with pytest.raises(ValueError, match="parcel"):
        from_bytes(to_bytes(EXAMPLE)[:length])


def test_bytes_behind_the_end_are_noticed():
    with pytest.raises(ValueError, match="damaged"):
        from_bytes(to_bytes(EXAMPLE) + b"\0")


def test_a_pickle_is_no_parcel():
    with pytest.raises(ValueError, match="no parcel"):
        from_bytes(pickle.dumps(EXAMPLE))


def test_only_bytes_go_into_a_parcel():
    with pytest.raises(TypeError, match="model"):
        to_bytes({"model": "text"})


@pytest.mark.parametrize("name", ["../weights.safetensors", "/etc/cron.d/x", "member-0/../../x", ".."])
def test_a_name_that_leads_out_of_the_folder_is_refused_on_both_sides(name):
    with pytest.raises(ValueError, match="leads out of it"):
        to_bytes({name: b""})
    encoded = name.encode()
    forged = sealed(struct.pack("!I", 1) + struct.pack("!IQ", len(encoded), 0) + encoded)

    with pytest.raises(ValueError, match="leads out of it"):
        from_bytes(forged)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("!I", 2**32 - 1),
        struct.pack("!I", 1) + struct.pack("!IQ", 1, 2**63) + b"a",
        struct.pack("!I", 1) + struct.pack("!IQ", 2**31, 0) + b"a",
        struct.pack("!I", 1) + struct.pack("!IQ", 1, 0) + b"\xff",
        struct.pack("!I", 0) + b"more",
    ],
)
def test_a_parcel_with_the_right_checksum_and_wrong_lengths_is_refused(content):
    with pytest.raises(ValueError, match="none that fff packed"):
        from_bytes(sealed(content))
