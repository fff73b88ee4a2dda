from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fff.compute.parcels import from_bytes, to_bytes

EXAMPLE = {"model.json": b'{"kind": "schnetpack"}', "weights.safetensors": bytes(range(256)) * 40}


@given(st.dictionaries(st.text(), st.binary()))
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
